"""What the long-term memories of several texts hold, what a segment offers to them, and what it changes.

- A state is an explicit value: in, out, save, restore. Its tensors have the rows of a batch first, and a row's memory
  depends on that row alone.
- Knows no rules: what is read, written and kept is decided in `ulm.memory.ltm`.

Axes as in `ulm.memory.ltm`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ulm.config import LTMConfig

SHOWN_TOKENS = 8
"""Tokens kept with an item, the written one last, for people who look into a memory."""


class RowState:
    """Base of frozen dataclasses of tensors whose first axis is the rows of a batch."""

    __slots__ = ()

    def tensors(self) -> dict[str, Tensor]:
        """Return everything by name, for safetensors and for gathering from workers."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Self:
        """Rebuild what `tensors` gave."""
        return cls(**tensors)

    def detach(self) -> Self:
        """Return the same values without their gradient history."""
        return self.from_tensors({name: tensor.detach() for name, tensor in self.tensors().items()})

    def select(self, rows: Tensor | slice) -> Self:
        """Return the given rows alone: a copy, or views of a slice."""
        return self.from_tensors({name: tensor[rows] for name, tensor in self.tensors().items()})

    def replaced(self, rows_R: Tensor, other: Self, chosen_R: Tensor) -> Self:
        """Return a copy whose given rows are the chosen ones of another state."""
        theirs = other.tensors()
        return self.from_tensors(
            {name: own.index_put((rows_R,), theirs[name][chosen_R]) for name, own in self.tensors().items()}
        )


@dataclass(frozen=True, slots=True)
class LTMState(RowState):
    """What the memories of B rows hold, each item in a place of its own.

    Attributes:
        keys_BMX, values_BMX: of all layers that read; keys have length 1 per layer and head.
        surprisal_BM: bits, of the written token.
        position_BM: index of the written token in all that the memory has seen; -1 where there is no item.
        used_BM: when the item was last read: the end of that segment; its own position before the first time.
        reads_BM: how many (position, layer) pairs read it so far.
        tokens_BMN: ids of the written token and of those before it; -1 before the start.
        members_BM: items that a slot stands for; 0 where there is an item as it was written.
        beta_BMG: logarithm of the mass of a slot, per layer and head; 0 for an item.
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
    members_BM: Tensor
    beta_BMG: Tensor
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
        B, M, X = batch, config.places, len(config.layers) * config.width

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
            members_BM=whole(0, B, M),
            beta_BMG=torch.zeros(B, M, len(config.layers) * config.n_head, device=device),
            recent_BS=torch.full((B, config.segment), math.nan, device=device),
            clock_B=whole(0, B),
        )

    def cleared(self, rows_B: Tensor) -> LTMState:
        """Return a state in which the rows marked True hold nothing."""
        keep_B1 = ~rows_B[:, None]
        return replace(
            self,
            position_BM=torch.where(keep_B1, self.position_BM, -1),
            recent_BS=torch.where(keep_B1, self.recent_BS, math.nan),
            clock_B=self.clock_B * ~rows_B,
        )

    @classmethod
    def join(cls, states: Sequence[LTMState]) -> LTMState:
        """Return one state that holds the rows of several, in order."""
        parts = [state.tensors() for state in states]
        return cls(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    def to_bytes(self) -> bytes:
        """Return the memory of one row as safetensors, without the places after its last item.

        Of slots, keys and values take eight bits a number and counts 32 (see `rounded`); a memory without slots has no
        columns of theirs.

        Raises:
            ValueError: there is more than one row.
        """
        if self.clock_B.shape[0] != 1:
            raise ValueError(f"one memory at a time is written, got {self.clock_B.shape[0]}")
        end = 1 + max((self.position_BM[0] >= 0).nonzero().flatten().tolist(), default=-1)
        tensors = {name: tensor[:, :end] if "_BM" in name else tensor for name, tensor in self.tensors().items()}
        slot_M, heads = tensors["members_BM"][0] > 0, tensors["beta_BMG"].shape[-1]
        if not slot_M.any():
            del tensors["members_BM"], tensors["beta_BMG"]
            return bytes(save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}))
        tensors = {name: x.int() if "_BM" in name and x.dtype == torch.long else x for name, x in tensors.items()}
        for name in _WIDE:
            whole = tensors.pop(name)[0]
            tensors[f"item.{name}"] = whole[~slot_M]
            tensors[f"slot.{name}"], tensors[f"exponent.{name}"] = _to_eight_bits(whole[slot_M], heads)
        return bytes(save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}))

    @classmethod
    def from_bytes(cls, data: bytes, config: LTMConfig, device: torch.device | str = "cpu") -> LTMState:
        """Rebuild what `to_bytes` gave.

        Raises:
            ValueError: it is no memory, or that of another configuration.
        """
        try:
            found = _unpacked(load(data))
            items = found["position_BM"].numel()
            state = cls.empty(config, 1, device=device, dtype=found["keys_BMX"].dtype)
            for name, blank in state.tensors().items():
                if name not in found and name in _OF_SLOTS:
                    continue
                place = blank[:, :items] if "_BM" in name else blank
                if (found[name].shape, found[name].dtype) != (place.shape, place.dtype):
                    raise ValueError(f"{name} is {found[name].dtype} of shape {list(found[name].shape)}")
                place.copy_(found[name])
            if unknown := sorted(set(found) - set(state.tensors())):
                raise ValueError(f"unknown: {', '.join(unknown)}")
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"this is no memory of the model's configuration ({error})") from error
        return state


_WIDE = ("keys_BMX", "values_BMX")
_OF_SLOTS = ("members_BM", "beta_BMG")


def rounded(x_MX: Tensor, heads: int) -> Tensor:
    """Return numbers as slots keep them: eight bits each, times a power of two per row and head, so that it is exact.

    Args:
        x_MX: keys or values.
        heads: layers x heads, which X is divided by.
    """
    number_MX, exponent_MG = _to_eight_bits(x_MX, heads)
    return _from_eight_bits(number_MX, exponent_MG).to(x_MX.dtype)


def _to_eight_bits(x_MX: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Return whole numbers from -127 to 127 and the exponents of two that they are multiplied by, int8."""
    x_MGD = by_head(x_MX.detach().double(), heads)
    largest_MG1 = x_MGD.abs().amax(-1, keepdim=True).clamp(min=2.0**-100)
    exponent_MG1 = (largest_MG1 / 127).log2().ceil()
    number_MGD = (x_MGD / exponent_MG1.exp2()).round()
    return number_MGD.flatten(1).to(torch.int8), exponent_MG1[..., 0].to(torch.int8)


def _from_eight_bits(number_MX: Tensor, exponent_MG: Tensor) -> Tensor:
    """Return the numbers, float64."""
    number_MGD = by_head(number_MX.double(), exponent_MG.shape[-1])
    whole_MGD: Tensor = number_MGD * exponent_MG[..., None].double().exp2()
    return whole_MGD.flatten(1)


def by_head(x_MX: Tensor, heads: int) -> Tensor:
    """Return keys or values with an axis of layers x heads, (M, G, D)."""
    return x_MX.view(*x_MX.shape[:-1], heads, x_MX.shape[-1] // heads)


def _unpacked(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a file of `LTMState.to_bytes` holds, one tensor for the numbers of items and slots."""
    if "members_BM" not in found:
        return found
    slot_M = found["members_BM"][0] > 0
    for name in _WIDE:
        items, slots = found.pop(f"item.{name}"), found.pop(f"slot.{name}")
        whole = items.new_empty(len(slot_M), items.shape[-1])
        whole[~slot_M] = items
        whole[slot_M] = _from_eight_bits(slots, found.pop(f"exponent.{name}")).to(whole.dtype)
        found[name] = whole[None]
    return {name: x.long() if x.dtype == torch.int32 else x for name, x in found.items()}


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
