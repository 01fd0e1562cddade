"""The µLM decoder: token ids in, logits out.

- An ordinary Llama-family block (RMSNorm, RoPE, GQA, SwiGLU; Touvron et al., arXiv:2302.13971), so weights travel to
  and from transformers' LlamaForCausalLM; projections are fused (qkv, gate and up) because at this size the number of
  kernel launches is the cost.
- STM is sliding-window attention (Beltagy et al., arXiv:2004.05150): a position sees the last `window` tokens, itself
  included, in training and in decoding alike.
- The cache is a ring of at most `window` keys per layer. It is an explicit value that goes in and comes out.
- With a cache, attention is plain matmul and softmax over a fixed number of keys, because
  `scaled_dot_product_attention` on CPU gives a row other bits in another batch (measured with torch 2.13).
- Knows no sampling, no tokenizer, no memory.

Axes: B rows, T new tokens, H query heads, G key/value heads, R = H / G, E = 2 G (keys, then values), D head size,
W cache slots, C width, V vocab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ulm.config import ModelConfig
from ulm.memory.ltm import LTM

IGNORE = -100
"""Label of a position from which nothing is learned."""

ROW_MULTIPLE = 4
"""Matrix products of a multiple of so many rows give a row the same bits whatever the number of rows.

Others change some rows in the last bit; measured on CPUs with AVX2 and AVX-512, torch 2.13, 1 to 16 threads. With
AVX-512 it holds because `ulm` asks MKL for reproducible products (MKL_CBWR). On AMD's (family 26) it does not hold
where a thread gets fewer than 24 columns: with one or two threads no preset has such products, with 8 the smallest do.
"""


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple that is not below a value."""
    return -(-value // multiple) * multiple


def padded(rows: Sequence[Any], value: int, multiple: int) -> Tensor:
    """Return rows of numbers as one int64 tensor, filled up on the right to a multiple of so many columns."""
    rows_BT = pad_sequence(
        [torch.as_tensor(row, dtype=torch.long) for row in rows], batch_first=True, padding_value=value
    )
    return F.pad(rows_BT, (0, -rows_BT.shape[1] % multiple), value=value)


@dataclass(slots=True)
class KVCache:
    """Ring caches of all layers.

    Attributes:
        kv_LBWED: per layer and slot the rotated keys of all heads, then their values.
        positions_BW: absolute position held in each slot, -1 where the slot is empty.
        lengths_B: tokens seen so far by each row.
        fresh: whether nothing was read yet.
    """

    kv_LBWED: Tensor
    positions_BW: Tensor
    lengths_B: Tensor
    fresh: bool = True

    @classmethod
    def empty(
        cls,
        config: ModelConfig,
        batch: int,
        slots: int | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> KVCache:
        """Return a cache that holds nothing.

        Args:
            config: shapes.
            batch: rows.
            slots: keys kept per layer; None takes the window. Fewer slots are exact for texts of at most that
                many tokens, and cheaper.
            device: where the tensors are.
            dtype: type of keys and values.
        """
        slots = min(config.window, slots or config.window)
        shape = (config.n_layer, batch, slots, 2 * config.n_kv_head, config.head_size)
        return cls(
            torch.zeros(shape, device=device, dtype=dtype),
            torch.full((batch, slots), -1, device=device, dtype=torch.long),
            torch.zeros(batch, device=device, dtype=torch.long),
        )

    @property
    def slots(self) -> int:
        """Number of keys each layer can hold."""
        return self.positions_BW.shape[1]

    def select(self, rows: Tensor) -> KVCache:
        """Return a copy that holds only the given rows."""
        return KVCache(
            self.kv_LBWED[:, rows],
            self.positions_BW[rows],
            self.lengths_B[rows],
            self.fresh,
        )

    @classmethod
    def join(cls, caches: Sequence[KVCache]) -> KVCache:
        """Return one cache that holds the rows of several, in order; all have equally many slots."""
        return cls(
            torch.cat([cache.kv_LBWED for cache in caches], dim=1),
            torch.cat([cache.positions_BW for cache in caches]),
            torch.cat([cache.lengths_B for cache in caches]),
            all(cache.fresh for cache in caches),
        )


def _rotate(x_BTHD: Tensor, cos_BT1D: Tensor, sin_BT1D: Tensor) -> Tensor:
    """Rotary position embedding (Su et al., arXiv:2104.09864), halves convention as in transformers' Llama."""
    half = x_BTHD.shape[-1] // 2
    turned = torch.cat((-x_BTHD[..., half:], x_BTHD[..., :half]), dim=-1)
    return x_BTHD * cos_BT1D + turned * sin_BT1D


@lru_cache(maxsize=64)
def _inverse_frequencies(head_size: int, theta: float, device: torch.device) -> Tensor:
    # Kept out of the module: a change of its type would round them, and bfloat16 moves them by up to .4 %.
    exponents = torch.arange(0, head_size, 2, dtype=torch.int64).float() / head_size
    return (1.0 / theta**exponents).to(device)


class Block(nn.Module):
    """One pre-norm transformer block with fused projections."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        heads = config.n_head + 2 * config.n_kv_head
        self.attn_norm = nn.Parameter(torch.ones(config.d_model))
        self.qkv = nn.Linear(config.d_model, heads * config.head_size, bias=False)
        self.out = nn.Linear(config.n_head * config.head_size, config.d_model, bias=False)
        self.mlp_norm = nn.Parameter(torch.ones(config.d_model))
        self.gate_up = nn.Linear(config.d_model, 2 * config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)

    def project(self, x_BTC: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries (B, T, H, D), rotated keys and values (B, T, G, D)."""
        c = self.config
        qkv = self.qkv(F.rms_norm(x_BTC, (c.d_model,), self.attn_norm, c.norm_eps))
        qkv = qkv.view(*x_BTC.shape[:2], c.n_head + 2 * c.n_kv_head, c.head_size)
        rotated = _rotate(qkv[:, :, : c.n_head + c.n_kv_head], cos, sin)
        return rotated[:, :, : c.n_head], rotated[:, :, c.n_head :], qkv[:, :, c.n_head + c.n_kv_head :]

    def finish(self, x_BTC: Tensor, heads_BTHD: Tensor) -> Tensor:
        """Add the attention output and the SwiGLU (Shazeer, arXiv:2002.05202) to the residual stream."""
        c = self.config
        x_BTC = x_BTC + self.out(heads_BTHD.reshape(*x_BTC.shape[:2], c.n_head * c.head_size))
        gate, up = self.gate_up(F.rms_norm(x_BTC, (c.d_model,), self.mlp_norm, c.norm_eps)).chunk(2, dim=-1)
        updated: Tensor = x_BTC + self.down(F.silu(gate) * up)
        return updated


class Decoder(nn.Module):
    """The µLM.

    Args:
        config: its shape.
        seed: seeds the initial weights (normal, std .02, residual outputs scaled by 1/sqrt(2 n_layer)).
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):  # torch's own initialisation would advance the global generator
            weight = torch.empty(config.vocab_size, config.d_model)
            self.embed = nn.Embedding(config.vocab_size, config.d_model, _weight=weight)
            self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
            self.norm = nn.Parameter(torch.ones(config.d_model))
            self.head = None if config.tie_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
            self.ltm = None if config.ltm is None else LTM(config.ltm, config.d_model, config.norm_eps)
        if weight.is_meta:  # weights come later; a random draw here would import 73 MB of torch._dynamo
            return
        generator = torch.Generator().manual_seed(seed)
        scale = (2 * config.n_layer) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                std = 0.02 * (scale if name.endswith(("out.weight", "down.weight")) else 1.0)
                nn.init.normal_(parameter, 0.0, std, generator=generator)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.embed.weight.dtype

    def fused_rows(self) -> dict[Tensor, tuple[int, ...]]:
        """Return the rows at which fused projections part into the matrices that they hold: q, k, v and gate, up."""
        c = self.config
        qkv = (c.n_head * c.head_size, (c.n_head + c.n_kv_head) * c.head_size)
        blocks = [cast("Block", block) for block in self.blocks]
        cuts: dict[Tensor, tuple[int, ...]] = {block.qkv.weight: qkv for block in blocks}
        cuts |= {block.gate_up.weight: (c.d_ff,) for block in blocks}
        return cuts

    def num_parameters(self) -> int:
        """Return the number of parameters, tied ones counted once."""
        return sum(p.numel() for p in self.parameters())

    def rope(self, positions_BT: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines of rotary embedding, each (B, T, 1, D), by default in the weights' type."""
        # float32 angles whatever the weights' type: bf16 cannot tell position 257 from 256.
        frequencies = _inverse_frequencies(self.config.head_size, self.config.rope_theta, positions_BT.device)
        angles = positions_BT[..., None].float() * frequencies
        angles = torch.cat((angles, angles), dim=-1)[:, :, None]
        dtype = dtype or self.dtype
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def logits(self, x_BTC: Tensor) -> Tensor:
        """Return (..., V) logits of the final hidden states."""
        x_BTC = F.rms_norm(x_BTC, (self.config.d_model,), self.norm, self.config.norm_eps)
        return F.linear(x_BTC, self.embed.weight if self.head is None else self.head.weight)

    def forward(self, ids_BT: Tensor, wanted_BT: Tensor | None = None) -> Tensor:
        """Return the logits of whole sequences, the training path.

        Args:
            ids_BT: token ids, int64; right padding is harmless because attention is causal.
            wanted_BT: positions whose logits are wanted, bool; None means all. In training most are prompt.

        Returns:
            (B, T, V) logits; position t has seen tokens max(0, t - window + 1) .. t. With `wanted_BT` (N, V), its N
            positions in row-major order.
        """
        x = self.hidden(ids_BT)
        return self.logits(x if wanted_BT is None else x[wanted_BT])

    def hidden(self, ids_BT: Tensor, layers: int | None = None) -> Tensor:
        """Return the residual stream (B, T, C) of whole sequences after the first blocks, None for all of them."""
        c = self.config
        self._refuse_memory()
        T = ids_BT.shape[1]
        positions = torch.arange(T, device=ids_BT.device)
        cos, sin = self.rope(positions[None])
        mask = None
        if c.window < T:
            distance = positions[:, None] - positions[None]
            mask = (distance >= 0) & (distance < c.window)
        x = self.embed(ids_BT)
        for block in islice(self.blocks, layers):
            q, k, v = block.project(x, cos, sin)  # type: ignore[operator]
            x = block.finish(x, attend_quickly(q, k, v, mask))  # type: ignore[operator]
        return cast("Tensor", x)

    def _refuse_memory(self) -> None:
        if self.ltm is not None:
            raise ValueError("a model with long-term memory reads through ulm.streaming; this way would leave it out")

    def extend(
        self, ids_BT: Tensor, cache: KVCache, counts_B: Tensor | None = None, *, last_only: bool = False
    ) -> tuple[Tensor, KVCache]:
        """Read T further tokens per row with a cache, the decoding path.

        Args:
            ids_BT: new token ids, int64; T must not exceed the cache's slots.
            cache: what was read before; updated in place and returned.
            counts_B: how many of the T tokens are real in each row (the rest is right padding); None means all.
            last_only: return the logits of each row's last real token alone, shape (B, 1, V).

        Returns:
            (B, T, V) logits, meaningless at padding, and the cache.

        Raises:
            ValueError: T exceeds the slots.
        """
        c = self.config
        self._refuse_memory()
        (B, T), W = ids_BT.shape, cache.slots
        if W < T:
            raise ValueError(f"a chunk of {T} tokens does not fit a cache of {W} slots; read it in smaller chunks")
        offsets = torch.arange(T, device=ids_BT.device)
        positions_BT = cache.lengths_B[:, None] + offsets
        cos, sin = self.rope(positions_BT)
        # Keys are the old slots, if any was read, and the new tokens; a query sees its window and nothing after it.
        seen = (offsets[None, :] <= offsets[:, None]) & (offsets[:, None] - offsets[None, :] < c.window)
        seen = seen.expand(B, T, T)
        if not cache.fresh:
            old = cache.positions_BW[:, None, :]
            seen = torch.cat(((old >= 0) & (old > positions_BT[:, :, None] - c.window), seen), dim=-1)
        bias_BTK = torch.zeros_like(seen, dtype=self.dtype).masked_fill_(~seen, float("-inf"))
        real_BT = None if counts_B is None else offsets < counts_B[:, None]
        slots_BT = positions_BT % W
        x = self.embed(ids_BT)
        for layer, block in enumerate(self.blocks):
            q, k, v = block.project(x, cos, sin)  # type: ignore[operator]
            ring = cache.kv_LBWED[layer]
            new = torch.cat((k, v), dim=2)
            keys, values = (new if cache.fresh else torch.cat((ring, new), dim=1)).chunk(2, dim=2)
            heads = attend(q, keys, values, bias_BTK)
            if last_only and layer == c.n_layer - 1:  # what nobody reads after the keys is not computed
                rows = torch.arange(round_up(B, ROW_MULTIPLE), device=x.device) % B
                last = T - 1 if counts_B is None else (counts_B - 1).clamp(min=0)[rows]
                x, heads = x[rows, last][:, None], heads[rows, last][:, None]
            x = block.finish(x, heads)  # type: ignore[operator]
            if cache.fresh:  # padding lands in slots that no position names
                ring[:, :T] = new
            else:
                _store(ring, new, slots_BT, real_BT)
        _store(cache.positions_BW, positions_BT, slots_BT, real_BT)
        cache.lengths_B += T if counts_B is None else counts_B
        cache.fresh = False
        return self.logits(x)[:B], cache


def attend(q_BTHD: Tensor, keys_BKGD: Tensor, values_BKGD: Tensor, bias_BTK: Tensor) -> Tensor:
    """Return the attention output (B, T, H, D) over K keys."""
    B, T, H, D = q_BTHD.shape
    K, G = keys_BKGD.shape[1], keys_BKGD.shape[2]
    R = H // G
    queries = (q_BTHD * D**-0.5).view(B, T, G, R, D).permute(0, 2, 3, 1, 4).reshape(B, G, R * T, D)
    scores = (queries @ keys_BKGD.permute(0, 2, 3, 1)).view(B, G, R, T, K) + bias_BTK[:, None, None]
    heads: Tensor = scores.softmax(dim=-1).view(B, G, R * T, K) @ values_BKGD.transpose(1, 2)
    return heads.view(B, G, R, T, D).permute(0, 3, 1, 2, 4).reshape(B, T, H, D)


def attend_quickly(q_BTHD: Tensor, keys_BKGD: Tensor, values_BKGD: Tensor, seen: Tensor | None) -> Tensor:
    """Return the same by torch's fused attention, whose bits depend on the batch.

    Args:
        q_BTHD: queries.
        keys_BKGD: of all that may be seen.
        values_BKGD: theirs.
        seen: (B, T, K) bias, or (T, K) mask; None means that each of K = T tokens sees itself and those before.
    """
    heads = F.scaled_dot_product_attention(
        q_BTHD.transpose(1, 2),
        keys_BKGD.transpose(1, 2),
        values_BKGD.transpose(1, 2),
        attn_mask=seen if seen is None or seen.dim() == 2 else seen[:, None].to(q_BTHD.dtype),
        is_causal=seen is None,
        enable_gqa=q_BTHD.shape[2] != keys_BKGD.shape[2],
    )
    return heads.transpose(1, 2)


def _store(ring: Tensor, new: Tensor, slots_BT: Tensor, real_BT: Tensor | None) -> None:
    """Write what is new (B, T, ...) into its slots of a ring (B, W, ...), in place; slots of padding are left."""
    ones = (1,) * (new.dim() - 2)
    index = slots_BT.view(*slots_BT.shape, *ones).expand_as(new)
    if real_BT is not None:
        new = torch.where(real_BT.view(*real_BT.shape, *ones), new, ring.gather(1, index))
    ring.scatter_(1, index, new)
