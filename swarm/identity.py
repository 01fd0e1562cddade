"""Whether a folder holds this piece of work or another: the same command goes on, other settings are refused.

The identity of a piece of work is JSON-able data that decides its result: settings, seeds, hashes of what it reads.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from swarm.errors import SwarmError
from swarm.files import LOCK, FolderLock, make_folder, write_whole


def refuse_other(place: Path, found: Any, wanted: Any) -> None:
    """Refuse to go on with work of another identity.

    Args:
        place: where it is.
        found: identity of what is there, as read from JSON.
        wanted: identity of what the caller does.

    Raises:
        SwarmError: they differ; the message names the first setting that does.
    """
    if difference := next(_differences(found, json.loads(json.dumps(wanted)), ""), None):
        raise SwarmError(
            f"{place} holds work with other settings ({difference}); choose another --out or name, or remove it"
        )


def _differences(found: Any, wanted: Any, key: str) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted({*wanted, *found}):
            yield from _differences(found.get(name), wanted.get(name), f"{key}.{name}" if key else name)
    elif found != wanted:
        there, here = (json.dumps(value)[:60] for value in (found, wanted))
        yield f"{key} is {there} there and {here} here"


def is_claimed(path: Path, identity: Any) -> bool:
    """Return whether a file says that its folder holds this work; False where there is no such file.

    Raises:
        SwarmError: it holds other work, or the file is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError) as error:
        raise SwarmError(f"{path} is damaged ({error}); remove {path.parent} to start over") from error
    refuse_other(path.parent, found, identity)
    return True


def claim(path: Path, identity: Any) -> bool:
    """Write an identity into a folder that has none; return whether it was there already.

    Raises:
        SwarmError: as of `is_claimed`.
    """
    if is_claimed(path, identity):
        return True
    write_whole(path, json.dumps(identity, indent=1, sort_keys=True))
    return False


@contextmanager
def work_folder(folder: Path, kind: str) -> Iterator[None]:
    """Create and lock a work folder for the `with` block.

    Args:
        folder: where the work is written: a new one, an empty one, or one with earlier work of the same command.
        kind: the command that writes there, such as `train`.

    Raises:
        SwarmError: it cannot be written, another process writes in it, or it holds something else.
    """
    try:
        make_folder(folder)
        there = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise SwarmError(f"cannot write to {folder}: {error.strerror or error}") from error
    if there and LOCK not in there:
        raise SwarmError(f"{folder} holds something else ({', '.join(there[:3])}); choose another --out")
    with FolderLock(folder, kind):
        yield
