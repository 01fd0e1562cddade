"""Files and folders that are whole or not there: written beside their place, flushed, then renamed.

Owns the order of system calls that survives a kill and a power cut, for `swarm`, too. What is written has the mode that
the umask asks for, whatever the library that wrote it thinks of others (safetensors makes files of mode 600).
"""

import glob
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path


class TakenError(ValueError):
    """A folder that holds something else than what is to be written there."""


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
    fresh = _fresh(path)
    try:
        fresh.touch()
        mode = fresh.stat().st_mode
        if callable(data):
            data(fresh)
        else:
            fresh.write_bytes(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)
        _set_mode(fresh, mode)
        sync(fresh)
        if create:
            _link(fresh, path)
        else:
            fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync(path.parent)


def _link(fresh: Path, path: Path) -> None:
    """Give a file its name, which nothing may have."""
    try:
        os.link(fresh, path)  # unlike a rename, this fails where something is
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        fresh.replace(path)


@contextmanager
def whole_folder(folder: Path, ours: Collection[str] = ()) -> Iterator[Path]:
    """Yield an empty folder that takes its name when the `with` block ends, and is gone when that raises.

    Killed at any point, a reader finds the old folder or the new one, complete: where there is none, at `previous_of`.

    Args:
        folder: new or empty; parents are made.
        ours: names of files that may be there; they are replaced.

    Raises:
        TakenError: there is something else.
        OSError: no permission or no space; nothing has changed.
    """
    target, previous = folder.resolve(), previous_of(folder)  # beside the real folder where `folder` is a link
    refuse_taken(folder, ours)
    make_folder(target.parent)
    fresh = _fresh(target)
    try:
        fresh.mkdir()
        yield fresh
        settle(fresh)
        refuse_taken(folder, ours)
        # A folder cannot be renamed over a full one. Between these two renames there is none and readers take
        # `previous`, so there is always a complete one to find.
        if target.exists() and any(target.iterdir()):
            shutil.rmtree(previous, ignore_errors=True)
            target.rename(previous)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    sync(target.parent)
    if ours:
        shutil.rmtree(previous, ignore_errors=True)


def previous_of(folder: Path) -> Path:
    """Return where the old folder is while a new one takes its place."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.previous")


def refuse_taken(folder: Path, ours: Collection[str] = ()) -> None:
    """Refuse a folder to write in that is neither new, empty nor ours.

    Args:
        folder: where to write.
        ours: names of files that may be there.

    Raises:
        TakenError: a file is in the way, or one that is none of ours is in it.
    """
    if folder.exists() and not folder.is_dir():
        raise TakenError(f"cannot write {folder}: a file is in the way; choose another folder")
    if folder.is_dir() and (others := sorted(path.name for path in folder.iterdir() if path.name not in ours)):
        raise TakenError(f"{folder} is not empty (it holds {', '.join(others[:3])}); choose another folder")


def make_folder(folder: Path) -> None:
    """Make a folder, with its parents, that is on the disk when this returns; it may be there already."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync(made.parent)


def _fresh(path: Path) -> Path:
    """Return where something is written before it takes its name; what writers that were killed left there goes."""
    stem = f".{path.name}."
    for left in path.parent.glob(f"{glob.escape(stem)}*.new"):
        pid = left.name[len(stem) : -len(".new")]
        if pid == str(os.getpid()) or (pid.isdigit() and not _is_alive(int(pid))):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f"{stem}{os.getpid()}.new")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _set_mode(path: Path, mode: int) -> None:
    if path.stat().st_mode != mode:
        path.chmod(stat.S_IMODE(mode))


def sha256(path: Path) -> str:
    """Return the hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settle(folder: Path) -> None:
    """Give the files of a folder the mode that the umask asks for, and have all of it on the disk."""
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            _set_mode(path, mode)
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's entries, on the disk when this returns."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
