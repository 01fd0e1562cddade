"""Deltas of the rows of a batch: what is added to products that all rows share.

- The base is multiplied once for all rows, then every row has two small products of its own: y += B (A x).
- What a row gets depends on that row alone. Ranks are padded with zeros to fixed steps, never to what the batch has;
  torch.bmm computes each of its products apart, with a kernel that follows from their shape.
- Rows are cut into runs of equal shape; rows without a delta are in none, so they cost nothing and keep their bits.
- Factors lie in one piece per matrix, all rows of a run after each other: decoding with deltas is reading them.

Axes as in `ulm.delta` and `ulm.decode.stepper`; M rows of a product, T tokens of a padded prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ulm.delta import Delta, linear_shapes
from ulm.model import Decoder

FEWEST = 4
"""Ranks, and numbers of tokens with rows of their own, are padded to this, or twice, four, eight times as many."""

Shape = tuple[int, int]
"""Padded rank and padded number of tokens."""


def padded_shape(delta: Delta | None) -> Shape:
    """Return the shape to which a delta is padded; nothing is (0, 0), and so is a delta that changes nothing."""
    if delta is None or delta.changes_nothing:
        return 0, 0
    return _step(delta.rank), _step(len(delta.ids_E))


def _step(count: int) -> int:
    return 0 if not count else max(FEWEST, 1 << (count - 1).bit_length())


@dataclass(frozen=True, eq=False)
class DeltaStack:
    """Deltas of one padded shape, one per row.

    Attributes:
        deltas: which ones.
        factors: name of a weight -> the transpose of A (B, K, R), and that of B (B, R, N).
        ids_BE: tokens whose embedding changes, -1 where there are fewer.
        rows_BEC: what is added to their rows.
    """

    deltas: Sequence[Delta]
    factors: dict[str, tuple[Tensor, Tensor]]
    ids_BE: Tensor
    rows_BEC: Tensor

    @classmethod
    def of(cls, deltas: Sequence[Delta], model: Decoder, dtype: torch.dtype) -> DeltaStack:
        """Put deltas of one padded shape beside each other.

        Raises:
            DeltaError: one of them belongs to another model.
        """
        for delta in {id(delta): delta for delta in deltas}.values():
            delta.refuse_other(model)
        R, E = padded_shape(deltas[0])
        factors = {}
        for name, (N, K) in linear_shapes(model).items() if R else ():
            nothing = torch.zeros(R, K), torch.zeros(N, R)
            pairs = [delta.factors.get(name, nothing) for delta in deltas]
            a_BRK = torch.stack([F.pad(a_RK, (0, 0, 0, R - a_RK.shape[0])) for a_RK, _ in pairs])
            b_BRN = torch.stack([F.pad(b_NR, (0, R - b_NR.shape[1])).t() for _, b_NR in pairs])
            factors[name] = a_BRK.to(model.device, dtype).transpose(1, 2), b_BRN.to(model.device, dtype)
        ids_BE = torch.stack([F.pad(delta.ids_E, (0, E - len(delta.ids_E)), value=-1) for delta in deltas])
        rows_BEC = torch.stack([F.pad(delta.rows_EC, (0, 0, 0, E - len(delta.ids_E))) for delta in deltas])
        return cls(tuple(deltas), factors, ids_BE.to(model.device), rows_BEC.to(model.device, dtype))

    @cached_property
    def columns(self) -> Tensor:
        """Logits that change; what is added to the first one in the name of none is 0."""
        return self.ids_BE.clamp(min=0)

    def select(self, rows: Sequence[int]) -> DeltaStack:
        """Return some of the rows, without a copy where they follow each other."""
        deltas = [self.deltas[row] for row in rows]
        if list(rows) == list(range(rows[0], rows[0] + len(rows))):
            part = slice(rows[0], rows[0] + len(rows))
            factors = {name: (a_BKR[part], b_BRN[part]) for name, (a_BKR, b_BRN) in self.factors.items()}
            return DeltaStack(deltas, factors, self.ids_BE[part], self.rows_BEC[part])
        index = torch.tensor(rows, device=self.ids_BE.device)
        # A keeps its layout: another one has other last bits.
        factors = {
            name: (a_BKR.transpose(1, 2)[index].transpose(1, 2), b_BRN[index])
            for name, (a_BKR, b_BRN) in self.factors.items()
        }
        return DeltaStack(deltas, factors, self.ids_BE[index], self.rows_BEC[index])

    def embed(self, x_MC: Tensor, ids_M: Tensor, row_M: Tensor) -> None:
        """Add the rows of embedded tokens, in place.

        Args:
            x_MC: the embedded tokens.
            ids_M: which ones.
            row_M: whose.
        """
        at, which = (ids_M[:, None] == self.ids_BE[row_M]).nonzero(as_tuple=True)
        if len(at):
            x_MC.index_add_(0, at, self.rows_BEC[row_M[at], which])


class Deltas(Protocol):
    """What deltas add to the rows of products; everything is written in place."""

    def embed(self, x_MC: Tensor, ids_M: Tensor) -> None:
        """Add to embedded tokens."""

    def add(self, name: str, x_MK: Tensor, y_MN: Tensor) -> None:
        """Add to the product of x with the weight of this name."""

    def logits(self, x_MC: Tensor, logits_MV: Tensor) -> None:
        """Add to the product of x with the embedding."""


@dataclass(frozen=True, eq=False)
class _Run:
    """Rows first, first + 1, ... have the deltas of a stack."""

    first: int
    stack: DeltaStack

    def __len__(self) -> int:
        return len(self.stack.ids_BE)

    @cached_property
    def part(self) -> slice:
        return slice(self.first, self.first + len(self))

    @cached_property
    def rows(self) -> Tensor:
        return torch.arange(len(self), device=self.stack.ids_BE.device)

    @cached_property
    def small(self) -> Tensor:
        (_, b_BRN), *_ = self.stack.factors.values()
        return b_BRN.new_empty(len(self), 1, b_BRN.shape[1])


class RowDeltas:
    """Deltas of a batch that has one token per row.

    Args:
        runs: first row and stack of each run, in order.
    """

    def __init__(self, runs: Sequence[tuple[int, DeltaStack]]) -> None:
        self._runs = [_Run(first, stack) for first, stack in runs]
        self._with_rank = [run for run in self._runs if run.stack.factors]
        self._with_tokens = [run for run in self._runs if run.stack.ids_BE.shape[1]]

    @cached_property
    def _places(self) -> dict[int, tuple[int, int]]:
        """Row -> its run, and its place there."""
        return {run.first + at: (number, at) for number, run in enumerate(self._runs) for at in range(len(run))}

    def run(self, row: int) -> int:
        """Return the number of a row's run, -1 where it has no delta."""
        return self._places.get(row, (-1, 0))[0]

    def stack(self, rows: Sequence[int]) -> DeltaStack:
        """Return the deltas of some rows of one run."""
        number, _ = self._places[rows[0]]
        return self._runs[number].stack.select([self._places[row][1] for row in rows])

    def select(self, rows: Sequence[int]) -> RowDeltas:
        """Return the deltas of some rows, in their order."""
        runs, first = [], 0
        for number, members in groupby(rows, key=self.run):
            there = list(members)
            if number >= 0:
                runs.append((first, self.stack(there)))
            first += len(there)
        return RowDeltas(runs)

    def embed(self, x_MC: Tensor, ids_M: Tensor) -> None:
        """Add to embedded tokens."""
        for run in self._with_tokens:
            run.stack.embed(x_MC[run.part], ids_M[run.part], run.rows)

    def add(self, name: str, x_MK: Tensor, y_MN: Tensor) -> None:
        """Add to the product of x with the weight of this name."""
        for run in self._with_rank:
            a_BKR, b_BRN = run.stack.factors[name]
            small_B1R, y_B1N = run.small, y_MN[run.part, None]
            torch.bmm(x_MK[run.part, None].to(a_BKR.dtype), a_BKR, out=small_B1R)
            if y_B1N.dtype == b_BRN.dtype:
                y_B1N.baddbmm_(small_B1R, b_BRN)
            else:
                y_B1N.add_(torch.bmm(small_B1R, b_BRN))

    def logits(self, x_MC: Tensor, logits_MV: Tensor) -> None:
        """Add to the product of x with the embedding."""
        for run in self._with_tokens:
            added_B1E = torch.bmm(x_MC[run.part, None], run.stack.rows_BEC.transpose(1, 2))
            logits_MV[run.part].scatter_add_(1, run.stack.columns, added_B1E[:, 0])


class PromptDeltas:
    """Deltas of prompts that are read at once, their tokens one after the other.

    Args:
        stack: one delta per prompt.
        row_N: prompt of each token.
        padded: tokens of all prompts, each padded to T of them.
        packed: place of each token among these.
    """

    def __init__(self, stack: DeltaStack, row_N: Tensor, padded: Tensor, packed: Tensor) -> None:
        self._stack, self._row_N, self._padded, self._packed = stack, row_N, padded, packed
        self._prompts = len(stack.ids_BE)

    def embed(self, x_MC: Tensor, ids_M: Tensor) -> None:
        """Add to embedded tokens."""
        if self._stack.ids_BE.shape[1]:
            self._stack.embed(x_MC, ids_M, self._row_N)

    def add(self, name: str, x_MK: Tensor, y_MN: Tensor) -> None:
        """Add to the product of x with the weight of this name."""
        if self._stack.factors:
            a_BKR, b_BRN = self._stack.factors[name]
            x_BTK = x_MK.index_select(0, self._padded).view(self._prompts, -1, x_MK.shape[1])
            added_BTN = torch.bmm(torch.bmm(x_BTK.to(a_BKR.dtype), a_BKR), b_BRN)
            y_MN.add_(added_BTN.flatten(0, 1).index_select(0, self._packed))

    def logits(self, x_MC: Tensor, logits_MV: Tensor) -> None:
        """Refuse: logits are only wanted after prompts, where `RowDeltas` adds to them."""
        raise NotImplementedError
