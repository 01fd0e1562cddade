"""Measurements on disk, each beside the identity of what was measured, so that nothing is measured twice.

Owns how such files are written and recognised, and the folder that they are in. It refuses to know what they hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from swarm.errors import SwarmError
from swarm.files import FolderLock, write_whole

__all__ = ["read_measured", "refuse_other_identity", "work_folder", "write_json", "write_measured"]


def write_json(path: Path, data: Any) -> None:
    """Write JSON so that a reader finds the old file or the new one, whenever the writer is killed."""
    write_whole(path, json.dumps(data, indent=1, sort_keys=True))


def write_measured(path: Path, identity: dict[str, Any], measured: Any) -> None:
    """Write measurements of what `identity` says."""
    write_json(path, {"identity": identity, "measured": measured})


def read_measured(path: Path, identity: dict[str, Any]) -> Any | None:
    """Return earlier measurements of the same, or None where there are none that can be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record["measured"] if record["identity"] == json.loads(json.dumps(identity)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def work_folder(folder: Path, known: Sequence[str]) -> Iterator[None]:
    """Have a folder, made if need be, and nobody else writing into it.

    Args:
        folder: where the work is written.
        known: names or patterns of what the caller writes; a folder that holds anything must hold one of them.

    Raises:
        SwarmError: it cannot be written, somebody else is at it, or it holds something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SwarmError(f"cannot write to {folder}: {error.strerror or error}") from error
    there = sorted(path.name for path in folder.iterdir() if path.name != "lock")
    if there and not any(path.match(name) for path in folder.iterdir() for name in known):
        raise SwarmError(f"{folder} holds something else ({', '.join(there[:3])}); choose another --out")
    lock = FolderLock(folder)
    try:
        yield
    finally:
        lock.release()


def refuse_other_identity(path: Path, identity: dict[str, Any], free: Sequence[str] = ()) -> None:
    """Refuse measurements of something else in the place of one's own; damaged files are no measurements.

    Args:
        path: the file.
        identity: of what will be measured.
        free: keys of it that may differ; then it is measured anew.

    Raises:
        SwarmError: they are there.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if not isinstance(found, dict):
        return
    wanted = json.loads(json.dumps(identity))
    if any(found.get(key) != value for key, value in wanted.items() if key not in free):
        raise SwarmError(f"{path} was measured with other settings; choose another --out, or remove {path.parent}")
