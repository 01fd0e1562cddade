"""Files that are whole or not there, the lines of a file that grows, and the lock on a folder.

What stands in a file is the caller's business. The way to write one whole is that of `ulm.files`, for both packages.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from swarm.errors import SwarmError
from ulm.files import sync as sync
from ulm.files import write_whole as write_whole

_LOCK = "lock"


class Closing:
    """Something with a `close` that the end of a `with` block calls."""

    def close(self) -> None:
        """Give back what it holds; idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_text(what: str, file: Path, encoding: str = "utf-8") -> str:
    """Return the text of a file that a user named.

    Args:
        what: begins the message: which setting names the file.
        file: where it is.
        encoding: of the text.

    Raises:
        SwarmError: it is missing, cannot be read or is no such text.
    """
    try:
        return file.read_text(encoding=encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise SwarmError(f"{what}: cannot read {file} ({error})") from error


class FolderLock(Closing):
    """The exclusive right to write in a folder, held until `close` or the end of the process.

    The file stays behind on purpose: removing it would let two processes lock two different files.

    Raises:
        SwarmError: another process holds it, or the folder is missing or not writable.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / _LOCK
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise SwarmError(f"cannot write in {folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise SwarmError(
                f"{folder} is being written by another process (pid {holder}); wait for it or stop it first"
            ) from error
        except OSError as error:
            os.close(self._fd)
            raise SwarmError(f"cannot lock {path}: {error.strerror}; use a file system with flock for --out") from error
        with suppress(
            OSError
        ):  # the pid only makes that message friendlier; on a full disk the lock itself still holds
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode("ascii"), 0)

    def close(self) -> None:
        """Let others write; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a folder."""
    try:
        with (folder / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False


@dataclass(slots=True)
class LineTail:
    """Reads the whole lines of a growing file, remembering where it stopped.

    Attributes:
        path: the file; it need not exist.
        offset: bytes read so far, always at the start of a line.
        num_lines: whole lines read so far.
    """

    path: Path
    offset: int = 0
    num_lines: int = 0

    def poll(self) -> Iterator[bytes]:
        """Yield the lines that are complete by now, newline included; none when the file does not exist yet.

        A line without its newline is left for a later poll, which reads it anew: its writer may cut it back.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                self.num_lines += 1
                yield line
