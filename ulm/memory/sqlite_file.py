"""A memory on disk, in SQLite: what every file of that kind has in common.

- Every change is one transaction, on disk when the call returns; killing a process tears nothing.
- One process writes at a time (SQLite's lock, which another waits for), any number read, each a consistent state
  (write-ahead log).
- A file says what it is, in which format, and whom it belongs to; others are refused in one line.
- Knows no tables: those are a subclass's.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from ulm.files import write_whole

WAIT_S = 30.0
"""How long one waits for another that writes."""


class SqliteFile:
    """A file of a memory. One object belongs to the thread that made it; others open the file anew.

    Args:
        path: the file; made where there is none. None keeps everything in memory.
        about: further entries of the file's table `about`, which another file of the kind may have otherwise.
        read_only: open an existing file for reading alone.

    Attributes:
        what: what the file is called in messages.
        application_id: marks the file as ours (SQLite's `application_id`).
        format: of its tables.
        tables: statements that make them, parted by `;` at the end of a line.

    Raises:
        ValueError: the file is damaged, is something else, or has another format or other entries in `about`.
        FileNotFoundError: there is no file, and it is for reading alone.
    """

    what: ClassVar[str]
    application_id: ClassVar[int]
    format: ClassVar[int]
    tables: ClassVar[str]

    def __init__(self, path: Path | None, about: Mapping[str, str], *, read_only: bool = False) -> None:
        self.path = path
        self.about = about
        self.read_only = read_only
        self._name = f"the {self.what}" if path is None else f"the {self.what} {path}"
        if read_only and (path is None or not path.is_file()):
            raise FileNotFoundError(f"there is no {self.what} at {path}")
        mode = "memory" if path is None else "ro" if read_only else "rwc"
        address = f"file:{self.what}" if path is None else path.absolute().as_uri()
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
            with SqliteFile.writing(self):  # two that open a new file at once must not both fill it
                if (
                    run("PRAGMA application_id").fetchone()[0] == 0
                    and not run("SELECT * FROM sqlite_master").fetchall()
                ):
                    run("CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
                    for statement in self.tables.strip().split(";\n"):
                        run(statement)
                    run(f"PRAGMA application_id = {self.application_id}")
                    entries = {"format": str(self.format), **self.about}
                    self._connection.executemany("INSERT INTO about VALUES (?, ?)", entries.items())
            self._keep_a_log()
            run("PRAGMA cache_size = -65536")  # 64 MiB at most, taken as pages are read
            run("PRAGMA synchronous = FULL")  # on disk at the end of a transaction, against a power cut too
        if run("PRAGMA application_id").fetchone()[0] != self.application_id:
            raise ValueError(f"{self._name} is an SQLite file of something else; name another file")
        self._check()
        about = dict(run("SELECT name, value FROM about").fetchall())
        if about.get("format") != str(self.format):
            raise ValueError(
                f"{self._name} has format {about.get('format')}, this version reads {self.format}; export it with the "
                f"version that wrote it and write it anew"
            )
        for name, value in self.about.items():
            if about.get(name) != value:
                raise ValueError(
                    f"{self._name} was written with another {name} ({about.get(name)}, here {value}); export it as "
                    f"text and write it anew"
                )

    def _check(self) -> None:
        """Refuse a file that is damaged, as far as opening it should find out."""
        if (found := self._connection.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)

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
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise ValueError(
                    f"{self._name} is being written by another process, which was not done within {WAIT_S:g} s; "
                    f"try again when it is"
                ) from error
            raise ValueError(f"{self._name} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self._name} is damaged ({error}); restore a copy or write it anew") from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one who writes, so that what is read inside is still so when something is written."""
        with self._reported():
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:  # commits, or rolls back
                yield

    @property
    def is_writing(self) -> bool:
        """Whether a transaction is open, which may still be rolled back."""
        return self._connection.in_transaction

    def fold_log(self) -> None:
        """Take the write-ahead log into the file, so that its bytes are all there is; not while somebody reads."""
        with self._reported():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def copy_to(self, path: Path) -> None:
        """Write everything to a new file, which takes its name when it is whole; one's own file is left as it is."""
        if self.path is not None and path.exists() and path.samefile(self.path):
            return

        def write(fresh: Path) -> None:
            with self._reported(), closing(sqlite3.connect(fresh)) as other:
                self._connection.backup(other)
                other.execute("PRAGMA journal_mode = DELETE")  # one file, readable where nothing is written

        write_whole(path, write)

    def again(self, path: Path | None, *, read_only: bool) -> Self:
        """Return another of one's kind."""
        raise NotImplementedError

    def copy_from(self, path: Path) -> None:
        """Become a copy of another file; what was here is gone.

        Raises:
            ValueError: the file is damaged, is something else, or does not belong here.
            FileNotFoundError: there is none.
        """
        other = self.again(path, read_only=True)
        with self._reported(), closing(other):
            other._connection.backup(self._connection)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return another that reads the same file, or holds the same in memory."""
        other = self.again(self.path, read_only=self.read_only)
        if self.path is None:
            with self._reported():
                self._connection.backup(other._connection)
        return other

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()
