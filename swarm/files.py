"""Files that are whole or not there, the lines of a file that grows, and the lock on a folder.

Owns the order of system calls that survives a kill and a power cut. What stands in a file is the caller's business.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from swarm.errors import SwarmError

_LOCK = "lock"


def write_whole(path: Path, data: bytes | str | Callable[[Path], object], *, create: bool = False) -> None:
    """Write a file so that whoever reads it, at any time, finds all of it or what was there before.

    Args:
        path: the file; its folder exists.
        data: what to write, text as UTF-8; or a function that writes the file whose path it is given.
        create: the file must be new; of several processes that create it at once, one succeeds.

    Raises:
        FileExistsError: `create`, and there is such a file.
        OSError: no permission or no space; nothing has changed.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        if callable(data):
            data(fresh)
        else:
            fresh.write_bytes(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)
        sync(fresh)
        if create:
            os.link(fresh, path)  # unlike a rename, this fails where something is
        else:
            fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync(path.parent)


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


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's entries, on the disk when this returns."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class FolderLock:
    """The exclusive right to write in a folder, held until `release` or the end of the process.

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
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode("ascii"), 0)
        except OSError:
            # The pid only makes the message above friendlier; on a full disk the lock itself still holds.
            pass

    def release(self) -> None:
        """Let others write; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a folder."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


class LineTail:
    """Reads the whole lines of a growing file, remembering where it stopped.

    Attributes:
        offset: bytes read so far, always at the start of a line.
        num_lines: whole lines read so far.
        torn: whether the last poll met bytes after the last newline.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.num_lines = 0
        self.torn = False

    def poll(self) -> Iterator[bytes]:
        """Yield the lines that are complete by now, newline included; none when the file does not exist yet.

        A line without its newline is left for a later poll, which reads it anew: its writer may cut it back.
        """
        self.torn = False
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    self.torn = True
                    return
                self.offset += len(line)
                self.num_lines += 1
                yield line
