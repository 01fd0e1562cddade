"""The parts of a layer that see every row on its own: products with its matrices, norms, rotations, SwiGLU.

Matrices are multiplied as they are, or from packed copies; everything else is written into buffers that are there.
Axes as in `ulm.decode.stepper`; M rows, K inputs and N outputs of a product.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ulm.decode.deltas import Deltas
from ulm.model import Block, Decoder


class Plain:
    """Products with the transpose of a matrix of weights.

    Args:
        weight_NK: output and input features.
        name: of the matrix, by which a delta knows it.
    """

    def __init__(self, weight_NK: Tensor, name: str = "") -> None:
        self.name = name
        self._weight_KN = weight_NK.t()

    def into(self, x_MK: Tensor, out_MN: Tensor) -> Tensor:
        """Write the product to `out_MN` and return it."""
        return torch.mm(x_MK, self._weight_KN, out=out_MN)

    of = into
    """The product in the type in which it was computed; others than this class may take memory of their own."""

    def onto(self, total_MN: Tensor, x_MK: Tensor) -> Tensor:
        """Add the product to `total_MN`, in place, and return it."""
        return total_MN.addmm_(x_MK, self._weight_KN)


class Packed:
    """As `Plain`, from a copy of the weights in the order in which oneDNN reads them.

    From two rows on, a float32 row does not depend on how many there are (tests/unit/test_stepper.py). With weights in
    bfloat16 only products and the SwiGLU are in half precision; norms, attention and totals stay in float32.
    """

    def __init__(self, weight_NK: Tensor, name: str = "") -> None:
        self.name = name
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_NK.detach().contiguous())
        self._dtype = weight_NK.dtype

    def of(self, x_MK: Tensor, buffer_MN: Tensor | None = None) -> Tensor:
        """Return the product in the type in which it was computed, in memory of its own."""
        x_MK = x_MK.to(self._dtype)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x_MK, self._packed, None, "none", [], "")
        return found

    def into(self, x_MK: Tensor, out_MN: Tensor) -> Tensor:
        """Write the product to `out_MN` and return it."""
        return out_MN.copy_(self.of(x_MK))

    def onto(self, total_MN: Tensor, x_MK: Tensor) -> Tensor:
        """Add the product to `total_MN`, in place, and return it."""
        return total_MN.add_(self.of(x_MK))


class Layer:
    """One block's weights, as the loop uses them.

    Args:
        block: whose.
        number: its place in the model.
        product: how its matrices are multiplied.
    """

    def __init__(self, block: Block, number: int, product: type[Plain | Packed]) -> None:
        self.attn_norm, self.mlp_norm = block.attn_norm, block.mlp_norm
        names = ("qkv", "out", "gate_up", "down")
        self.qkv, self.out, self.gate_up, self.down = (
            product(getattr(block, name).weight, f"blocks.{number}.{name}.weight") for name in names
        )


class Rows:
    """The parts of a layer that see every row on its own, with their buffers.

    Args:
        model: the µLM.
        head: its output matrix.
        dtype: of what comes out.
        rows: how many rows every call has.
        deltas: what some of them add to the products.
    """

    def __init__(
        self, model: Decoder, head: Plain | Packed, dtype: torch.dtype, rows: int, deltas: Deltas | None = None
    ) -> None:
        def buffer(*shape: int) -> Tensor:
            return torch.empty(shape, device=model.device, dtype=dtype)

        c = model.config

        N, Z, D, half = rows, c.n_head + 2 * c.n_kv_head, c.head_size, c.head_size // 2
        rotated = c.n_head + c.n_kv_head
        self.model, self.head, self.deltas = model, head, deltas
        self._mean_C1 = torch.full((c.d_model, 1), 1.0 / c.d_model, device=model.device, dtype=dtype)
        self._eps_N1 = torch.full((N, 1), c.norm_eps, device=model.device, dtype=dtype)
        self._scale_N1 = buffer(N, 1)
        self._normed_NC = buffer(N, c.d_model)
        self._qkv_NX = buffer(N, Z * D)
        self._rotated_NX = buffer(N, Z * D)
        self.heads_NZD = self._rotated_NX.view(N, Z, D)
        self.kv_NX = self._rotated_NX[:, c.n_head * D :]
        halves = self._qkv_NX.view(N, Z, 2, half)[:, :rotated]
        self._left, self._right = halves[:, :, 0], halves[:, :, 1]
        halves = self._rotated_NX.view(N, Z, 2, half)[:, :rotated]
        self._rotated_left, self._rotated_right = halves[:, :, 0], halves[:, :, 1]
        self._cos_NX, self._sin_NX = buffer(N, Z * D), buffer(N, rotated * half)
        self._sin = self._sin_NX.view(N, rotated, half)
        self._gate_up_NX = buffer(N, 2 * c.d_ff)
        self._gate_NF, self._up_NF = self._gate_up_NX.chunk(2, -1)
        self._hidden_NF = buffer(N, c.d_ff)
        self._logits_NV = buffer(N, 0)

    def _norm(self, x_NC: Tensor, weight_C: Tensor) -> Tensor:
        if x_NC.dtype != torch.float32:  # squares need float32: half precision overflows
            return F.rms_norm(x_NC, weight_C.shape, weight_C, self.model.config.norm_eps)
        # The mean of squares as a matrix product takes half the time of F.rms_norm on CPU at these sizes.
        torch.mul(x_NC, x_NC, out=self._normed_NC)
        torch.addmm(self._eps_N1, self._normed_NC, self._mean_C1, out=self._scale_N1).rsqrt_()
        return torch.mul(x_NC, self._scale_N1, out=self._normed_NC).mul_(weight_C)

    def rotations(self, position_N: Tensor, tables: tuple[Tensor, Tensor]) -> None:
        """Look up what rotates the heads of each row."""
        cos_PX, sin_PX = tables
        torch.index_select(cos_PX, 0, position_N, out=self._cos_NX)
        torch.index_select(sin_PX, 0, position_N, out=self._sin_NX)

    def project(self, x_NC: Tensor, layer: Layer) -> Tensor:
        """Return rotated and scaled queries, rotated keys, and values, (N, Z, D); valid until the next call."""
        normed_NC = self._norm(x_NC, layer.attn_norm)
        layer.qkv.into(normed_NC, self._qkv_NX)
        if self.deltas is not None:
            self.deltas.add(layer.qkv.name, normed_NC, self._qkv_NX)
        torch.mul(self._qkv_NX, self._cos_NX, out=self._rotated_NX)
        self._rotated_left.addcmul_(self._right, self._sin, value=-1)
        self._rotated_right.addcmul_(self._left, self._sin)
        return self.heads_NZD

    def finish(self, x_NC: Tensor, heads_NX: Tensor, layer: Layer) -> Tensor:
        """Add the attention output and the SwiGLU to the residual stream, in place, and return it."""
        deltas = self.deltas
        layer.out.onto(x_NC, heads_NX)
        if deltas is not None:
            deltas.add(layer.out.name, heads_NX, x_NC)
        normed_NC = self._norm(x_NC, layer.mlp_norm)
        gate_up_NX = layer.gate_up.of(normed_NC, self._gate_up_NX)
        if deltas is not None:
            deltas.add(layer.gate_up.name, normed_NC, gate_up_NX)
        if gate_up_NX is self._gate_up_NX:
            hidden_NF = torch.ops.aten.silu.out(self._gate_NF, out=self._hidden_NF).mul_(self._up_NF)
        else:
            gate_NF, up_NF = gate_up_NX.chunk(2, -1)
            hidden_NF = F.silu(gate_NF).mul_(up_NF)
        layer.down.onto(x_NC, hidden_NF)
        if deltas is not None:
            deltas.add(layer.down.name, hidden_NF, x_NC)
        return x_NC

    def logits(self, x_NC: Tensor) -> Tensor:
        """Return (N, V) logits; valid until the next call."""
        if not self._logits_NV.shape[1]:
            self._logits_NV = x_NC.new_empty(x_NC.shape[0], self.model.config.vocab_size)
        normed_NC = self._norm(x_NC, self.model.norm)
        self.head.into(normed_NC, self._logits_NV)
        if self.deltas is not None and self.model.head is None:
            self.deltas.logits(normed_NC, self._logits_NV)
        return self._logits_NV
