"""Measurements on disk, each beside the identity of what was measured, so that nothing is measured twice.

Owns how such files are written and recognised. It refuses to know what they hold.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["read_measured", "write_json", "write_measured"]


def write_json(path: Path, data: Any) -> None:
    """Write JSON so that a reader finds the old file or the new one, whenever the writer is killed."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(data, indent=1, sort_keys=True), encoding="utf-8")
    fresh.replace(path)


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
