"""Deltas of the rows of a batch: what is added to products that all rows share.

- The base is multiplied once for all rows, then every row has two small products of its own: y += B (A x).
- What a row gets depends on that row alone. Ranks are padded with zeros to fixed steps, never to what the batch has;
  torch.bmm computes each of its products apart, with a kernel that follows from their shape. A product that is alone
  is made twice: torch.bmm hands it to another kernel, with other last bits (with several threads, or with MKL_CBWR on
  a CPU with AVX-512).
- Rows are cut into runs of equal shape; rows without a delta are in none, so they cost nothing and keep their bits.
- Factors lie in one piece per matrix, all rows of a run after each other: decoding with deltas is reading them.

Axes as in `ulm.delta` and `ulm.decode.stepper`; M rows of a product, T tokens of a padded prompt.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
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

HUGE_PAGE = 2**21
"""Bytes."""

FETCH_FROM = 2**14
"""Numbers in a factor, from which on it is fetched before it is multiplied (see `_fetched`)."""

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
        if len(deltas) > 1 and len({delta.sha256 for delta in deltas}) == 1:
            return cls.of(deltas[:1], model, dtype).select([0] * len(deltas))
        for delta in deltas:
            delta.refuse_other(model)
        R, E = padded_shape(deltas[0])
        shapes = linear_shapes(model) if R else {}
        factors = _factors({name: (len(deltas), R, K, N) for name, (N, K) in shapes.items()}, model.device, dtype)
        for name, (a_BKR, b_BRN) in factors.items():
            nothing = torch.zeros(R, a_BKR.shape[1]), torch.zeros(b_BRN.shape[2], R)
            pairs = [delta.factors.get(name, nothing) for delta in deltas]
            a_BKR.copy_(torch.stack([F.pad(a_RK, (0, 0, 0, R - len(a_RK))) for a_RK, _ in pairs]).transpose(1, 2))
            b_BRN.copy_(torch.stack([F.pad(b_NR, (0, R - b_NR.shape[1])) for _, b_NR in pairs]).transpose(1, 2))
        ids_BE = torch.stack([F.pad(delta.ids_E, (0, E - len(delta.ids_E)), value=-1) for delta in deltas])
        rows_BEC = torch.stack([F.pad(delta.rows_EC, (0, 0, 0, E - len(delta.ids_E))) for delta in deltas])
        return cls(tuple(deltas), factors, ids_BE.to(model.device), rows_BEC.to(model.device, dtype))

    @cached_property
    def columns(self) -> Tensor:
        """Logits that change; what is added to the first one in the name of none is 0."""
        return self.ids_BE.clamp(min=0)

    @cached_property
    def is_one(self) -> bool:
        """Whether all rows have the same delta, which then lies there once."""
        return len(self.deltas) > 1 and self.rows_BEC.stride(0) == 0

    def place(self, rows: Sequence[int]) -> slice | Tensor:
        """Return where some rows are found; a slice, which copies nothing, where they follow each other."""
        if self.is_one:
            return slice(0, len(rows))
        if list(rows) == list(range(rows[0], rows[0] + len(rows))):
            return slice(rows[0], rows[0] + len(rows))
        return torch.tensor(rows, device=self.ids_BE.device)

    def select(self, rows: Sequence[int]) -> DeltaStack:
        """Return some of the rows, without a copy where they follow each other or are all the same."""
        deltas = [self.deltas[row] for row in rows]
        if len(rows) > 1 and (self.is_one or len(set(rows)) == 1):
            one, count = slice(rows[0], rows[0] + 1), len(rows)
            factors = {
                name: (a_BKR[one].expand(count, -1, -1), b_BRN[one].expand(count, -1, -1))
                for name, (a_BKR, b_BRN) in self.factors.items()
            }
            return DeltaStack(
                deltas, factors, self.ids_BE[one].expand(count, -1), self.rows_BEC[one].expand(count, -1, -1)
            )
        place = self.place(rows)
        if isinstance(place, slice):
            factors = {name: (a_BKR[place], b_BRN[place]) for name, (a_BKR, b_BRN) in self.factors.items()}
            return DeltaStack(deltas, factors, self.ids_BE[place], self.rows_BEC[place])
        shapes = {
            name: (len(rows), b_BRN.shape[1], a_BKR.shape[1], b_BRN.shape[2])
            for name, (a_BKR, b_BRN) in self.factors.items()
        }
        factors = _factors(shapes, self.rows_BEC.device, self.rows_BEC.dtype)
        for name, (a_BKR, b_BRN) in factors.items():
            old_BKR, old_BRN = self.factors[name]
            torch.index_select(old_BKR.transpose(1, 2), 0, place, out=a_BKR.transpose(1, 2))
            torch.index_select(old_BRN, 0, place, out=b_BRN)
        return DeltaStack(deltas, factors, self.ids_BE[place], self.rows_BEC[place])

    def embed(self, x_MC: Tensor, ids_M: Tensor, row_M: Tensor | None = None) -> None:
        """Add the rows of embedded tokens, in place.

        Args:
            x_MC: the embedded tokens.
            ids_M: which ones.
            row_M: whose; None means one of each row.
        """
        ids_ME = self.ids_BE if row_M is None else self.ids_BE[row_M]
        found_ME = ids_M[:, None] == ids_ME
        if found_ME.any():
            at, which = found_ME.nonzero(as_tuple=True)
            x_MC.index_add_(0, at, self.rows_BEC[at if row_M is None else row_M[at], which])


def _factors(
    shapes: Mapping[str, tuple[int, int, int, int]], device: torch.device, dtype: torch.dtype
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return memory for factors, one after the other.

    Args:
        shapes: name of a weight -> B, R, K, N.
        device: where.
        dtype: of what type.
    """
    count = sum(B * R * (K + N) for B, R, K, N in shapes.values())
    memory = _large(count, dtype) if device.type == "cpu" else torch.empty(count, device=device, dtype=dtype)
    factors, start = {}, 0
    for name, (B, R, K, N) in shapes.items():
        middle, end = start + B * R * K, start + B * R * (K + N)
        # A lies with its inputs last, whatever it is sliced to: another layout has other last bits.
        factors[name] = memory[start:middle].view(B, R, K).transpose(1, 2), memory[middle:end].view(B, R, N)
        start = end
    return factors


def _large(count: int, dtype: torch.dtype) -> Tensor:
    """Return memory in huge pages where the system has such: in small ones their table costs as much as reading."""
    size = count * dtype.itemsize
    if size < HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(count, dtype=dtype)
    memory = mmap.mmap(-1, -(-size // HUGE_PAGE) * HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype, count=count)


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

    def of(self, x_MX: Tensor) -> Tensor:
        """Return its rows of all; the whole is cheaper than a part."""
        count = len(self)
        return x_MX if len(x_MX) == count else x_MX[self.first : self.first + count]

    @cached_property
    def factors(self) -> dict[str, tuple[Tensor, Tensor, Tensor, Sequence[Tensor]]]:
        """Name of a weight -> A, B, memory for A x, and what is fetched before; of at least two rows."""
        found = {}
        for name, (a_BKR, b_BRN) in self.stack.factors.items():
            fetched = _fetched(a_BKR, b_BRN)
            a_BKR, b_BRN = not_alone(a_BKR), not_alone(b_BRN)
            found[name] = a_BKR, b_BRN, b_BRN.new_empty(len(b_BRN), 1, b_BRN.shape[1]), fetched
        return found


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

    def stack(self, rows: Sequence[int]) -> tuple[DeltaStack, list[int]]:
        """Return the stack that has the deltas of some rows of one run, and which ones of it they are."""
        number, _ = self._places[rows[0]]
        return self._runs[number].stack, [self._places[row][1] for row in rows]

    def select(self, rows: Sequence[int]) -> RowDeltas:
        """Return the deltas of some rows, in their order."""
        runs, first = [], 0
        for number, members in groupby(rows, key=self.run):
            there = list(members)
            if number >= 0:
                stack, places = self.stack(there)
                runs.append((first, stack.select(places)))
            first += len(there)
        return RowDeltas(runs)

    def embed(self, x_MC: Tensor, ids_M: Tensor) -> None:
        """Add to embedded tokens."""
        for run in self._with_tokens:
            run.stack.embed(run.of(x_MC), run.of(ids_M))

    def add(self, name: str, x_MK: Tensor, y_MN: Tensor) -> None:
        """Add to the product of x with the weight of this name."""
        for run in self._with_rank:
            a_BKR, b_BRN, small_B1R, fetched = run.factors[name]
            x_B1K, y_B1N = run.of(x_MK).unsqueeze(1), run.of(y_MN).unsqueeze(1)
            for factor in fetched:
                factor.sum()
            torch.bmm(not_alone(x_B1K if x_B1K.dtype == a_BKR.dtype else x_B1K.to(a_BKR.dtype)), a_BKR, out=small_B1R)
            if y_B1N.dtype != b_BRN.dtype:
                y_B1N.add_(torch.bmm(small_B1R, b_BRN)[: len(run)])
            elif len(run) > 1:
                y_B1N.baddbmm_(small_B1R, b_BRN)
            else:
                y_B1N.copy_(torch.baddbmm(not_alone(y_B1N), small_B1R, b_BRN)[:1])

    def logits(self, x_MC: Tensor, logits_MV: Tensor) -> None:
        """Add to the product of x with the embedding."""
        for run in self._with_tokens:
            added_BE = _each(run.of(x_MC), run.stack.rows_BEC)
            run.of(logits_MV).scatter_add_(1, run.stack.columns, added_BE)


def not_alone(x_BXY: Tensor) -> Tensor:
    """Return matrices that are multiplied one by one; one that is alone twice, for its bits would be others."""
    return x_BXY if len(x_BXY) > 1 else x_BXY.expand(2, -1, -1)


def _each(x_BC: Tensor, rows_BEC: Tensor) -> Tensor:
    """Return each x times its own rows, (B, E)."""
    return torch.bmm(not_alone(x_BC.unsqueeze(1)), not_alone(rows_BEC).transpose(1, 2))[: len(x_BC), 0]


def _fetched(a_BKR: Tensor, b_BRN: Tensor) -> Sequence[Tensor]:
    """Return what is read once before it is multiplied: factors so large that the cache will not hold them.

    torch.bmm waits for the memory at each of its products; a pass over all of them reads ahead. On an EPYC core that
    others shared, 64 deltas of rank 8 cost half as much with it and huge pages (2026-11-29).
    """
    if a_BKR.device.type != "cpu":
        return ()
    return [x for x in (a_BKR.transpose(1, 2), b_BRN) if x.numel() >= FETCH_FROM and x.stride(0)]


class PromptDeltas:
    """Deltas of prompts that are read at once, their tokens one after the other.

    Prompts of one length that follow each other are multiplied together.

    Args:
        stack: has their deltas.
        rows: which of these, of each prompt.
        counts: tokens of each prompt.
    """

    def __init__(self, stack: DeltaStack, rows: Sequence[int], counts: Sequence[int]) -> None:
        self._stack = stack
        self._runs: list[tuple[slice, int, slice | Tensor]] = []
        first = start = 0
        for count, alike in groupby(counts):
            number = len(list(alike))
            end = start + number * count
            self._runs.append((slice(start, end), count, stack.place(rows[first : first + number])))
            first, start = first + number, end
        self._tokens = start
        self._row_N = torch.tensor(rows).repeat_interleave(torch.tensor(counts)).to(stack.ids_BE.device)

    def embed(self, x_MC: Tensor, ids_M: Tensor) -> None:
        """Add to embedded tokens."""
        if self._stack.ids_BE.shape[1]:
            self._stack.embed(x_MC[: self._tokens], ids_M[: self._tokens], self._row_N)

    def add(self, name: str, x_MK: Tensor, y_MN: Tensor) -> None:
        """Add to the product of x with the weight of this name."""
        if not self._stack.factors:
            return
        a_BKR, b_BRN = self._stack.factors[name]
        a_BRK, dtype = a_BKR.transpose(1, 2), b_BRN.dtype
        for part, count, place in self._runs:
            x_BTK = x_MK[part].view(-1, count, x_MK.shape[1]).to(dtype)
            y_BTN = y_MN[part].view(-1, count, y_MN.shape[1])
            own_BRK, own_BRN = _at(a_BRK, place), _at(b_BRN, place)
            if len(x_BTK) > 1 and y_BTN.dtype == dtype:
                small_BRT = torch.bmm(own_BRK, x_BTK.transpose(1, 2))
                y_BTN.baddbmm_(small_BRT.transpose(1, 2), own_BRN)
                continue
            x2_BTK, y2_BTN, a2_BRK, b2_BRN = map(not_alone, (x_BTK, y_BTN.to(dtype), own_BRK, own_BRN))
            small_BRT = torch.bmm(a2_BRK, x2_BTK.transpose(1, 2))
            y_BTN.copy_(torch.baddbmm(y2_BTN, small_BRT.transpose(1, 2), b2_BRN)[: len(x_BTK)])

    def logits(self, x_MC: Tensor, logits_MV: Tensor) -> None:
        """Add to the product of x with the embedding."""
        if self._stack.ids_BE.shape[1]:
            rows = self._row_N
            added_BE = _each(x_MC[: self._tokens], self._stack.rows_BEC[rows])
            logits_MV[: self._tokens].scatter_add_(1, self._stack.columns[rows], added_BE)


def _at(factor: Tensor, place: slice | Tensor) -> Tensor:
    """Return some rows of a factor; what is copied is read ahead, as `_fetched` would."""
    return factor[place] if isinstance(place, slice) else factor.index_select(0, place)
