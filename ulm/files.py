"""Files that are whole or not there: written beside their place, flushed, then renamed.

The same order of system calls as `swarm.files`, which this package may not import.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written under another name that it loses once it is whole.

    Args:
        path: the file; its folder exists.
        write: writes the file whose path it is given.

    Raises:
        OSError: no permission or no space; nothing has changed.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)  # left by a writer that was killed
    try:
        write(fresh)
        sync(fresh)
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
