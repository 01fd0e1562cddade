"""Drives a training on documents step by step: logs, saves, and says in words why it cannot go on.

Owns what every Ray Train worker does once its training is built. It refuses to know what is learned, and Ray.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from swarm.files import write_whole
from ulm.train.documents import LanguageModelTraining, StepReport
from ulm.train.states import RollingStates

__all__ = ["METRICS", "NOTICES", "run_training"]

METRICS, NOTICES = "metrics.jsonl", "notices.txt"


def run_training(
    training: LanguageModelTraining,
    states: RollingStates,
    folder: Path,
    *,
    save_every: int,
    log_every: int,
    track: Callable[[dict[str, Any]], None] | None = None,
) -> str | None:
    """Train from the last saved state to the last step.

    Args:
        training: of this worker.
        states: where states are kept.
        folder: where the first worker appends to `METRICS` and `NOTICES`.
        save_every: steps.
        log_every: steps.
        track: also receives each line of metrics.

    Returns:
        None, or why every further try would fail.
    """
    steps, first_worker = training.steps, training.rank == 0

    def notice(line: str) -> None:
        if first_worker:
            with (folder / NOTICES).open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    try:
        progress = training.restore(states, notice) or {"seconds": 0.0, "tokens": 0}
    except ValueError as error:
        return str(error)
    if first_worker:
        if 0 < training.next_step < steps:
            notice(f"going on from step {training.next_step}")
        _rewind(folder / METRICS, training.next_step)
    before, start = float(progress["seconds"]), time.monotonic()
    tokens = int(progress["tokens"])
    since = _Since()
    while training.next_step < steps:
        try:
            since.add(training.train_step())
        except FloatingPointError as error:
            return (
                f"training diverged at step {training.next_step} ({error}); the last good state is kept in "
                f"{states.folder}; set a lower lr"
            )
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            return (
                f"out of memory at step {training.next_step}; raise train.micro_batches, or lower train.batch_size or "
                "train.span"
            )
        done = training.next_step
        last = done == steps
        seconds = before + time.monotonic() - start
        if first_worker and (done % log_every == 0 or last):
            line = since.metrics(done, steps, seconds, training.model.ltm is not None)
            with (folder / METRICS).open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(line) + "\n")
            if track is not None:
                track(line)
        if done % log_every == 0:
            tokens += since.tokens
            since = _Since()
        if done % save_every == 0 or last:
            training.save(states, {"seconds": seconds, "tokens": tokens + since.tokens})
    return None


def _rewind(metrics: Path, step: int) -> None:
    """Drop what was logged after a step, for it will be done and logged again; a torn last line goes too."""
    if not metrics.exists():
        return
    kept = []
    for line in metrics.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    write_whole(metrics, "".join(kept))


class _Since:
    """Measurements since the last line of the log."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.reports: list[StepReport] = []

    def add(self, report: StepReport) -> None:
        self.reports.append(report)

    @property
    def tokens(self) -> int:
        return sum(report.tokens for report in self.reports)

    def metrics(self, step: int, steps: int, seconds: float, with_ltm: bool) -> dict[str, Any]:
        """Return one line of the log; all ratios are over the tokens since the line before."""
        rate = self.tokens / max(1e-9, time.monotonic() - self.started)
        written = sum(report.written for report in self.reports)
        per_step = (time.monotonic() - self.started) / len(self.reports)
        line: dict[str, Any] = {
            "step": step,
            "loss": round(sum(r.loss * r.tokens for r in self.reports) / self.tokens, 5),
            "grad_norm": round(self.reports[-1].grad_norm, 4),
            "tokens_per_s": round(rate, 1),
            "eta_s": round(per_step * (steps - step), 1),
            "seconds": round(seconds, 2),
            "LTM_enabled": with_ltm,
        }
        if with_ltm:
            line["routed_token_ratio"] = round(written / self.tokens, 5)
            line["avg_surprisal_routed"] = round(sum(r.written_bits for r in self.reports) / max(1, written), 4)
            line["ltm_hit_rate"] = round(sum(r.readings for r in self.reports) / self.tokens, 5)
        return line


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
