"""The long-term memory (LTM): external, content-addressable, written where the text was surprising.

- A token whose surprisal (-log2 of the probability it had) exceeds a threshold is written: its key is the query that
  the position before it would have asked, its value the token's own hidden state. So a read asks "where was I in a
  state like this, and what came then", as nearest-neighbour language models do (Khandelwal et al., arXiv:1911.00172).
- Items become readable when their segment is complete, at fixed places of the document. So reading is causal, and
  decoding token by token gives what reading the whole text gives.
- A read is attention over the items whose key has a cosine above a limit with the query, beside a learned null item
  that stands for "nothing here"; each head has a gate that is 0 at first: an untrained memory changes no bit.
- Gradients reach keys and values through the reads; which items are kept is decided without gradient.
- State is an explicit value: in, out, save, restore. A row's memory depends on that row alone. An item keeps its place
  as long as it is there, so that a write touches no more than what it changes.
- Knows no tokenizer, no optimizer, and not how hidden states come about.

Axes: B rows, S tokens of a segment, M items, H heads, D head size, C width, X = layers with reads x H x D,
N tokens that show where an item was written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from ulm.config import LTMConfig

Control = Literal["none", "shuffled_values", "random_writes", "capacity_1", "no_reads"]
CONTROLS: tuple[Control, ...] = ("shuffled_values", "random_writes", "capacity_1", "no_reads")
"""Null controls: each takes away one thing that memory needs and leaves the rest, the cost included, as it is."""

SHOWN_TOKENS = 8
"""Tokens kept with an item, the written one last, for people who look into a memory."""

TEMPERATURE = 20.0
"""Initial sharpness of reads: an item of cosine 1 weighs e^4 times one of cosine .8."""


@dataclass(frozen=True, slots=True)
class LTMState:
    """What the memories of B rows hold, each item in a place of its own.

    Attributes:
        keys_BMX, values_BMX: of all layers that read; keys have length 1 per layer and head.
        surprisal_BM: bits, of the written token.
        position_BM: index of the written token in all that the memory has seen; -1 where there is no item.
        used_BM: when the item was last read: the end of that segment; its own position before the first time.
        reads_BM: how many (position, layer) pairs read it so far.
        tokens_BMN: ids of the written token and of those before it; -1 before the start.
        recent_BS: surprisals of the segment before, NaN where there was none; for the adaptive threshold.
        clock_B: tokens seen so far.
    """

    keys_BMX: Tensor
    values_BMX: Tensor
    surprisal_BM: Tensor
    position_BM: Tensor
    used_BM: Tensor
    reads_BM: Tensor
    tokens_BMN: Tensor
    recent_BS: Tensor
    clock_B: Tensor

    @classmethod
    def empty(
        cls,
        config: LTMConfig,
        batch: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> LTMState:
        """Return memories that hold nothing."""
        B, M, X = batch, config.capacity, len(config.layers) * config.width

        def whole(value: int, *shape: int) -> Tensor:
            return torch.full(shape, value, device=device, dtype=torch.long)

        return cls(
            keys_BMX=torch.zeros(B, M, X, device=device, dtype=dtype),
            values_BMX=torch.zeros(B, M, X, device=device, dtype=dtype),
            surprisal_BM=torch.zeros(B, M, device=device),
            position_BM=whole(-1, B, M),
            used_BM=whole(-1, B, M),
            reads_BM=whole(0, B, M),
            tokens_BMN=whole(-1, B, M, SHOWN_TOKENS),
            recent_BS=torch.full((B, config.segment), math.nan, device=device),
            clock_B=whole(0, B),
        )

    def counts(self) -> Tensor:
        """Return the number of items of each row, (B,)."""
        return (self.position_BM >= 0).sum(1)

    def detach(self) -> LTMState:
        """Return the same values without their gradient history."""
        return LTMState(*(getattr(self, field.name).detach() for field in fields(self)))

    def cleared(self, rows_B: Tensor) -> LTMState:
        """Return a state in which the rows marked True hold nothing."""
        keep_B1 = ~rows_B[:, None]
        return replace(
            self,
            position_BM=torch.where(keep_B1, self.position_BM, -1),
            recent_BS=torch.where(keep_B1, self.recent_BS, math.nan),
            clock_B=self.clock_B * ~rows_B,
        )

    def select(self, rows: Tensor | slice) -> LTMState:
        """Return the given rows alone: a copy, or views of a slice."""
        return LTMState(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def join(cls, states: Sequence[LTMState]) -> LTMState:
        """Return one state that holds the rows of several, in order."""
        return cls(*(torch.cat([getattr(state, field.name) for state in states]) for field in fields(cls)))

    def replaced(self, rows_R: Tensor, other: LTMState, chosen_R: Tensor) -> LTMState:
        """Return a copy whose given rows are the chosen ones of another state."""
        copies = {field.name: getattr(self, field.name).clone() for field in fields(self)}
        for name, tensor in copies.items():
            tensor[rows_R] = getattr(other, name)[chosen_R]
        return LTMState(**copies)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything by name, for safetensors."""
        return {field.name: getattr(self, field.name).contiguous() for field in fields(self)}

    def to_bytes(self) -> bytes:
        """Return the memory of one row as safetensors, without the places after its last item.

        Raises:
            ValueError: there is more than one row.
        """
        if self.clock_B.shape[0] != 1:
            raise ValueError(f"one memory at a time is written, got {self.clock_B.shape[0]}")
        there_M = (self.position_BM[0] >= 0).nonzero()
        end = int(there_M.max()) + 1 if len(there_M) else 0
        tensors = {name: tensor[:, :end] if "_BM" in name else tensor for name, tensor in self.tensors().items()}
        return bytes(save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}))

    @classmethod
    def from_bytes(cls, data: bytes, config: LTMConfig, device: torch.device | str = "cpu") -> LTMState:
        """Rebuild what `to_bytes` gave.

        Raises:
            ValueError: it is no memory, or that of another configuration.
        """
        try:
            found = load(data)
            items = found["position_BM"].numel()
            whole = cls.empty(config, 1, dtype=found["keys_BMX"].dtype).tensors()
            for name, blank in whole.items():
                place = blank[:, :items] if "_BM" in name else blank
                if (found[name].shape, found[name].dtype) != (place.shape, place.dtype):
                    raise ValueError(f"{name} is {found[name].dtype} of shape {list(found[name].shape)}")
                place.copy_(found[name])
            if unknown := sorted(set(found) - set(whole)):
                raise ValueError(f"unknown: {', '.join(unknown)}")
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"this is no memory of the model's configuration ({error})") from error
        return cls.from_tensors({name: tensor.to(device) for name, tensor in whole.items()})

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> LTMState:
        """Rebuild what `tensors` gave.

        Raises:
            ValueError: names are missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if set(tensors) != names:
            raise ValueError(f"a memory has {', '.join(sorted(names))}; found {', '.join(sorted(tensors))}")
        return cls(**tensors)


@dataclass(frozen=True, slots=True)
class Staged:
    """What one segment offers to the memory.

    Attributes:
        keys_BSX, values_BSX: per token the query of the position before it, and its own value.
        surprisal_BS: bits.
        tokens_BSN: the token and those before it.
        writable_BS: False for padding and for a first token, which nothing predicted.
        counts_B: tokens that are no padding.
        reads_BM: how often each item was read in this segment.
    """

    keys_BSX: Tensor
    values_BSX: Tensor
    surprisal_BS: Tensor
    tokens_BSN: Tensor
    writable_BS: Tensor
    counts_B: Tensor
    reads_BM: Tensor


@dataclass(frozen=True, slots=True)
class Placement:
    """What a segment changes in the memory.

    Attributes:
        written_BS: tokens that are written.
        enters_BS: those of them that find a place; place_BS: which one.
        stays_BM: items that stay.
        used_BM: as in `LTMState`, of the items that stay.
        position_BS, surprisal_BS: of the tokens.
    """

    written_BS: Tensor
    enters_BS: Tensor
    place_BS: Tensor
    stays_BM: Tensor
    used_BM: Tensor
    position_BS: Tensor
    surprisal_BS: Tensor


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

    def matches(self, queries_BSY: Tensor, keys_BMY: Tensor, there_BM: Tensor) -> Tensor:
        """Return which items each position reads with each head, (B, H, S, M) bool; arguments as of `read`."""
        return (self._cosines(queries_BSY, keys_BMY) > self.config.similarity) & there_BM[:, None, None]

    def _cosines(self, queries_BSY: Tensor, keys_BMY: Tensor) -> Tensor:
        return self._heads(queries_BSY).transpose(1, 2) @ self._heads(keys_BMY).permute(0, 2, 3, 1)

    def _heads(self, x_BMY: Tensor) -> Tensor:
        return x_BMY.float().view(*x_BMY.shape[:-1], self.config.n_head, self.config.head_size)

    def read(
        self, queries_BSY: Tensor, keys_BMY: Tensor, values_BMY: Tensor, there_BM: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what the memory adds to the residual stream, (B, S, C), and where items were read, (B, S, M) bool.

        Args:
            queries_BSY: from `project`, Y = H * D.
            keys_BMY: of the items.
            values_BMY: of the items.
            there_BM: False where there is no item.
        """
        c = self.config
        with torch.autocast(queries_BSY.device.type, enabled=False):  # cosines decide: bfloat16 is too coarse for them
            values = self._heads(values_BMY).transpose(1, 2)
            cosine_BHSM = self._cosines(queries_BSY, keys_BMY)
            read_BHSM = (cosine_BHSM > c.similarity) & there_BM[:, None, None]
            sharp_H11 = self.log_temperature.exp()[:, None, None]
            # A cosine is at most 1, so the exponents need no maximum subtracted.
            weights_BHSM = ((cosine_BHSM - 1.0) * sharp_H11).exp() * read_BHSM
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
        (B, S), M = surprisal_BS.shape, c.capacity
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
        position_BN = xp.concatenate((state.position_BM, position_BS), axis=1)
        if c.overwrite is not None:
            keys_BNX = xp.concatenate((state.keys_BMX, as_type(staged.keys_BSX, state.keys_BMX.dtype)), axis=1)
            known_BN = xp.where(there_BN, position_BN, -1)
            there_BN = there_BN & ~_replaced(keys_BNX, known_BN, c.head_size, c.overwrite)
        if c.eviction == "age":
            rank_BN = position_BN
        elif c.eviction == "use":
            rank_BN = xp.concatenate((used_BM, position_BS), axis=1)
        else:
            rank_BN = xp.concatenate((state.surprisal_BM, surprisal_BS), axis=1)
        falling_BN = xp.where(there_BN, -as_type(rank_BN, xp.float64), math.inf)
        best = xp.argsort(falling_BN, axis=1, stable=True)[:, : 1 if control == "capacity_1" else M]
        kept_BN = xp.zeros_like(there_BN)
        kept_BN[row_B1, best] = True
        kept_BN &= there_BN
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
