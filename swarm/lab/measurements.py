"""Measurements on disk, each beside the identity of what was measured, so that nothing is measured twice."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swarm.files import write_whole
from swarm.identity import refuse_other


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


def refuse_other_measured(path: Path, identity: dict[str, Any], free: Sequence[str] = ()) -> None:
    """Refuse measurements of something else in the place of one's own; damaged files are no measurements.

    Args:
        path: the file.
        identity: of what will be measured.
        free: keys of it that may differ; then it is measured anew.

    Raises:
        SwarmError: they are there.
    """
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8"))["identity"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    refuse_other(path, *({k: v for k, v in one.items() if k not in free} for one in (found, identity)))
