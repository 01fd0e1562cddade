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

__all__ = ["following", "progress_lines"]

Metrics = dict[str, Any]


@contextmanager
def following(path: Path, report: Callable[[Metrics], None], every_s: float = 1.0) -> Iterator[None]:
    """Report the newest line of a growing file about once per `every_s`, from another thread.

    Lines that were there before are not reported.
    """
    stop = threading.Event()
    seen = path.stat().st_size if path.exists() else 0

    def follow() -> None:
        nonlocal seen
        while not stop.wait(every_s):
            if path.exists() and path.stat().st_size != seen:
                with path.open(encoding="utf-8") as handle:
                    handle.seek(seen)
                    lines = [line for line in handle if line.endswith("\n")]
                seen += sum(len(line.encode()) for line in lines)
                if lines:
                    report(json.loads(lines[-1]))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


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
