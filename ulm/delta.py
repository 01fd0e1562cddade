"""A delta: what one agent has learned, beside weights that it shares with others.

- Low rank on every linear layer (LoRA, Hu et al., arXiv:2106.09685, without its scale alpha: the learning rate says how
  far a step goes): y = W x + B (A x). B starts at 0, so a new delta changes no bit.
- Rows are added to the embedding of chosen tokens, in and (where it is tied) out: a new goal may need one word.
- A delta is a value: it is made by training (`ulm.train.delta`), read by the decoder, and hashed; nobody writes in it.

Axes: K inputs and N outputs of a layer, R rank, C width of the model, E chosen tokens.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ulm.model import Decoder

_IDS, _ROWS, _BASE = "embed.ids", "embed.rows", "ulm-delta-of"


class DeltaError(ValueError):
    """A delta that cannot be read, or belongs to another model; the message says why."""


@dataclass(frozen=True, eq=False)
class Delta:
    """Factors of linear layers and rows of the embedding, float32 on the CPU.

    Attributes:
        factors: name of a weight, such as `blocks.0.qkv.weight`, -> A (R, K) and B (N, R).
        ids_E: tokens whose embedding changes, ascending, int64.
        rows_EC: what is added to their rows.
        base: sha256 of the weights that it stands beside.
    """

    factors: Mapping[str, tuple[Tensor, Tensor]]
    ids_E: Tensor
    rows_EC: Tensor
    base: str = ""
    _data: bytes = field(default=b"", repr=False)

    @classmethod
    def new(
        cls, model: Decoder, rank: int, seed: int, ids: Sequence[int] = (), base: str = "", layers: int | None = None
    ) -> "Delta":
        """Return a delta that changes nothing yet.

        Args:
            model: the base.
            rank: R of every layer.
            seed: of A; normal, variance 1 / K.
            ids: tokens whose rows may change.
            base: sha256 of the base's weights.
            layers: how many of the last blocks change; None for all. Training then goes no further back.
        """
        first = 0 if layers is None else max(0, model.config.n_layer - layers)
        generator = torch.Generator().manual_seed(seed)
        factors = {}
        for name, (N, K) in linear_shapes(model, first).items():
            a_RK = torch.randn(rank, K, generator=generator) / math.sqrt(K)
            factors[name] = (a_RK, torch.zeros(N, rank))
        chosen = torch.tensor(sorted(set(ids)), dtype=torch.int64)
        return cls(factors, chosen, torch.zeros(len(chosen), model.config.d_model), base)

    @property
    def rank(self) -> int:
        """R, 0 for a delta of rows alone."""
        return max((a_RK.shape[0] for a_RK, _ in self.factors.values()), default=0)

    @cached_property
    def changes_nothing(self) -> bool:
        """Whether every product of factors and every row is 0, as in a new delta."""
        return not any(b_NR.any() for _, b_NR in self.factors.values()) and not self.rows_EC.any()

    def to_bytes(self) -> bytes:
        """Return it as safetensors; equal deltas give equal bytes."""
        return self._data or self._saved

    @cached_property
    def _saved(self) -> bytes:
        tensors = {_IDS: self.ids_E, _ROWS: self.rows_EC}
        for name, (a_RK, b_NR) in self.factors.items():
            tensors |= {f"{name}.a": a_RK, f"{name}.b": b_NR}
        ready = {name: tensors[name].detach().to("cpu").contiguous() for name in sorted(tensors)}
        return save(ready, {_BASE: self.base})  # one entry: safetensors writes several in any order

    @cached_property
    def sha256(self) -> str:
        """Hex digest of `to_bytes`: its name."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Delta":
        """Rebuild what `to_bytes` gave.

        Raises:
            DeltaError: the bytes are damaged, or no delta.
        """
        try:
            tensors = load(data)
            base = _base_of(data)
        except (SafetensorError, ValueError, KeyError, UnicodeDecodeError) as error:
            raise DeltaError(f"damaged delta: {error}") from error
        try:
            ids_E, rows_EC = tensors.pop(_IDS), tensors.pop(_ROWS)
            names = sorted({name[:-2] for name in tensors})
            factors = {name: (tensors[f"{name}.a"], tensors[f"{name}.b"]) for name in names}
        except KeyError as error:
            raise DeltaError(f"no delta: {error} is missing") from error
        return cls(factors, ids_E, rows_EC, base, data)

    def refuse_other(self, model: Decoder, base: str | None = None) -> None:
        """Refuse a model that it was not made for.

        Args:
            model: the base.
            base: sha256 of its weights; None does not compare them.

        Raises:
            DeltaError: another shape, or other weights.
        """
        shapes = linear_shapes(model)
        for name, (a_RK, b_NR) in self.factors.items():
            if shapes.get(name) != (b_NR.shape[0], a_RK.shape[1]):
                raise DeltaError(f"this delta belongs to a model of another shape: {name}")
        if self.rows_EC.shape[1:] != (model.config.d_model,) or (
            len(self.ids_E) and int(self.ids_E.max()) >= model.config.vocab_size
        ):
            raise DeltaError("this delta belongs to a model of another width or vocabulary")
        if base is not None and self.base and base != self.base:
            raise DeltaError(f"this delta was learned beside other weights ({self.base[:12]}, here {base[:12]})")

    def with_rows(self, ids: Sequence[int]) -> "Delta":
        """Return the same delta in which the rows of these tokens, too, may change; new ones are 0."""
        there = {int(token): row for token, row in zip(self.ids_E, self.rows_EC, strict=True)}
        chosen = sorted({*there, *ids})
        zero_C = torch.zeros(self.rows_EC.shape[1])
        rows = [there.get(token, zero_C) for token in chosen]
        ids_E = torch.tensor(chosen, dtype=torch.int64)
        return Delta(self.factors, ids_E, torch.stack(rows) if rows else self.rows_EC, self.base)

    def added(self) -> dict[str, Tensor]:
        """Return what is added to each weight, (N, K), the embedding's rows left out."""
        return {name: b_NR @ a_RK for name, (a_RK, b_NR) in self.factors.items()}

    def merged(self, model: Decoder) -> dict[str, Tensor]:
        """Return the state of a model with this delta put into its weights (`Decoder.load_state_dict` takes it)."""
        state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        for name, added_NK in self.added().items():
            state[name] += added_NK.to(state[name])
        if len(self.ids_E):
            state["embed.weight"].index_add_(0, self.ids_E, self.rows_EC.to(state["embed.weight"]))
        return state

    def applied(self, model: Decoder) -> Decoder:
        """Return a model of its own with this delta in its weights.

        Raises:
            DeltaError: it belongs to another model.
        """
        self.refuse_other(model)
        with torch.device("meta"):
            other = Decoder(model.config)
        other.load_state_dict(self.merged(model), assign=True)
        return other.requires_grad_(False).eval()

    def norm(self) -> float:
        """Return the Frobenius norm of all that is added."""
        parts = [added.double().square().sum() for added in self.added().values()]
        return math.sqrt(float(sum(parts, self.rows_EC.double().square().sum())))


def linear_shapes(model: Decoder, first: int = 0) -> dict[str, tuple[int, int]]:
    """Return name of its weight -> (outputs, inputs) of every linear layer of the blocks from the first one on."""
    return {
        f"blocks.{name}.weight": (layer.out_features, layer.in_features)
        for name, layer in model.blocks.named_modules()
        if isinstance(layer, nn.Linear) and int(name.partition(".")[0]) >= first
    }


def _base_of(data: bytes) -> str:
    """Return what the head of a safetensors file says of the base."""
    import json

    length = int.from_bytes(data[:8], "little")
    found = json.loads(data[8 : 8 + length])["__metadata__"]
    if _BASE not in found:
        raise ValueError("the file holds other tensors")
    return str(found[_BASE])
