"""Files that are whole or not there: written beside their place, flushed, then renamed.

Owns the order of system calls that survives a kill and a power cut, for `swarm`, too.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path


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
    fresh.unlink(missing_ok=True)  # left by a writer that was killed
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


def sha256(path: Path) -> str:
    """Return the hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_tree(folder: Path) -> None:
    """Have all files of a folder, and its entries, on the disk when this returns."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's entries, on the disk when this returns."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
