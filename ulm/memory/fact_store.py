"""Facts on disk: key -> value pairs with their sources, in SQLite.

- Nothing is overwritten without a trace: a change gets the next revision, what is forgotten stays as a mark, so that
  readers follow by asking for what came after the last revision they know.
- A file belongs to one tokenizer, by its hash: token ids mean nothing to another.
- Knows no model and no lookup in texts (`ulm.memory.exact`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ulm.memory.sqlite_file import SqliteFile


@dataclass(frozen=True, slots=True)
class Fact:
    """One entry.

    Attributes:
        key, value: texts as they were written.
        key_ids, value_ids: their tokens; the value's are those that follow the key's.
        source: who says so.
        revision: of the change that wrote it, counted from 1 over the whole memory; 0 before it is stored.
        forgotten: whether this is the mark of a fact that was taken back; `source` then says by whom.
    """

    key: str
    value: str
    key_ids: tuple[int, ...]
    value_ids: tuple[int, ...]
    source: str = ""
    revision: int = 0
    forgotten: bool = False


class FactStore(SqliteFile):
    """A file of facts. One object belongs to the thread that made it; others open the file anew.

    Args:
        path: the file; made where there is none. None keeps everything in memory.
        tokenizer_hash: of the tokenizer that made the ids.
        read_only: open an existing file for reading alone.

    Raises:
        ValueError: the file is damaged, is no memory, or belongs to another tokenizer or format.
        FileNotFoundError: there is no file, and it is for reading alone.
    """

    what = "memory"
    application_id = 0x754C4D46
    format = 1
    tables = """
CREATE TABLE facts (
    key_ids BLOB PRIMARY KEY, value_ids BLOB NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, source TEXT NOT NULL,
    revision INTEGER NOT NULL UNIQUE, forgotten INTEGER NOT NULL, digest BLOB NOT NULL
) WITHOUT ROWID
"""

    def __init__(self, path: Path | None, tokenizer_hash: str, *, read_only: bool = False) -> None:
        super().__init__(path, {"tokenizer": tokenizer_hash}, read_only=read_only)

    def again(self, path: Path | None, *, read_only: bool) -> FactStore:
        """Return another of the same tokenizer."""
        return FactStore(path, self.about["tokenizer"], read_only=read_only)

    def put(self, facts: Sequence[Fact]) -> list[Fact]:
        """Write facts in one transaction, over what is there under the same keys; return them with their revisions."""
        with self.writing():
            last = self._connection.execute("SELECT coalesce(max(revision), 0) FROM facts").fetchone()[0]
            written = [replace(fact, revision=number) for number, fact in enumerate(facts, last + 1)]
            rows = [_row(fact) for fact in written]
            self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        return written

    def forget(self, key_ids: tuple[int, ...], source: str = "") -> bool:
        """Take a fact back; return whether there was one."""
        with self.writing():
            if (fact := self.get(key_ids)) is None:
                return False
            self.put([replace(fact, source=source, forgotten=True)])
        return True

    def get(self, key_ids: tuple[int, ...]) -> Fact | None:
        """Return the fact with a key, None where there is none."""
        with self._reported():
            query = "SELECT * FROM facts WHERE key_ids = ? AND NOT forgotten"
            row = self._connection.execute(query, (_blob(key_ids),)).fetchone()
        return self._fact(row) if row else None

    def since(self, revision: int = 0) -> list[Fact]:
        """Return what changed after a revision, in order; what was taken back is marked `forgotten`."""
        with self._reported():
            query = "SELECT * FROM facts WHERE revision > ? ORDER BY revision"
            rows = self._connection.execute(query, (revision,)).fetchall()
        return [self._fact(row) for row in rows]

    def _fact(self, row: Sequence[Any]) -> Fact:
        key_ids, value_ids, key, value, source, revision, forgotten, digest = row
        try:
            fact = Fact(key, value, _ids(key_ids), _ids(value_ids), source, revision, bool(forgotten))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self._name} is damaged ({error}); restore a copy or write it anew") from error
        if _row(fact)[-1] != digest:
            raise ValueError(f"{self._name} is damaged (revision {revision}); restore a copy or write it anew")
        return fact


def _blob(ids: Sequence[int]) -> bytes:
    return np.array(ids, dtype="<i4").tobytes()


def _ids(blob: bytes) -> tuple[int, ...]:
    return tuple(np.frombuffer(blob, dtype="<i4").tolist())


def _row(fact: Fact) -> tuple[Any, ...]:
    row = (
        _blob(fact.key_ids), _blob(fact.value_ids), fact.key, fact.value, fact.source, fact.revision,
        int(fact.forgotten),
    )  # fmt: skip
    return *row, hashlib.blake2b(repr(row).encode(), digest_size=8).digest()
