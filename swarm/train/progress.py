"""Follows a training's metrics file while it grows, and says how fast it goes and how long it will take.

Owns reading the file and the words; who trains appends one JSON object per line. Knows no model and no Ray.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["following", "following_lines", "progress_lines"]

Metrics = dict[str, Any]


@contextmanager
def following(path: Path, report: Callable[[Metrics], None], every_s: float = 1.0) -> Iterator[None]:
    """Report the newest line of a growing file about once per `every_s`, from another thread.

    Lines that were there before are not reported. A file that becomes shorter is read from its new end on.
    """
    with _following(path, lambda lines: report(json.loads(lines[-1])), every_s):
        yield


@contextmanager
def following_lines(path: Path, report: Callable[[str], None], every_s: float = 1.0) -> Iterator[None]:
    """Report every line that a growing text file gets, the last ones at the end at the latest."""

    def each(lines: list[str]) -> None:
        for line in lines:
            report(line.rstrip("\n"))

    with _following(path, each, every_s):
        yield


@contextmanager
def _following(path: Path, report: Callable[[list[str]], None], every_s: float) -> Iterator[None]:
    stop = threading.Event()
    seen = path.stat().st_size if path.exists() else 0

    def look() -> None:
        nonlocal seen
        size = path.stat().st_size if path.exists() else 0
        if size < seen:
            seen = size
        elif size > seen:
            with path.open(encoding="utf-8") as handle:
                handle.seek(seen)
                lines = [line for line in handle if line.endswith("\n")]
            seen += sum(len(line.encode()) for line in lines)
            if lines:
                report(lines)

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


def progress_lines(steps: int, echo: Callable[[str], None], title: str = "") -> Callable[[Metrics], None]:
    """Return what turns metrics with `step` and `loss` into plain lines with rate and remaining time."""
    first: list[tuple[int, float]] = []

    def report(metrics: Metrics) -> None:
        now = time.monotonic()
        first.append((metrics["step"], now))
        step, at = first[0]
        rate = (metrics["step"] - step) / (now - at) if now > at + 0.5 else 0.0
        eta = f"{(steps - metrics['step']) / rate / 60:.1f} min left" if rate else "estimating"
        echo(f"{title}step {metrics['step']}/{steps}  loss {metrics['loss']:.4f}  {rate:.1f} steps/s  {eta}")
        del first[1:]

    return report
