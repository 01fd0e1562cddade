"""What the records of a training say: curves, rate of convergence, alarms. Pure functions of the list of records.

Names that objectives report, beside those of `swarm.train.loop.run_training`; each is optional:

- `loss_*`, `bits_*`: losses by kind; `share_*`: shares of the gradient; `level_*`: of the curriculum
- `reads_*`: reads of the memory by kind; `ltm_hit_rate`, `routed_token_ratio`, `avg_surprisal_routed`, `LTM_enabled`
- `consolidated`, `rejected`: consolidations accepted and rejected since the line before
- `padding_share`; `end_rate`, the share of generated samples that end by the end token; `sample`, one of them
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from swarm.process.progress import duration

Record = dict[str, Any]
Points = list[tuple[int, float]]

IDLE_STEPS = 500
"""After so many steps without a read, a memory counts as one that never fires."""

LEAST_END_RATE = 0.9
LEAST_TRIED = 10
"""Consolidations before it says something that all or none were rejected."""

SILENCE_FACTOR = 5.0
"""Times the usual distance of two records after which the next one is overdue."""

LEAST_SILENCE_S = 60.0


class Alarm(NamedTuple):
    """What is wrong: `name` stays the same while it lasts, `text` says it."""

    name: str
    text: str


def add_record(records: list[Record], record: Record) -> None:
    """Append a line of metrics; it replaces those of steps that are taken again after a kill."""
    while records and records[-1]["step"] >= record["step"]:
        records.pop()
    records.append(record)


def curves(records: Iterable[Record], *names: str) -> dict[str, Points]:
    """Return (step, value) of each metric with such a name; a name that ends with `_` stands for all that begin so."""
    starts = tuple(name for name in names if name.endswith("_"))
    found: dict[str, Points] = {}
    for record in records:
        for name, value in record.items():
            is_wanted = name in names or name.startswith(starts)
            if is_wanted and isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(name, []).append((record["step"], value))
    return found


def total(records: Iterable[Record], name: str) -> float:
    """Return the sum of a metric that counts what happened since the line before."""
    return sum(value for _, value in curves(records, name).get(name, ()))


def convergence(points: Points) -> float | None:
    """Return the change per 1,000 steps over the last quarter of the steps, by least squares; None of two points."""
    recent = [(step, value) for step, value in points if step >= 0.75 * points[-1][0] and math.isfinite(value)]
    return statistics.linear_regression(*zip(*recent, strict=True)).slope * 1000 if len(recent) >= 3 else None


def longest_silence_s(records: Sequence[Record]) -> float | None:
    """Return after how many seconds the next record is overdue; None where no record says how long the steps took."""
    times = [0.0, *(value for _, value in curves(records, "seconds").get("seconds", ()))]
    gaps = [after - before for before, after in pairwise(times) if after > before]
    return max(LEAST_SILENCE_S, SILENCE_FACTOR * statistics.median(gaps)) if gaps else None


def alarms(records: Sequence[Record], silent_s: float = 0.0) -> list[Alarm]:
    """Return what is wrong with a training.

    Args:
        records: lines of metrics by step.
        silent_s: seconds since the last one, 0 of a training that has ended.
    """
    return [Alarm(*found) for found in _alarms(records, silent_s)] if records else []


def _alarms(records: Sequence[Record], silent_s: float) -> Iterator[tuple[str, str]]:
    last = records[-1]
    for name, points in curves([last], "loss", "loss_", "bits_").items():
        if not math.isfinite(points[0][1]):
            yield name, f"{name} is {points[0][1]}"
    if last.get("LTM_enabled", True):
        since = last["step"] - IDLE_STEPS
        for name, points in curves(records, "reads_", "ltm_hit_rate").items():
            recent = [value for step, value in points if step >= since]
            if points[0][0] <= since and recent and not any(recent):
                yield name, f"the memory never fires: {name} is 0 for {IDLE_STEPS} steps"
    for name, points in curves(records, "end_rate").items():
        if points[-1][1] < LEAST_END_RATE:
            yield name, f"the end token is not written: {points[-1][1]:.0%} of the samples end by it"
    accepted, rejected = (total(records, name) for name in ("consolidated", "rejected"))
    if accepted + rejected >= LEAST_TRIED and 0 in (accepted, rejected):
        which = "accepted" if accepted else "rejected"
        yield "consolidations", f"all {accepted + rejected:g} consolidations were {which}: look at the acceptance test"
    limit_s = longest_silence_s(records)
    if limit_s is not None and silent_s > limit_s:
        usual = duration(limit_s / SILENCE_FACTOR)
        yield "silence", f"no record for {duration(silent_s)}, where one is expected every {usual}"
