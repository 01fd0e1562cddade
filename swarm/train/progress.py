"""Follows the file of records that a training appends to, and says how fast it goes and how long it will take."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from swarm.files import LineTail

Record = dict[str, Any]


def _record(line: bytes) -> Record:
    """Return the record of a line; an empty one where a kill has torn it."""
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):
        return {}


def read_metrics(path: Path) -> list[Record]:
    """Return the lines of metrics by step; of steps that were taken again after a kill, the last ones."""
    found = {record["step"]: record for record in map(_record, LineTail(path).poll()) if "step" in record}
    return [found[step] for step in sorted(found)]


@contextmanager
def following(path: Path, report: Callable[[Record], None], every_s: float = 1.0) -> Iterator[None]:
    """Report from another thread what a growing file gets: notices, and about once per `every_s` the newest metrics.

    Records that were there before are not reported.
    """
    stop, tail = threading.Event(), LineTail(path)
    list(tail.poll())

    def look() -> None:
        records = [record for line in tail.poll() if (record := _record(line))]
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


def progress_lines(steps: int, echo: Callable[[str], None], title: str = "") -> Callable[[Record], None]:
    """Return what turns records of a training into plain lines; metrics with rate and remaining time."""
    first: dict[str, float] = {}

    def report(record: Record) -> None:
        if "notice" in record:
            echo(f"{title}{record['notice']}")
            return
        now = time.monotonic()
        step, at = first.setdefault("step", record["step"]), first.setdefault("at", now)
        rate = (record["step"] - step) / (now - at) if now > at + 0.5 else 0.0
        eta = f"{(steps - record['step']) / rate / 60:.1f} min left" if rate else "estimating"
        echo(f"{title}step {record['step']}/{steps}  loss {record['loss']:.4f}  {rate:.1f} steps/s  {eta}")

    return report
