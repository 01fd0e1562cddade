"""Files that users name, the lines of a file that grows, and the lock on a folder, which says whose it is.

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
from ulm.files import make_folder as make_folder
from ulm.files import sync as sync
from ulm.files import write_whole as write_whole

LOCK = "lock"


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


def path_in(folder: Path, name: str) -> Path:
    """Return the path that a setting names: relative to the folder of its file, `~` being the user's home.

    Raises:
        SwarmError: it can be no path.
    """
    try:
        path = Path(name).expanduser()
    except RuntimeError as error:
        raise SwarmError(f"{name}: {error}; write the whole path") from error
    if "\0" in name:
        raise SwarmError(f"{name!r} is no path: it holds a zero byte")
    return folder / path


class FolderLock(Closing):
    """The exclusive right to write in a folder, held until `close` or the end of the process.

    The file stays behind on purpose: removing it would let two processes lock two different files. It says whose the
    folder is, too.

    Args:
        folder: it exists.
        kind: the command that writes there, such as `run`.

    Raises:
        SwarmError: another process holds it, another command has written there, or the folder is missing or not
            writable.
    """

    def __init__(self, folder: Path, kind: str = "run") -> None:
        path = folder / LOCK
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise SwarmError(f"cannot write in {folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid, _ = _holder(self._fd)
            os.close(self._fd)
            raise SwarmError(
                f"{folder} is being written by another process (pid {pid}); wait for it or stop it first"
            ) from error
        except OSError as error:
            os.close(self._fd)
            raise SwarmError(f"cannot lock {path}: {error.strerror}; use a file system with flock for --out") from error
        pid, before = _holder(self._fd)
        if not pid.isdigit() or before not in ("", kind):
            os.close(self._fd)
            whose = f"what `swarm {before}` wrote" if pid.isdigit() else f"a file {LOCK} of something else"
            raise SwarmError(f"{folder} holds {whose}; choose another --out")
        with suppress(OSError):  # on a full disk the lock itself still holds
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()} {kind}\n".encode("ascii"), 0)

    def close(self) -> None:
        """Let others write; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _holder(fd: int) -> tuple[str, str]:
    """Return the process that locked a folder last, and what it wrote there."""
    pid, _, kind = os.pread(fd, 32, 0).decode("ascii", "replace").strip().partition(" ")
    return pid or "0", kind


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a folder."""
    try:
        with (folder / LOCK).open("rb") as lock:
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
