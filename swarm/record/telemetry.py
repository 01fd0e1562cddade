"""Wall-clock facts about a run: rates, host deaths, resumes, the finish.

Owns `telemetry.jsonl`, which the dashboard reads beside the journal. It is best effort: never synced, never
compared, never replayed, and a failing write is silent, because losing a rate must not stop a run. It refuses
to hold anything that decides a result; that is the journal's.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from swarm.files import Closing, LineTail
from swarm.record.journal import canonical_json

TELEMETRY_NAME = "telemetry.jsonl"
Fact: TypeAlias = dict[str, Any]
"""One line: `at_s`, `kind`, and whatever that kind tells."""


class TelemetryWriter(Closing):
    """Appends lines ``{"at_s": unix seconds, "kind": ..., ...}``; every failure to write is swallowed.

    Args:
        path: the telemetry file; a resumed run appends to what is there.
    """

    def __init__(self, path: Path) -> None:
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            size = os.fstat(self._fd).st_size
            if size and os.pread(self._fd, 1, size - 1) != b"\n":
                os.write(self._fd, b"\n")  # a killed run left half a line; keep it away from ours
        except OSError:
            self.close()

    def emit(self, kind: str, **facts: Any) -> None:
        """Append one line, stamped with the current time.

        Args:
            kind: `start`, `resume`, `commit`, `learning`, `host_death`, `host_ready`, `engine_start`, `engine_death`,
                `engine_ready`, `endpoint_*`, `interrupted`, `outage` or `finish`.
            facts: JSON-able facts; docs/concepts/journal.md lists them.
        """
        with contextlib.suppress(OSError, TypeError, ValueError):  # OSError also where no file could be opened
            os.write(self._fd, canonical_json({**facts, "at_s": round(time.time(), 6), "kind": kind}) + b"\n")

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def parse_telemetry(line: bytes) -> Fact | None:
    """Return the fact on one line, or None when the line is no JSON object with a kind and a time."""
    try:
        fact = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(fact, dict) and isinstance(fact.get("kind"), str) and isinstance(fact.get("at_s"), int | float)
    return fact if whole else None


def read_telemetry(path: Path) -> Iterator[Fact]:
    """Yield the facts of a telemetry file in order; unreadable lines are skipped, a missing file is empty."""
    yield from filter(None, map(parse_telemetry, LineTail(path).poll()))


def endpoint_lines(path: Path) -> list[str]:
    """Return what a summary tells of endpoints: notes, once each, and tokens that the journal does not charge."""
    facts = [fact for fact in read_telemetry(path) if fact["kind"].startswith("endpoint_")]
    notes = dict.fromkeys(str(fact.get("text", "")) for fact in facts if fact["kind"] == "endpoint_note")

    def total(*names: str) -> int:
        found = (fact.get(name) for fact in facts for name in names)
        return sum(number for number in found if type(number) is int)

    trial, tries = total("prompt_tokens", "generated_tokens"), total("tries")
    return [
        *notes,
        *([f"{trial:,} tokens of trial requests at the start, not charged"] if trial else []),
        *([f"{tries:,} tries got no answer: {total('most_tokens'):,} tokens at most, not charged"] if tries else []),
    ]
