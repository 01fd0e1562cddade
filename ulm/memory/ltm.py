"""The long-term memory (LTM): external, content-addressable, written where the text was surprising.

- A token whose surprisal (-log2 of the probability it had) exceeds a threshold is written: its key is the query that
  the position before it would have asked, its value the token's own hidden state. So a read asks "where was I in a
  state like this, and what came then", as nearest-neighbour language models do (Khandelwal et al., arXiv:1911.00172).
- Items become readable when their segment is complete, at fixed places of the document. So reading is causal, and
  decoding token by token gives what reading the whole text gives.
- A read is attention over the items whose key has a cosine above a limit with the query, beside a learned null item
  that stands for "nothing here"; each head has a gate that is 0 at first: an untrained memory changes no bit.
- Gradients reach keys and values through the reads; which items are kept is decided without gradient.
- An item keeps its place as long as it is there, so that a write touches no more than what it changes.
- Knows no tokenizer, no optimizer, and not how hidden states come about.

Axes: B rows, S tokens of a segment, M items, H heads, D head size, C width, X = layers with reads x H x D,
N tokens that show where an item was written.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ulm.config import LTMConfig
from ulm.memory.state import LTMState, Placement, Staged

Control = Literal["none", "shuffled_values", "random_writes", "capacity_1", "no_reads"]
CONTROLS: tuple[Control, ...] = ("shuffled_values", "random_writes", "capacity_1", "no_reads")
"""Null controls: each takes away one thing that memory needs and leaves the rest, the cost included, as it is."""

TEMPERATURE = 20.0
"""Initial sharpness of reads: an item of cosine 1 weighs e^4 times one of cosine .8."""


class Reader(nn.Module):
    """The part of the memory that belongs to one block.

    Args:
        config: of the memory.
        d_model: width of the residual stream.
        norm_eps: of its RMS norm.
    """

    def __init__(self, config: LTMConfig, d_model: int, norm_eps: float) -> None:
        super().__init__()
        self.config = config
        self.norm_eps = norm_eps
        self.norm = nn.Parameter(torch.ones(d_model))
        # Queries and keys are one projection, so equal contexts match before anything was learned.
        self.key_value = nn.Linear(d_model, 2 * config.width, bias=False)
        self.out = nn.Linear(config.width, d_model, bias=False)
        self.gate = nn.Parameter(torch.zeros(config.n_head))
        self.log_temperature = nn.Parameter(torch.full((config.n_head,), math.log(TEMPERATURE)))
        self.null = nn.Parameter(torch.full((config.n_head,), config.similarity))

    def project(self, x_BSC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries of all positions, which are the keys of what follows them, and the values, (B, S, H*D)."""
        x_BSC = F.rms_norm(x_BSC, self.norm.shape, self.norm, self.norm_eps)
        keys, values = self.key_value(x_BSC).chunk(2, dim=-1)
        return F.normalize(self._heads(keys), dim=-1).flatten(-2), values

    def _heads(self, x_BMY: Tensor) -> Tensor:
        return x_BMY.float().view(*x_BMY.shape[:-1], self.config.n_head, self.config.head_size)

    def read(
        self,
        queries_BSY: Tensor,
        keys_BMY: Tensor,
        values_BMY: Tensor,
        there_BM: Tensor,
        beta_BMH: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return what the memory adds to the residual stream, (B, S, C), and where items were read, (B, S, M) bool.

        Args:
            queries_BSY: from `project`, Y = H * D.
            keys_BMY: of the items.
            values_BMY: of the items.
            there_BM: False where there is no item.
            beta_BMH: logarithms of their masses; None for 0.
        """
        c = self.config
        with torch.autocast(queries_BSY.device.type, enabled=False):  # cosines decide: bfloat16 is too coarse for them
            values = self._heads(values_BMY).transpose(1, 2)
            cosine_BHSM = self._heads(queries_BSY).transpose(1, 2) @ self._heads(keys_BMY).permute(0, 2, 3, 1)
            read_BHSM = (cosine_BHSM > c.similarity) & there_BM[:, None, None]
            sharp_H11 = self.log_temperature.exp()[:, None, None]
            # A cosine is at most 1, so the exponents need no maximum subtracted.
            scores_BHSM = (cosine_BHSM - 1.0) * sharp_H11
            if beta_BMH is not None:
                scores_BHSM = scores_BHSM + beta_BMH.transpose(1, 2)[:, :, None]
            weights_BHSM = scores_BHSM.exp() * read_BHSM
            null_H11 = ((self.null[:, None, None] - 1.0) * sharp_H11).exp()
            gate_H11 = self.gate.tanh()[:, None, None]
            heads = (weights_BHSM @ values) * (gate_H11 / (weights_BHSM.sum(-1, keepdim=True) + null_H11))
        added: Tensor = self.out(heads.transpose(1, 2).flatten(-2).to(values_BMY.dtype))
        return added, read_BHSM.any(1)


class LTM(nn.Module):
    """The readers of a µLM, and the rules of writing.

    Args:
        config: of the memory.
        d_model: width of the residual stream.
        norm_eps: of the readers' RMS norms.
    """

    def __init__(self, config: LTMConfig, d_model: int, norm_eps: float) -> None:
        super().__init__()
        self.config = config
        self.readers = nn.ModuleList(Reader(config, d_model, norm_eps) for _ in config.layers)

    @torch.no_grad()
    def place(self, state: LTMState, staged: Staged, control: Control = "none", seed: int = 0) -> Placement:
        """Return what is written after a segment, and where.

        Args:
            state: as of `write`; its fields and those of `staged` may as well be NumPy's arrays, and so is the result
                then: for the few numbers of a decoding step their calls cost less.
            staged: as of `write`.
            control: as of `write`.
            seed: as of `write`.
        """
        c, xp = self.config, array_module(state.clock_B)
        # Equal surprisals differ in their last bits with the way a text was read, and ranks must not.
        surprisal_BS = xp.round(staged.surprisal_BS * 1024.0) / 1024.0
        (B, S), M = surprisal_BS.shape, c.places
        row_B1 = _arange(B, state.clock_B)[:, None]
        position_BS = state.clock_B[:, None] + _arange(S, state.clock_B)
        written_BS = staged.writable_BS & (surprisal_BS > self._threshold(state, staged, surprisal_BS))
        if c.write_budget is not None and c.write_budget < S:
            falling_BS = xp.where(written_BS, -surprisal_BS, math.inf)
            written_BS = written_BS & (_ranks(falling_BS, xp) < c.write_budget)
        if control == "random_writes":
            noise_BS = xp.where(staged.writable_BS, _noise(_mixed(position_BS, staged.tokens_BSN), seed), math.inf)
            written_BS = _ranks(noise_BS, xp) < written_BS.sum(1)[:, None]
        used_BM = xp.where(staged.reads_BM > 0, (state.clock_B + staged.counts_B)[:, None], state.used_BM)
        there_BN = xp.concatenate((state.position_BM >= 0, written_BS), axis=1)
        if c.overwrite is not None:
            position_BN = xp.concatenate((state.position_BM, position_BS), axis=1)
            keys_BNX = xp.concatenate((state.keys_BMX, as_type(staged.keys_BSX, state.keys_BMX.dtype)), axis=1)
            known_BN = xp.where(there_BN, position_BN, -1)
            there_BN = there_BN & ~_replaced(keys_BNX, known_BN, c.head_size, c.overwrite)
        ranks = {
            "age": (state.position_BM, position_BS),
            "use": (used_BM, position_BS),
            "surprisal": (state.surprisal_BM, surprisal_BS),
        }
        rank_BN = xp.concatenate(ranks[c.eviction], axis=1)
        slot_BN = there_BN & xp.concatenate((state.members_BM > 0, xp.zeros_like(written_BS)), axis=1)
        falling_BN = xp.where(there_BN & ~slot_BN, -as_type(rank_BN, xp.float64), math.inf)
        best = xp.argsort(falling_BN, axis=1, stable=True)[:, : 1 if control == "capacity_1" else c.capacity]
        kept_BN = xp.zeros_like(there_BN)
        kept_BN[row_B1, best] = True
        kept_BN = (kept_BN & there_BN) | slot_BN
        stays_BM, enters_BS = kept_BN[:, :M], kept_BN[:, M:]
        free_BM = xp.argsort(as_type(stays_BM, xp.uint8), axis=1, stable=True)  # free places come first
        place_BS = free_BM[row_B1, xp.clip(xp.cumsum(enters_BS, axis=1) - 1, 0, M - 1)]
        return Placement(written_BS, enters_BS, place_BS, stays_BM, used_BM, position_BS, surprisal_BS)

    def write(
        self, state: LTMState, staged: Staged, control: Control = "none", seed: int = 0
    ) -> tuple[LTMState, Tensor]:
        """Return the memory after a segment, and which tokens were written, (B, S) bool.

        Args:
            state: the memory during the segment.
            staged: what the segment offers.
            control: `random_writes` writes as many tokens of each row, but any, drawn apart for every row;
                `capacity_1` keeps one item.
            seed: of the control's randomness.
        """
        p = self.place(state, staged, control, seed)
        B, M = state.position_BM.shape
        token_S = torch.arange(p.place_BS.shape[1], device=p.place_BS.device)
        # Which token comes into each place; tokens without one go to a place after the last.
        coming_BM = state.position_BM.new_full((B, M + 1), -1)
        coming_BM.scatter_(1, p.place_BS.masked_fill(~p.enters_BS, M), token_S.expand(B, -1))
        coming_BM = coming_BM[:, :M]
        filled_BM, token_BM = coming_BM >= 0, coming_BM.clamp(min=0)

        def after(old: Tensor, new: Tensor) -> Tensor:
            if old.dim() == 2:
                return torch.where(filled_BM, new.gather(1, token_BM), old)
            index = token_BM[..., None].expand(-1, -1, old.shape[-1])
            return torch.where(filled_BM[..., None], new.to(old.dtype).gather(1, index), old)

        return LTMState(
            keys_BMX=after(state.keys_BMX, staged.keys_BSX),
            values_BMX=after(state.values_BMX, staged.values_BSX),
            surprisal_BM=after(state.surprisal_BM, p.surprisal_BS),
            position_BM=after(state.position_BM.masked_fill(~p.stays_BM, -1), p.position_BS),
            used_BM=after(p.used_BM, p.position_BS),
            reads_BM=after(state.reads_BM + staged.reads_BM, torch.zeros_like(p.position_BS)),
            tokens_BMN=after(state.tokens_BMN, staged.tokens_BSN),
            members_BM=state.members_BM.masked_fill(filled_BM, 0),
            beta_BMG=state.beta_BMG.masked_fill(filled_BM[..., None], 0.0),
            recent_BS=p.surprisal_BS.masked_fill(~staged.writable_BS, math.nan),
            clock_B=state.clock_B + staged.counts_B,
        ), p.written_BS

    def _threshold(self, state: LTMState, staged: Staged, surprisal_BS: Tensor) -> Tensor | float:
        """Return the surprisal in bits that a token has to exceed."""
        if self.config.gamma is None:
            return self.config.threshold_bits
        xp = array_module(surprisal_BS)
        S, width = surprisal_BS.shape[1], state.recent_BS.shape[1]
        now_BS = xp.where(staged.writable_BS, surprisal_BS, math.nan)
        line = as_type(xp.concatenate((state.recent_BS, now_BS), axis=1), xp.float64)
        known = ~xp.isnan(line)
        line = xp.where(known, line, 0.0)
        # Sums over the `recent` tokens before each one, from running sums.
        zero_B1 = xp.zeros_like(line[:, :1])
        sums = [
            xp.concatenate((zero_B1, xp.cumsum(x, axis=1)), axis=1) for x in (as_type(known, xp.float64), line, line**2)
        ]
        count, total, squares = (x[:, width : width + S] - x[:, :S] for x in sums)
        some = xp.clip(count, 1, None)
        mean = total / some
        deviation = xp.sqrt(xp.clip(squares / some - mean**2, 0, None))
        # Too few to speak of a deviation: the fixed threshold holds.
        threshold: Tensor = xp.where(count < 8, self.config.threshold_bits, mean + self.config.gamma * deviation)
        return threshold


def array_module(array: Any) -> Any:
    """Return the module whose functions take an array of this kind: torch or numpy."""
    return torch if isinstance(array, Tensor) else np


def as_type(array: Any, dtype: Any) -> Any:
    """Return an array of either kind in another type, or itself."""
    return array.to(dtype) if isinstance(array, Tensor) else array.astype(dtype, copy=False)


def _arange(end: int, like: Any) -> Any:
    return torch.arange(end, device=like.device) if isinstance(like, Tensor) else np.arange(end)


def _ranks(values_BN: Any, xp: Any) -> Any:
    """Return each value's place in the rising order of its row."""
    return xp.argsort(xp.argsort(values_BN, axis=1, stable=True), axis=1)


def _replaced(keys_BNX: Any, position_BN: Any, head_size: int, similarity: float) -> Any:
    """Return which items have a later one in the place that their key leads to, (B, N) bool."""
    keys = torch.as_tensor(keys_BNX).float()
    keys = keys.view(*keys.shape[:2], -1, head_size).transpose(1, 2)
    alike_BNN = ((keys @ keys.transpose(-1, -2)) > similarity).all(1)
    place_BN = torch.as_tensor(position_BN)
    later_BNN = place_BN[:, None, :] > place_BN[:, :, None]
    found_BN = (alike_BNN & later_BNN).any(-1)
    return found_BN if isinstance(position_BN, Tensor) else found_BN.numpy()


def shuffled(state: LTMState, seed: int) -> LTMState:
    """Return a memory in which no item has its own value any more, the null control of content addressing.

    Every item takes the value of the next one in a random circle of all that are there; a single one keeps its own.
    """
    M = state.position_BM.shape[1]
    there_BM = state.position_BM >= 0
    circle_BM = _noise(state.position_BM, seed).masked_fill(~there_BM, math.inf).argsort(dim=1, stable=True)
    place_M = torch.arange(M, device=there_BM.device)
    following_BM = circle_BM.gather(1, (place_M + 1) % there_BM.sum(1, keepdim=True).clamp(min=1))
    taken_BM = torch.empty_like(circle_BM).scatter_(1, circle_BM, following_BM)
    rows = torch.arange(there_BM.shape[0], device=there_BM.device)[:, None]
    return replace(state, values_BMX=state.values_BMX[rows, taken_BM])


def _mixed(position_BS: Any, tokens_BSN: Any) -> Any:
    """Return a whole number per position that also depends on the tokens there, so that rows draw apart."""
    mixed_BS = position_BS
    for n in range(tokens_BSN.shape[-1]):
        mixed_BS = mixed_BS * 6364136223846793005 + tokens_BSN[..., n]
    return mixed_BS


def _noise(position: Any, seed: int) -> Any:
    """Return a number in [0, 1) per position that looks random (splitmix64, Steele et al. 2014); float64."""
    z = position * -7046029254386353131 + (seed * 0x5851F42D4C957F2D) % 2**62
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return as_type((z >> 11) & ((1 << 53) - 1), array_module(z).float64) / 2**53
