"""One further token for every row: the inner loop of decoding.

- The same arithmetic as `Decoder.extend` with one token, arranged for few and small kernels: at this size a decoding
  step is some two hundred calls of a few microseconds, so every call that can be saved, folded into a matrix product
  or made once before the loop is.
- Rows may stand at different positions; what a row gets depends on that row alone, as long as rows are padded to a
  multiple of four (see `ulm.generation`).
- Shares the model's weights (no copies: hosts map them read-only) and writes the cache in place.

Axes as in `ulm.model`; S = B x G, one attention problem per row and key/value head; P positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ulm.model import Block, Decoder, KVCache

__all__ = ["Stepper"]


@dataclass(frozen=True, slots=True)
class _Layer:
    """Views of one block's weights (transposed) and ring, so that the loop makes none."""

    attn_norm: Tensor
    qkv: Tensor
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    key_slots: Tensor
    value_slots: Tensor
    keys_SDW: Tensor
    values_SWD: Tensor

    @classmethod
    def of(cls, block: Block, keys_SWD: Tensor, values_SWD: Tensor) -> _Layer:
        width = keys_SWD.shape[-1]
        return cls(
            attn_norm=block.attn_norm,
            qkv=block.qkv.weight.t(),
            out=block.out.weight.t(),
            mlp_norm=block.mlp_norm,
            gate_up=block.gate_up.weight.t(),
            down=block.down.weight.t(),
            key_slots=keys_SWD.view(-1, width),
            value_slots=values_SWD.view(-1, width),
            keys_SDW=keys_SWD.transpose(1, 2),
            values_SWD=values_SWD,
        )


class Stepper:
    """Reads one token per row and call.

    Args:
        model: the µLM.
        cache: what the rows have read so far; written in place.
        steps: at most so many calls will follow.
    """

    def __init__(self, model: Decoder, cache: KVCache, steps: int) -> None:
        c, device = model.config, model.device
        self.model = model
        self.cache = cache
        cache.fresh = False
        B, W = cache.positions_BW.shape
        S, half = B * c.n_kv_head, c.head_size // 2
        cos_1P1D, sin_1P1D = model.rope(torch.arange(int(cache.lengths_B.max()) + steps, device=device)[None])
        self._cos_PD = cos_1P1D[0, :, 0]
        self._sin_PD = torch.cat((-sin_1P1D[0, :, 0, :half], sin_1P1D[0, :, 0, half:]), dim=-1)
        self._first_slot_S = torch.arange(S, device=device) * W
        bias_BW = torch.zeros(B, W, device=device, dtype=model.dtype)
        bias_BW.masked_fill_(cache.positions_BW < 0, float("-inf"))
        self._bias_S1W = bias_BW.repeat_interleave(c.n_kv_head, dim=0)[:, None]
        self._layers = [
            _Layer.of(cast("Block", block), keys.view(S, W, c.head_size), values.view(S, W, c.head_size))
            for block, keys, values in zip(model.blocks, cache.keys_LBGWD, cache.values_LBGWD, strict=True)
        ]
        self._head_CV = (model.embed if model.head is None else model.head).weight.t()
        self._mean_C1 = torch.full((c.d_model, 1), 1.0 / c.d_model, device=device, dtype=model.dtype)
        self._eps_B1 = torch.full((B, 1), c.norm_eps, device=device, dtype=model.dtype)

    def _norm(self, x_BC: Tensor, weight_C: Tensor) -> Tensor:
        if x_BC.dtype != torch.float32:  # squares need float32: half precision overflows
            return F.rms_norm(x_BC, weight_C.shape, weight_C, self.model.config.norm_eps)
        # The mean of squares as a matrix product takes half the time of F.rms_norm on CPU at these sizes.
        scale_B1 = torch.addmm(self._eps_B1, x_BC * x_BC, self._mean_C1).rsqrt_()
        return (x_BC * scale_B1).mul_(weight_C)

    def __call__(self, ids_B: Tensor) -> Tensor:
        """Read one token per row and return the (B, V) logits after it."""
        c, cache = self.model.config, self.cache
        B, H, G, D = ids_B.shape[0], c.n_head, c.n_kv_head, c.head_size
        S, R, scale = B * G, H // G, D**-0.5
        position_B = cache.lengths_B
        slot_B = position_B % cache.slots
        slot_S = self._first_slot_S + slot_B.repeat_interleave(G)
        cos_B1D, sin_B1D = self._cos_PD[position_B][:, None], self._sin_PD[position_B][:, None]
        self._bias_S1W.view(-1).index_fill_(0, slot_S, 0.0)
        x_BC = F.embedding(ids_B, self.model.embed.weight)
        for layer in self._layers:
            qkv = torch.mm(self._norm(x_BC, layer.attn_norm), layer.qkv).view(B, H + 2 * G, D)
            qk = qkv[:, : H + G]
            qk = torch.addcmul(qk * cos_B1D, qk.roll(D // 2, -1), sin_B1D)
            layer.key_slots.index_copy_(0, slot_S, qk[:, H:].reshape(S, D))
            layer.value_slots.index_copy_(0, slot_S, qkv[:, H + G :].reshape(S, D))
            queries_SRD = qk[:, :H].reshape(S, R, D)
            scores_SRW = torch.baddbmm(self._bias_S1W, queries_SRD, layer.keys_SDW, alpha=scale)
            heads = torch.bmm(scores_SRW.softmax(-1), layer.values_SWD).view(B, H * D)
            x_BC = torch.addmm(x_BC, heads, layer.out)
            gate, up = torch.mm(self._norm(x_BC, layer.mlp_norm), layer.gate_up).chunk(2, -1)
            x_BC = torch.addmm(x_BC, F.silu(gate).mul_(up), layer.down)
        cache.positions_BW.scatter_(1, slot_B[:, None], position_B[:, None])
        cache.lengths_B += 1
        return torch.mm(self._norm(x_BC, self.model.norm), self._head_CV)
