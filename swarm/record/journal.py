"""The journal: an append-only, hash-chained file of what happened in a run, one JSON record per line.

Owns the bytes on disk: the form and hash of a line, the durable writer, the streaming reader, and the line between a
torn tail (a write that was cut short: harmless, dropped) and corruption (anything else that does not verify: an error
that names the line). What a record holds is in `swarm.record.records`, wall-clock facts in `swarm.record.telemetry`.

A line is `{"hash":"...",` and then the record's other keys, sorted, without spaces; `hash` is the sha256 of those bytes
behind the comma. So a line is checked as it stands, and written and read without a second look at its keys.
"""

import collections
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Self

from swarm.errors import SwarmError
from swarm.files import Closing, FolderLock, LineTail, sync
from swarm.process.progress import progress
from swarm.record.records import FORMAT, Header, Record, check_record
from swarm.text import command

JOURNAL_NAME = "journal.jsonl"
GENESIS = "0" * 64
"""`prev` of the first record."""

GROUP_S = 0.05
"""How much a power cut may lose of a journal that is written in groups."""

_OPENING, _CLOSING = b'{"hash":"', b'",'
_HASHED = len(_OPENING) + len(GENESIS) + len(_CLOSING)
"""Where the hashed bytes of a line begin."""

_COMMIT_KINDS = frozenset({"tick", "episode_end", "exchange", "change", "end"})
"""Made durable at once under `tick` durability; `header` and `episode` ride with the next of these."""
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class JournalError(SwarmError):
    """A journal that does not verify; the message names the line."""


def canonical_json(value: Any) -> bytes:
    """Return the one byte form of JSON-able data: keys sorted, no spaces, UTF-8.

    Lone surrogates, which UTF-8 cannot carry, are written as JSON escapes, so that any text can be recorded.

    Raises:
        TypeError, ValueError: the data is not JSON-able or holds NaN or infinity.
    """
    return _ENCODER.encode(value).encode("utf-8", "backslashreplace")


def state_hash(state: Any) -> str:
    """Return the sha256 (hex) of the canonical JSON of a world's `state()`.

    Raises:
        TypeError, ValueError: the state is not JSON-able or holds NaN or infinity.
    """
    return hashlib.sha256(canonical_json(state)).hexdigest()


class JournalReader:
    """A streaming reader that verifies the chain as it goes and can be polled while the file grows.

    Args:
        path: the journal file.
        verify: check hashes, links and numbering; without it only broken JSON is noticed.

    Attributes:
        tail: the position in the file.
        last_hash: hash of the last record read, `GENESIS` before the first.
    """

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        self.path = path
        self.verify = verify
        self.tail = LineTail(path)
        self.last_hash = GENESIS

    def poll(self) -> Iterator[Record]:
        """Yield the records that are complete by now; a torn last line is left alone.

        Raises:
            JournalError: a whole line does not verify; the message names it.
            SwarmError: the file cannot be read.
        """
        try:
            for line in self.tail.poll():
                yield self._admit(line)
        except OSError as error:
            raise SwarmError(f"cannot read {self.path}: {error.strerror}") from error

    def _admit(self, line: bytes) -> Record:
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._broken("is not JSON") from error
        if not isinstance(data, dict):
            raise self._broken("is not a JSON object")
        is_first = self.tail.num_lines == 1
        if is_first and data.get("kind") == "header" and data.get("format") != FORMAT:
            raise JournalError(
                f"{self.path} has journal format {data.get('format')!r}, and this version of swarm reads and writes "
                f"{FORMAT} alone (see CHANGELOG.md): start the run anew in another folder"
            )
        if self.verify:
            self._verify(data, line)
        try:
            record = check_record(data)
        except ValueError as error:
            raise self._broken(f"is none of this version: {error}") from error
        if is_first != (record["kind"] == "header"):
            raise self._broken("is out of place: a journal has one header, first")
        self.last_hash = str(record.get("hash"))
        return record

    def _verify(self, data: dict[str, Any], line: bytes) -> None:
        if line.endswith(b"\r\n"):
            raise self._broken(
                "ends in CRLF: something, such as a transfer as text, changed its line ends; take back a copy that was "
                "made byte by byte, or turn CRLF into LF"
            )
        actual = hashlib.sha256(line[_HASHED:-1]).hexdigest()
        if line[:_HASHED] != b"".join((_OPENING, actual.encode(), _CLOSING)):
            raise self._broken(f"was altered: its hash is {actual}, it says {data.get('hash')}")
        seq = self.tail.num_lines - 1
        if type(data.get("seq")) is not int or data["seq"] != seq:
            raise self._broken(f"has seq {data.get('seq')!r} where {seq} must stand")
        if (prev := data.get("prev")) != self.last_hash:
            raise self._broken(f"does not follow the one before it: prev is {prev!r}, not {self.last_hash!r}")

    def _broken(self, what: str) -> JournalError:
        return JournalError(f"{self.path}, line {self.tail.num_lines}: the record {what}")


def _may_begin_journal(path: Path) -> bool:
    """Return whether a file without a whole line can be a journal whose first record was torn."""
    with path.open("rb") as file:
        return _OPENING.startswith(file.read(len(_OPENING)).rstrip(b"\0"))  # zeros are what a power cut leaves


def read_header(path: Path) -> Header | None:
    """Return the first record of a journal, None where not even that is whole.

    Raises:
        JournalError: it is damaged, or of another version.
        SwarmError: there is no such file, or it cannot be read.
    """
    header = next(read_records(path), None)
    return header if header is not None and header["kind"] == "header" else None


def read_records(path: Path, verify: bool = True) -> Iterator[Record]:
    """Yield the records of a journal one by one, never holding the file whole.

    Args:
        path: the journal file.
        verify: check the hash chain.

    Raises:
        JournalError: a line other than a torn last one does not verify; the message names it.
        SwarmError: there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise SwarmError(f"no journal at {path}; name the folder of a run")
    reader = JournalReader(path, verify=verify)
    with progress(f"reading {path}", path.stat().st_size / 1e6, "MB") as work:
        for record in reader.poll():
            yield record
            work.done = reader.tail.offset / 1e6


class JournalWriter(Closing):
    """Appends records to a new journal and holds the lock on its folder until `close`.

    Each record is one `os.write` to a descriptor opened with O_APPEND, so killing the process leaves whole
    lines plus at most one torn last line. Under `tick` durability all records but header and episode
    are on disk when `append` returns. Under `group` a background thread syncs every GROUP_S: a power cut
    loses at most that much (plus the sync in flight), a killed process loses nothing.

    Args:
        path: the journal file; its folder exists, the file does not or is empty.
        durability: `tick` or `group`.
        before: reads the records that are there, where the journal goes on; see `resume`.
        owner: the command whose folder it is.

    Attributes:
        next_seq: number of the next record.
        last_hash: hash of the last record, `GENESIS` when there is none.

    Raises:
        SwarmError: the journal already has records, the folder is locked or not writable.
    """

    def __init__(
        self,
        path: Path,
        durability: Literal["tick", "group"] = "tick",
        before: JournalReader | None = None,
        owner: str = "run",
    ) -> None:
        self.path = path
        self.next_seq, self.last_hash, self._size = 0, GENESIS, 0
        with ExitStack() as opened:
            opened.enter_context(FolderLock(path.parent, owner))
            if before is not None:
                collections.deque(before.poll(), maxlen=0)
                self.next_seq, self.last_hash, self._size = before.tail.num_lines, before.last_hash, before.tail.offset
                if not self._size and not _may_begin_journal(path):  # it would be cut to nothing
                    raise JournalError(f"{path} is no journal of a run; choose another --out")
            elif path.exists() and path.stat().st_size:
                raise SwarmError(f"{path} already holds a run: set --out, or {command('resume', path.parent)}")
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
                opened.callback(os.close, self._fd)
                os.ftruncate(self._fd, self._size)
                os.fsync(self._fd)
                sync(path.parent)  # a new file is only durable once its folder entry is
            except OSError as error:
                raise self._cannot_write(error) from error
            self._opened = opened.pop_all()
        self._closed = False
        self._sync_error: OSError | None = None
        self._dirty = threading.Event()
        self._closing = threading.Event()
        self._syncer: threading.Thread | None = None
        if durability == "group":
            self._syncer = threading.Thread(target=self._sync_in_groups, name="journal-sync", daemon=True)
            self._syncer.start()

    @classmethod
    def resume(cls, path: Path, durability: Literal["tick", "group"] = "tick") -> Self:
        """Open an existing journal for more records: lock, verify the chain, cut off a torn last line.

        Raises:
            JournalError: something other than the torn tail is broken; the message names the line.
            SwarmError: there is no journal, or another process is writing it.
        """
        if not path.is_file():
            raise SwarmError(f"no journal at {path}; name the folder of a run")
        return cls(path, durability, JournalReader(path))

    def append(self, record: Record) -> str:
        """Write one record and return its hash.

        If it fails, nothing of the record stays in the file and the writer may be used again; only a failed
        sync leaves the record, whole but perhaps not yet durable.

        Args:
            record: without `seq`, `prev` and `hash`, which are added here.

        Raises:
            SwarmError: no space, no permission, or a failing disk.
            TypeError, ValueError: the record is not JSON-able or holds NaN.
        """
        if self._closed:
            raise SwarmError(f"{self.path} is closed; nothing more can be recorded")
        if self._sync_error is not None:
            raise self._cannot_write(self._sync_error) from self._sync_error
        hashed = canonical_json({**record, "prev": self.last_hash, "seq": self.next_seq})[1:]
        digest = hashlib.sha256(hashed).hexdigest()
        self._write(b"".join((_OPENING, digest.encode("ascii"), _CLOSING, hashed, b"\n")), digest)
        if self._syncer is not None:
            self._dirty.set()
        elif record["kind"] in _COMMIT_KINDS:
            self._sync()
        return digest

    def _write(self, line: bytes, digest: str) -> None:
        was = (self.next_seq, self.last_hash, self._size)
        try:
            rest = line
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            self.next_seq, self.last_hash, self._size = was[0] + 1, digest, was[2] + len(line)
        except BaseException as error:
            # Also on KeyboardInterrupt: a half-written line followed by a further record would be corruption.
            self.next_seq, self.last_hash, self._size = was
            try:
                os.ftruncate(self._fd, self._size)
            except OSError:
                self._closed = True  # the torn line cannot be removed, so nothing may follow it
            if isinstance(error, OSError):
                raise self._cannot_write(error) from error
            raise

    def _sync(self) -> None:
        try:
            if self._sync_error is not None:
                raise self._sync_error
            _sync_data(self._fd)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _sync_in_groups(self) -> None:
        while not self._closing.is_set():
            self._dirty.wait()
            self._closing.wait(GROUP_S)
            self._dirty.clear()
            try:
                _sync_data(self._fd)
            except OSError as error:
                self._sync_error = error  # told to the caller by the next append or by close
                return

    def _cannot_write(self, error: OSError) -> SwarmError:
        return SwarmError(
            f"cannot write {self.path}: {error.strerror}; mend that, then: {command('resume', self.path.parent)}"
        )

    def close(self) -> None:
        """Make everything durable, close the file and give the folder free; idempotent.

        Raises:
            SwarmError: the last sync failed.
        """
        if self._fd < 0:
            return
        self._closed = True
        self._closing.set()
        self._dirty.set()
        if self._syncer is not None:
            self._syncer.join()
        try:
            self._sync()
        finally:
            self._fd = -1
            self._opened.close()
