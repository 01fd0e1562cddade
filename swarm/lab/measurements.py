"""Measurements as Ray tasks, each kept on disk beside the identity of what was measured: nothing is measured twice.

A lab lists its measurements, trainings among them, and hands them to `measure_all`; a command that was stopped goes on
with what is missing.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.actors.ray_tasks import run_tasks
from swarm.config.training import resolve_device
from swarm.errors import SwarmError
from swarm.files import make_folder, write_whole
from swarm.identity import refuse_other
from swarm.process.progress import duration, progress


def write_json(path: Path, data: Any) -> None:
    """Write JSON so that a reader finds the old file or the new one, whenever the writer is killed."""
    write_whole(path, json.dumps(data, indent=1, sort_keys=True))


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement.

    Attributes:
        title: what is measured.
        file: where the result is kept.
        identity: what decides it.
        call: arguments of the work, but the device.
    """

    title: str
    file: Path
    identity: dict[str, Any]
    call: tuple[Any, ...]

    def _record(self) -> dict[str, Any]:
        """Return what stands in the file; nothing where it is missing or damaged."""
        try:
            record = json.loads(self.file.read_text(encoding="utf-8"))
            return {"identity": dict(record["identity"]), "measured": record["measured"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def read(self) -> Any | None:
        """Return earlier measurements of the same, or None where there are none that can be read."""
        record = self._record()
        return record["measured"] if record.get("identity") == json.loads(json.dumps(self.identity)) else None

    def refuse_other(self, free: Sequence[str]) -> None:
        """Refuse measurements of something else in this place; where only the keys `free` differ it is measured anew.

        Raises:
            SwarmError: they are there.
        """
        both = (self._record().get("identity", self.identity), self.identity)
        refuse_other(self.file, *({k: v for k, v in one.items() if k not in free} for one in both))


def measure_all(
    doing: str,
    wanted: Sequence[Measurement],
    work: Callable[..., Any],
    echo: Callable[[str], None],
    *,
    device: str,
    about: Callable[[Any], str] = lambda measured: "",
) -> list[Any]:
    """Make the measurements that are missing, as many at a time as Ray has processors; return all, in order.

    Args:
        doing: what is done, for messages, such as `measuring`.
        wanted: the measurements.
        work: `work(*call, device)` returns JSON-able data; it and its arguments are picklable.
        echo: receives progress lines.
        device: as of `run_tasks`.
        about: what the line about a new result says of it.

    Raises:
        SwarmError: Ray or the device is missing, or measurements failed; the others are made and kept.
    """
    found = [one.read() for one in wanted]
    missing = [place for place, measured in enumerate(found) if measured is None]
    failed: list[str] = []

    def done(index: int, outcome: Mapping[str, Any]) -> None:
        place = missing[index]
        one = wanted[place]
        if "error" in outcome:
            failed.append(f"{one.title}: {outcome['error']}")
            return
        make_folder(one.file.parent)
        write_json(one.file, {"identity": one.identity, **outcome})
        found[place] = one.read()  # as the next call of the command finds it
        shown_work.advance()
        echo(f"{one.title}{about(found[place])} ({shown_work.pace()})")

    if missing:
        resolve_device(device)
        echo(f"{doing}: {len(missing)} of {len(wanted)}")
        calls = [(work, *wanted[place].call) for place in missing]
        titles = [f"{doing} {wanted[place].title}" for place in missing]
        with progress(doing, len(missing), "tasks", say=echo) as shown_work:
            run_tasks(_attempt, calls, done, titles=titles, device=device)
            echo(f"{doing}: {shown_work.done:.0f} done in {duration(time.monotonic() - shown_work.opened_s)}")
    if failed:
        raise SwarmError("\n".join(failed))
    return found


def _attempt(work: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    try:
        return {"measured": work(*arguments)}
    except SwarmError as error:
        return {"error": str(error)}


def shown(found: Mapping[str, Any], form: str = ".3f") -> str:
    """Return an estimate with its interval, as results files keep them, as text."""
    return f"{found['estimate']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"
