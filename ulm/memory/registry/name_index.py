"""Finding entities by name: by the whole of it, and by words with at most one typing error each.

- A name is found by its normalised text; its words by their halves (`names`), which lead to all words that are near.
- Rare words find entities by themselves, common ones only together, so a name never leads to a scan of the file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from heapq import nsmallest
from itertools import chain, combinations, product
from typing import Any

from rapidfuzz import process
from rapidfuzz.distance import OSA

from ulm.memory.registry.names import halves, halves_near, is_near, normalised, words_of
from ulm.memory.sqlite_file import SqliteFile

COMMON = 2000
"""Entities that a word may name before it stops telling them apart."""


class NameIndex(SqliteFile):
    """The part of a registry's file that finds entities by their names."""

    tables = """
CREATE TABLE names (norm TEXT NOT NULL, entity INTEGER NOT NULL, PRIMARY KEY (norm, entity)) WITHOUT ROWID;
CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE);
CREATE TABLE halves (half TEXT NOT NULL, word INTEGER NOT NULL, PRIMARY KEY (half, word)) WITHOUT ROWID;
CREATE TABLE naming (word INTEGER NOT NULL, entity INTEGER NOT NULL, PRIMARY KEY (word, entity)) WITHOUT ROWID;
"""

    def rows(self, query: str, *values: Any) -> list[Any]:
        """Return the rows of a query."""
        with self._reported():
            return self._connection.execute(query, values).fetchall()

    def index_name(self, entity: int, name: str) -> None:
        """Let a name find an entity; inside a transaction."""
        run, norm = self._connection.execute, normalised(name)
        run("INSERT OR IGNORE INTO names VALUES (?, ?)", (norm, entity))
        for word in words_of(norm):
            row = run("SELECT id FROM words WHERE word = ?", (word,)).fetchone()
            if row is None:
                row = run("INSERT INTO words (word) VALUES (?) RETURNING id", (word,)).fetchone()
                keys = [(half, row[0]) for half in halves(word)]
                self._connection.executemany("INSERT INTO halves VALUES (?, ?)", keys)
            run("INSERT OR IGNORE INTO naming VALUES (?, ?)", (row[0], entity))

    def named(self, name: str) -> list[int]:
        """Return the entities that ever had a name, by its normalised text."""
        found = self.rows("SELECT entity FROM names WHERE norm = ? ORDER BY entity", normalised(name))
        return [entity for (entity,) in found]

    def like(self, name: str, most: int = 200) -> list[int]:
        """Return entities whose names share words with a name, one error in each forgiven; the likest first.

        Those with the name itself come first. Words that name more than `COMMON` entities count only beside others.
        """
        norm = normalised(name)
        shared = Counter[int]()
        common: list[list[int]] = []  # of each word of the name, those near it
        for word in words_of(norm):
            entities: set[int] = set()
            common.append([])
            for number in self._words_near(word):
                some = self.rows("SELECT entity FROM naming WHERE word = ? LIMIT ?", number, COMMON + 1)
                if len(some) > COMMON:
                    common[-1].append(number)
                else:
                    entities.update(chain.from_iterable(some))
            shared.update(entities)
        both = (
            "SELECT a.entity FROM naming a JOIN naming b ON b.entity = a.entity WHERE a.word = ? AND b.word = ? LIMIT ?"
        )
        for some, others in combinations(common, 2):
            for pair in product(some, others):
                for (entity,) in self.rows(both, *pair, COMMON):
                    shared.setdefault(entity, 0)
        for number in (number for numbers in common for number in numbers):
            of_them = "SELECT entity FROM naming WHERE word = ? AND entity IN (SELECT value FROM json_each(?))"
            for (entity,) in self.rows(of_them, number, as_json(shared)):
                shared[entity] += 1
        exact = self.named(norm)
        for entity in exact:
            shared.pop(entity, None)
        ranked = nsmallest(most - len(exact), ((-count, entity) for entity, count in shared.items()))
        return exact + [entity for _, entity in ranked]

    def _words_near(self, word: str) -> list[int]:
        """Return the words that are one error away at most."""
        query = """SELECT w.id, w.word FROM halves h JOIN words w ON w.id = h.word
            WHERE h.half IN (SELECT value FROM json_each(?))"""
        words = dict(self.rows(query, as_json(halves_near(word))))
        near = process.extract(word, words, scorer=OSA.distance, score_cutoff=1, limit=None)
        return sorted(number for other, _, number in near if is_near(word, other))


def as_json(values: Iterable[int | str]) -> str:
    """Return values as a query takes many of them: `IN (SELECT value FROM json_each(?))`."""
    return json.dumps(list(values))
