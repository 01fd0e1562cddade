"""Facts on disk: key -> value pairs with their sources, in SQLite.

- Every `put` and `forget` is one transaction, on disk when the call returns; killing a process tears nothing.
- Nothing is overwritten without a trace: a change gets the next revision, what is forgotten stays as a mark, so that
  readers follow by asking for what came after the last revision they know.
- One process writes at a time (SQLite's lock), any number read, each a consistent state (write-ahead log).
- A file belongs to one tokenizer, by its hash: token ids mean nothing to another.
- Knows no model and no lookup in texts (`ulm.memory.exact`).
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ulm.files import write_whole

FORMAT = 1
WAIT_S = 30.0
"""How long one waits for another that writes."""
APPLICATION_ID = 0x754C4D46
"""Marks the file as ours (SQLite's `application_id`)."""

_TABLES = """
CREATE TABLE facts (
    key_ids BLOB PRIMARY KEY, value_ids BLOB NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, source TEXT NOT NULL,
    revision INTEGER NOT NULL UNIQUE, forgotten INTEGER NOT NULL, digest BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


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


class FactStore:
    """A file of facts. One object belongs to the thread that made it; others open the file anew.

    Args:
        path: the file; made where there is none. None keeps everything in memory.
        tokenizer_hash: of the tokenizer that made the ids.
        read_only: open an existing file for reading alone.

    Raises:
        ValueError: the file is damaged, is no memory, or belongs to another tokenizer or format.
        FileNotFoundError: there is no file, and it is for reading alone.
    """

    def __init__(self, path: Path | None, tokenizer_hash: str, *, read_only: bool = False) -> None:
        self.path = path
        self.tokenizer_hash = tokenizer_hash
        self.read_only = read_only
        self._name = "the memory" if path is None else f"the memory {path}"
        if read_only and (path is None or not path.is_file()):
            raise FileNotFoundError(f"there is no memory at {path}")
        mode = "memory" if path is None else "ro" if read_only else "rwc"
        address = "file:facts" if path is None else path.absolute().as_uri()
        with self._reported():
            self._connection = sqlite3.connect(f"{address}?mode={mode}", uri=True, isolation_level=None, timeout=WAIT_S)
        try:
            with self._reported():
                self._open(read_only)
        except ValueError:
            self._connection.close()
            raise

    def _open(self, read_only: bool) -> None:
        run = self._connection.execute
        if not read_only:
            with self.writing():  # two that open a new file at once must not both fill it
                if (
                    run("PRAGMA application_id").fetchone()[0] == 0
                    and not run("SELECT * FROM sqlite_master").fetchall()
                ):
                    for statement in _TABLES.strip().split(";\n"):
                        run(statement)
                    run(f"PRAGMA application_id = {APPLICATION_ID}")
                    run("INSERT INTO about VALUES ('format', ?), ('tokenizer', ?)", (str(FORMAT), self.tokenizer_hash))
            self._keep_a_log()
            run("PRAGMA synchronous = FULL")  # on disk at the end of a transaction, against a power cut too
        if run("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise ValueError(f"{self._name} is an SQLite file of something else; name another file")
        if (found := run("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
        about = dict(run("SELECT name, value FROM about").fetchall())
        if about.get("format") != str(FORMAT):
            raise ValueError(
                f"{self._name} has format {about.get('format')}, this version reads {FORMAT}; export it with the "
                f"version that wrote it and write it anew"
            )
        if about.get("tokenizer") != self.tokenizer_hash:
            raise ValueError(
                f"{self._name} was written with another tokenizer ({about.get('tokenizer')}, here "
                f"{self.tokenizer_hash}); export it as text and write it anew"
            )

    def _keep_a_log(self) -> None:
        """Switch to the write-ahead log; SQLite does not wait when several switch at once, so we do."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Say in one line what SQLite found wrong with the file."""
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:  # the latter: closed, another thread
            if "thread" in str(error):
                raise ValueError(
                    f"{self._name} belongs to the thread that opened it; open its file anew in another"
                ) from error
            raise ValueError(f"{self._name} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self._name} is damaged ({error}); restore a copy or write it anew") from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one who writes, so that what is read inside is still so when something is put."""
        with self._reported():
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:  # commits, or rolls back
                yield

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

    def copy_to(self, path: Path) -> None:
        """Write everything to a new file, which takes its name when it is whole; one's own file is left as it is."""
        if self.path is not None and path.exists() and path.samefile(self.path):
            return

        def write(fresh: Path) -> None:
            with self._reported(), closing(sqlite3.connect(fresh)) as other:
                self._connection.backup(other)
                other.execute("PRAGMA journal_mode = DELETE")  # one file, readable where nothing is written

        write_whole(path, write)

    def copy_from(self, path: Path) -> None:
        """Become a copy of another file; what was here is gone.

        Raises:
            ValueError: the file is damaged, is no memory, or belongs to another tokenizer.
            FileNotFoundError: there is none.
        """
        other = FactStore(path, self.tokenizer_hash, read_only=True)
        with self._reported(), closing(other):
            other._connection.backup(self._connection)

    def __deepcopy__(self, memo: dict[int, Any]) -> FactStore:
        """Return another that reads the same file, or holds the same facts in memory."""
        other = FactStore(self.path, self.tokenizer_hash, read_only=self.read_only)
        if self.path is None:
            with self._reported():
                self._connection.backup(other._connection)
        return other

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


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
