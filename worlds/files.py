"""Files that worlds read: once per process, for every episode makes a world of its own."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from worlds.protocol import WorldError

T = TypeVar("T")


def read_once(parse: Callable[..., T], file: str | Path, *details: Any) -> T:
    """Return what `parse(path, text, *details)` makes of a file, kept until the file changes.

    Args:
        parse: a function of a module; it may raise `WorldError`.
        file: the file, in UTF-8.
        details: whatever else decides the result; hashable.

    Raises:
        WorldError: the file cannot be read; or as `parse` raises it.
    """
    path = Path(file)
    try:
        found: T = _parsed(parse, path, path.stat().st_mtime_ns, details)
    except (OSError, UnicodeDecodeError) as error:
        raise WorldError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    return found


@lru_cache(maxsize=16)
def _parsed(parse: Callable[..., Any], path: Path, modified_ns: int, details: tuple[Any, ...]) -> Any:
    return parse(path, path.read_text(encoding="utf-8-sig"), *details)
