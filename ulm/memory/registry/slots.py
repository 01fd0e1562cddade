"""Learned rows that belong to entities: one each, zero until it is trained.

- The table grows at a barrier, never while a model computes: `want` notes who needs a row (give it to a registry as
  `on_new_entity`), and `grow` gives it between two steps. Until then, and for whomever nobody noted, a row of zeros is
  read. So growth changes no bit of what is computed, and the rows of others take no part in it.
- A larger table is a new parameter: it takes the old one's place in the optimizer, with its state.
- Saved are rows, whose they are, and the optimizer's state, in one safetensors file that is whole or not there.
- With `sparse`, a step touches the rows that were read alone (`ulm.engram.optimizer.EngramAdam`); momentum of AdamW
  moves the others, too.
- An entity goes by one number, a registry's `representative`.

Axes: S rows of the table, D numbers of a row, E numbers of entities.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ulm.files import write_whole

WEIGHT, OWNERS, STATE, EXTRA = "weight", "owners", "state.", "extra."


class EntitySlots(nn.Module):
    """A table of learned rows.

    Args:
        width: numbers of a row.
        sparse: whether gradients are sparse, for optimizers that can take them.

    Attributes:
        weight: the rows, (S, D); row 0 is nobody's and stays zero.
    """

    weight: nn.Parameter
    owner_S: Tensor
    row_E: Tensor

    def __init__(self, width: int, *, sparse: bool = False) -> None:
        super().__init__()
        self.sparse = sparse
        self.weight = nn.Parameter(torch.zeros(1, width))
        self.register_buffer("owner_S", torch.zeros(1, dtype=torch.long), persistent=False)
        self.register_buffer("row_E", torch.zeros(1, dtype=torch.long), persistent=False)
        self._wanted: dict[int, None] = {}

    @property
    def num_slots(self) -> int:
        """Entities that have a row."""
        return int((self.owner_S > 0).sum())

    def want(self, entity: int) -> None:
        """Note that an entity needs a row; it gets one when the table grows.

        Raises:
            ValueError: it is no number of an entity.
        """
        if entity < 1:
            raise ValueError(f"numbers of entities begin with 1, got {entity}")
        self._wanted[entity] = None

    def forward(self, entities: Tensor) -> Tensor:
        """Return the rows of entities, (..., D): zeros where one has none.

        Args:
            entities: numbers of any shape, int64; 0 is nobody.
        """
        known = (entities > 0) & (entities < len(self.row_E))
        rows = torch.where(known, self.row_E[entities * known], 0)
        return F.embedding(rows, self.weight, padding_idx=0, sparse=self.sparse)

    @torch.no_grad()
    def grow(self, optimizer: torch.optim.Optimizer | None = None) -> int:
        """Give a row of zeros to everybody who needs one and return how many those are; only between two steps.

        Args:
            optimizer: what trains the rows. It keeps its state; gradients that it did not use yet are gone.

        Raises:
            ValueError: it trains others; nothing has changed.
        """
        fresh = [entity for entity in self._wanted if not self._has(entity)]
        free = (self.owner_S[1:] == 0).nonzero()[:, 0] + 1
        if len(free) < len(fresh):
            wanted = len(self.weight) + len(fresh) - len(free)
            larger = self.weight.new_zeros(1 << (wanted - 1).bit_length(), self.weight.shape[1])
            larger[: len(self.weight)] = self.weight
            self._replace(larger, optimizer)
            self._own(F.pad(self.owner_S, (0, len(larger) - len(self.owner_S))))
            free = (self.owner_S[1:] == 0).nonzero()[:, 0] + 1
        owner_S = self.owner_S.clone()
        owner_S[free[: len(fresh)]] = torch.tensor(fresh, dtype=torch.long, device=owner_S.device)
        self._own(owner_S)
        self._wanted = {}
        return len(fresh)

    @torch.no_grad()
    def drop(self, entities: Iterable[int], optimizer: torch.optim.Optimizer | None = None) -> int:
        """Take the rows of entities back, such as of those whom a registry has forgotten; return how many had one.

        Nothing is left of what was learned: row and state are zeros, and others may get them.
        """
        rows = self.row_E[[entity for entity in dict.fromkeys(entities) if self._has(entity)]]
        state = optimizer.state.get(self.weight, {}) if optimizer is not None else {}
        for table in (self.weight, self.owner_S, *(value for value in state.values() if self._is_per_row(value))):
            table[rows] = 0
        self._own(self.owner_S)
        return len(rows)

    def _has(self, entity: int) -> bool:
        return 0 < entity < len(self.row_E) and bool(self.row_E[entity])

    def _is_per_row(self, value: object) -> bool:
        return isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(self.weight)

    def _own(self, owner_S: Tensor) -> None:
        """Note whose rows are whose."""
        self.owner_S = owner_S
        self.row_E = owner_S.new_zeros(int(owner_S.max()) + 1)
        rows = owner_S.nonzero()[:, 0]
        self.row_E[owner_S[rows]] = rows

    def _replace(self, weight_SD: Tensor, optimizer: torch.optim.Optimizer | None) -> None:
        """Take another table, also in the optimizer, whose state gets zeros for new rows."""
        old, new = self.weight, nn.Parameter(weight_SD, requires_grad=self.weight.requires_grad)
        if optimizer is not None:
            groups = [group for group in optimizer.param_groups if any(one is old for one in group["params"])]
            if not groups:
                raise ValueError("this optimizer does not train these rows; pass the one that does")
            for group in groups:
                group["params"] = [new if one is old else one for one in group["params"]]
            state: dict[str, Any] = optimizer.state.pop(old, {})
            for name, value in state.items():
                if self._is_per_row(value):
                    state[name] = value.new_zeros(len(new), *value.shape[1:])
                    state[name][: len(value)] = value
            if state:
                optimizer.state[new] = state
        self.weight = new

    def save(
        self, path: Path, optimizer: torch.optim.Optimizer | None = None, extra: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write rows, owners, the optimizer's state of them and further tensors; equal ones give equal bytes."""
        state = optimizer.state.get(self.weight, {}) if optimizer is not None else {}
        tensors = {WEIGHT: self.weight.detach(), OWNERS: self.owner_S}
        tensors |= {STATE + name: torch.as_tensor(value) for name, value in state.items()}
        tensors |= {EXTRA + name: value.detach() for name, value in (extra or {}).items()}
        ready = {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
        write_whole(path, lambda fresh: save_file(ready, fresh))

    def load(self, path: Path, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Tensor]:
        """Take what `save` wrote, whatever the size of the table, and return the further tensors.

        Raises:
            ValueError: the file is damaged or has rows of another width, or the optimizer trains others.
            FileNotFoundError: there is none.
        """
        try:
            found = load_file(path)
            weight_SD, owner_S = found[WEIGHT], found[OWNERS]
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{path} holds no entity slots ({error}); restore a copy or train anew") from error
        if weight_SD.shape != (len(owner_S), self.weight.shape[1]):
            raise ValueError(
                f"{path} has rows of {weight_SD.shape[-1]} numbers, {self.weight.shape[1]} are wanted; name another"
            )
        if optimizer is not None:
            optimizer.state.pop(self.weight, None)
        self._replace(weight_SD.to(self.weight), optimizer)
        self._own(owner_S.to(self.owner_S.device))
        self._wanted = {}
        if optimizer is not None:
            state = {name.removeprefix(STATE): v for name, v in found.items() if name.startswith(STATE)}
            optimizer.state[self.weight] = {name: value.to(self.weight.device) for name, value in state.items()}
        return {name.removeprefix(EXTRA): value for name, value in found.items() if name.startswith(EXTRA)}
