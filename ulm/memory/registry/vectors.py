"""A vector for every entity, from what is said of it: its names, its type, what stands beside it. Nothing is learned.

- A feature is three letters of a name in a row, a word of it, the type, or a relation with the neighbour's name or the
  value; of neighbours also the name alone. Each has a row of +1 and -1, the bits of its hash. So cosines are those of
  bags of features, give or take 1 / sqrt(D) (random projection, Achlioptas 2003), and nothing has to grow.
- Names, type and neighbours count by `WEIGHTS`, however many features there are of each.
- All that live sources say counts, what a newer claim has replaced among it; what is forgotten leaves no trace.
- An assertion `:vector` stands in for what follows from features.
- Search compares with all of them, block by block, so it finds the nearest; the newest changes are taken in first.

Axes: N entities, D numbers of a vector.
"""

from __future__ import annotations

import base64
import hashlib
import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ulm.judge import Floats
from ulm.memory.registry.names import normalised, words_of
from ulm.memory.registry.store import NAMED, Relation
from ulm.memory.registry.view import RegistryView

VECTOR = Relation(":vector", functional=True, is_property=True)
"""A vector that somebody says an entity has."""

WIDTH = 256
"""Numbers of a vector. Of words with real neighbours 64 find made-up synonyms half as often as 256 do, 512 hardly more
often (tests/benchmarks/entity_similar.py)."""

WEIGHTS = (1.0, 0.5, 1.0)
"""Of names, type and neighbours."""

BLOCK = 1 << 16
"""Entities that are compared at once."""

_CHANGED = """SELECT subject, relation, object FROM assertions WHERE gone > 0 AND gone > ?1
UNION ALL SELECT subject, relation, object FROM assertions WHERE id > ?1 AND subject IN (
    SELECT subject FROM spoken_of WHERE source IN (
        SELECT source FROM told
        WHERE first >= coalesce((SELECT first FROM told WHERE first <= ?1 ORDER BY first DESC LIMIT 1), 0)))"""
"""What was written or taken back since a revision, found by who spoke since and of whom: assertions have no index by
number, which would make the file larger."""


@lru_cache(1 << 16)
def _signs(feature: str, width: int) -> NDArray[np.int8]:
    """Return +1 and -1 by the hash of a feature, (D,)."""
    bits = hashlib.shake_128(feature.encode("utf-8", "surrogatepass")).digest(width // 8)
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8)).astype(np.int8) * np.int8(2) - np.int8(1)


def _unit(vector_D: NDArray[Any]) -> Floats:
    """Return a vector of length 1, or of zeros where it has none."""
    length = math.sqrt(float(vector_D @ vector_D))
    return (vector_D / (length or 1.0)).astype(np.float32)


def _letters(name: str) -> set[str]:
    """Return the features of a normalised name."""
    marked = [f"<{word}>" for word in words_of(name)]
    return {f"name {word[at : at + 3]}" for word in marked for at in range(len(word) - 2)} | {
        f"name {word}" for word in marked
    }


class EntityVectors:
    """Vectors of the entities of a registry.

    Args:
        view: what is known.
        width: numbers of a vector.
        weights: of names, type and neighbours.

    Raises:
        ValueError: the width is no multiple of 8.
    """

    def __init__(self, view: RegistryView, width: int = WIDTH, weights: tuple[float, ...] = WEIGHTS) -> None:
        if width < 8 or width % 8:
            raise ValueError(f"the width of vectors is a multiple of 8, got {width}")
        self.view, self.width, self.weights = view, width, weights
        self._seen = ("", 0)
        """Hash and revision of what was taken in."""
        self._unsettled: set[int] = set()
        """Entities of what was taken in from a transaction that may still be rolled back."""
        self._called: dict[int, str] = {}
        """Number -> longest name of the entity that it stands for, "" where nobody speaks of it."""
        self._row: dict[int, int] = {}
        self._types: dict[str, int] = {}
        self._number_N, self._type_N = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self._vector_ND = np.zeros((0, width), dtype=np.float32)

    def of(self, entity: int) -> Floats:
        """Return the vector of an entity, of length 1, (D,).

        Raises:
            ValueError: there is no such entity.
        """
        self.view.refuse_unknown(entity)
        self._take_in()
        vector_D: Floats = self._vector_ND[self._row[self.view.representative(entity)]].copy()
        return vector_D

    def checked(self, vector: ArrayLike) -> Floats:
        """Return a vector of length 1, (D,).

        Raises:
            ValueError: it has another size, is not finite, or has no direction.
        """
        vector_D = np.asarray(vector, dtype=np.float32)
        if vector_D.shape != (self.width,) or not np.isfinite(vector_D).all() or not vector_D.any():
            raise ValueError(
                f"a vector of {self.width} finite numbers is needed, not all 0; got shape {vector_D.shape}"
                f"{'' if np.isfinite(vector_D).all() else ' with numbers that are not finite'}"
            )
        return _unit(vector_D.astype(np.float64))

    @staticmethod
    def encoded(vector_D: Floats) -> str:
        """Return a vector as the text of an assertion."""
        return base64.b64encode(vector_D.astype("<f4").tobytes()).decode("ascii")

    def decoded(self, text: str) -> Floats:
        """Return what `encoded` made a text of.

        Raises:
            ValueError: it has another size.
        """
        vector_D = np.frombuffer(base64.b64decode(text), dtype="<f4")
        if len(vector_D) != self.width:
            raise ValueError(
                f"an entity was given a vector of {len(vector_D)} numbers, those here have {self.width}; open the "
                f"registry with vector_width={len(vector_D)}, or forget the source"
            )
        return self.checked(vector_D)

    def nearest(
        self, vector: ArrayLike, entity_type: str = "", k: int = 10, threshold: float = 0.0
    ) -> list[tuple[int, float]]:
        """Return the k entities of largest cosine with a vector, from `threshold` on; of equals the oldest first.

        Raises:
            ValueError: `checked` refuses the vector.
        """
        unit_D = self.checked(vector)
        self._take_in()
        found: list[tuple[int, float]] = []
        for start in range(0, len(self._row), BLOCK):
            rows = slice(start, min(start + BLOCK, len(self._row)))
            # The last bits depend on a row's place in the block.
            cosine_N = np.round(self._vector_ND[rows] @ unit_D, 6)
            fits_N = cosine_N >= threshold
            if entity_type:
                fits_N &= self._type_N[rows] == self._types.get(entity_type, -1)
            numbers, cosines = self._number_N[rows][fits_N], cosine_N[fits_N]
            if len(cosines) > k > 0:
                enough = cosines >= np.partition(cosines, -k)[-k]
                numbers, cosines = numbers[enough], cosines[enough]
            found += zip(numbers.tolist(), cosines.tolist(), strict=True)
        return sorted(found, key=lambda one: (-one[1], one[0]))[:k]

    def _take_in(self) -> None:
        """Compute anew the vectors of all that has changed, and of those beside whom a name has."""
        store = self.view.store
        if store.digest == self._seen[0] and not self._unsettled:
            return
        now, seen = (store.digest, store.revision), self._seen[1]
        todo = list(self._unsettled)
        for one, relation, other in store.rows(_CHANGED, seen):
            todo += (one, other) if other and relation != NAMED else (one,)
        ids_of: dict[int, tuple[int, ...]] = {}
        while todo:
            if (entity := todo.pop()) in ids_of:
                continue
            named = store.names_of(entity)
            ids = self.view.ids(entity) if named else (entity,)
            names = map(normalised, named if len(ids) == 1 else self.view.names(entity))
            called = max(names, key=lambda name: (len(name), name), default="")
            for number in ids:
                ids_of[number] = ids
                if self._called.get(number, "") != called:
                    self._called[number] = called
                    todo += self._around(number) if seen else ()  # the first time all are computed anyway
        for entity in sorted(ids_of):
            self._place(entity, ids_of[entity])
        if store.is_writing:
            self._unsettled = set(ids_of)
        else:
            self._seen, self._unsettled = now, set()

    def _around(self, entity: int) -> set[int]:
        store = self.view.store
        found = {one.subject for one in store.of_object(entity)}
        return found | {one.other for one in store.of_subject(entity) if one.other}

    def _place(self, entity: int, ids: tuple[int, ...]) -> None:
        """Write the row of an entity, or take it out where another number or nobody stands for it."""
        row = self._row.get(entity)
        if self._called.get(entity) and ids[0] == entity:
            if row is None:
                row = self._row[entity] = len(self._row)
                if row == len(self._number_N):
                    self._make_room()
            self._number_N[row] = entity
            self._write(row, ids)
        elif row is not None:  # the last row takes its place
            del self._row[entity]
            last = len(self._row)
            moved = int(self._number_N[last])
            for array in (self._number_N, self._type_N, self._vector_ND):
                array[row] = array[last]
            if moved != entity:
                self._row[moved] = row

    def _make_room(self) -> None:
        more = max(64, len(self._number_N))
        self._number_N = np.r_[self._number_N, np.zeros(more, dtype=np.int64)]
        self._type_N = np.r_[self._type_N, np.zeros(more, dtype=np.int64)]
        self._vector_ND = np.r_[self._vector_ND, np.zeros((more, self.width), dtype=np.float32)]

    def _write(self, row: int, ids: tuple[int, ...]) -> None:
        """Write type and vector of the entity that numbers stand for."""
        store = self.view.store
        relations = dict(store.relations().values())
        said = [one for number in ids for one in store.of_subject(number)]
        type_ = next((store.text_of(one.object) for one in said if one.relation == NAMED and one.object), "")
        self._type_N[row] = self._types.setdefault(type_, len(self._types))
        if any(relations[one.relation] == VECTOR for one in said):
            self._vector_ND[row] = self.decoded(str(self.view.lookup(ids[0], VECTOR.name)[0]))
            return
        beside: list[str] = []
        for one in said:
            if not relations[one.relation].name.startswith(":"):
                beside += self._neighbour(relations[one.relation].name, one.object, one.value)
        for one in (one for number in ids for one in store.of_object(number)):
            flags = relations[one.relation]
            if not flags.name.startswith(":"):
                back = flags.name if flags.symmetric else flags.inverse or f"{flags.name} of"
                beside += self._neighbour(back, one.subject, "")
        names = set[str]().union(*(_letters(normalised(one.value)) for one in said if one.relation == NAMED))
        total_D = np.zeros(self.width)
        for weight, features in zip(self.weights, (names, [f"type {type_}"] if type_ else [], beside), strict=True):
            if features:
                total_D += weight * _unit(np.array([_signs(one, self.width) for one in features]).sum(0))
        self._vector_ND[row] = _unit(total_D)

    def _neighbour(self, relation: str, other: int | None, value: str) -> list[str]:
        """Return the features of a neighbour or value, none of a neighbour of whom nobody speaks any more."""
        name = self._called.get(other, "") if other else value.strip() and normalised(value)
        return [f"beside {name}", f"{relation} {name}"] if name else []
