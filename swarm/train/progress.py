"""Follows the file of records that a training appends to, and says how fast it goes and how long it will take."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from swarm.actors.ray_train import appending
from swarm.files import LineTail, make_folder
from swarm.process.progress import duration, progress
from swarm.text import command

Record = dict[str, Any]


def read_record(line: bytes) -> Record:
    """Return the record of a line; an empty one where a kill has torn it."""
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):
        return {}


def read_metrics(path: Path) -> list[Record]:
    """Return the lines of metrics by step; of steps that were taken again after a kill, the last ones."""
    found = {record["step"]: record for record in map(read_record, LineTail(path).poll()) if "step" in record}
    return [found[step] for step in sorted(found)]


@contextmanager
def following(path: Path, report: Callable[[Record], None], every_s: float = 1.0) -> Iterator[None]:
    """Report from another thread what a growing file gets: notices, and about once per `every_s` the newest metrics.

    Records that were there before are not reported.
    """
    stop, tail = threading.Event(), LineTail(path)
    list(tail.poll())

    def look() -> None:
        records = [record for line in tail.poll() if (record := read_record(line))]
        for number, record in enumerate(records, 1):
            if "notice" in record or number == len(records):
                report(record)

    def follow() -> None:
        while not stop.wait(every_s):
            look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look()


_MEASURED = (
    ("loss", "loss {:.4f}"),
    ("tokens_per_s", "{:,.0f} tokens/s"),
    ("routed_token_ratio", "routed {:.2f}"),
    ("ltm_hit_rate", "hits {:.2f}"),
)
"""What is shown of a line of metrics, and how; the last two of a model with memory."""


@contextmanager
def training_shown(path: Path, steps: int, title: str, echo: Callable[[str], None], others: int = 0) -> Iterator[None]:
    """Show a training while it happens, and say how long it takes once its first steps are measured.

    Its file begins with, or goes on after, a record of what is trained and how to go on with it: `began` (the title),
    `steps`, `others` and `command`, which `swarm watch` reads.

    Args:
        path: its file of records.
        steps: of the whole training.
        title: what is trained.
        echo: receives notices, the estimate, and lines of progress where there is no terminal.
        others: trainings like it that come after it.
    """
    make_folder(path.parent)
    appending(path)({"began": title, "steps": steps, "others": others, "command": command(*sys.argv[1:])})
    with progress(title, steps, "steps", say=echo) as work:
        measured: list[int] = []

        def report(record: Record) -> None:
            if "notice" in record:
                echo(f"{title}: {record['notice']}")
                return
            step = record["step"]
            if not measured:
                measured.append(step)
                work.restart(step)  # the start is no fair sample
                if step < steps and "eta_s" in record:
                    echo(f"{title}: {_estimate(steps, steps - step, record['eta_s'], others)}")
            shown = _MEASURED if record.get("LTM_enabled") else _MEASURED[:2]
            work.update(step, ", ".join(form.format(record[name]) for name, form in shown if name in record))

        with following(path, report):
            yield


def _estimate(steps: int, left: int, left_s: float, others: int) -> str:
    """Return how long a training will take, in words, and all that follow it."""
    more = f"; {duration(left_s * (1 + others * steps / left))} with the {others} that follow" if others else ""
    return f"about {duration(left_s)} for the {left:,} steps that are left, as the first ones went{more}"


def totals(path: Path) -> str:
    """Return what a training did in all of its tries, in words; "" where there is no record of it."""
    if not (records := read_metrics(path)):
        return ""
    last = records[-1]
    tokens = f", {last['tokens']:,} tokens" if "tokens" in last else ""  # older ones do not say
    return f"{last['step']:,} steps{tokens}" + (f" in {duration(last['seconds'])}" if "seconds" in last else "")
