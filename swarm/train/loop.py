"""The one training loop: from the last saved state on, step by step, to the last step or to a clear reason why not.

Policies, agents with memory, adapters, the lab's language models, MQAR and the learned arms of the Engram evaluation
are objectives of it. With a `Worker(0, 1, device, report)` it needs no Ray; `swarm.actors.ray_train.run_workers` calls
it in each worker of Ray Train.
"""

import time
from pathlib import Path
from typing import Any

from torch import nn

from swarm.config.training import OptimizerSection
from swarm.errors import SwarmError
from swarm.process.machine import is_out_of_memory, resident_bytes
from ulm.train.states import RollingStates
from ulm.train.step import Objective, StepReport, learning_rate, train_step

STATES = "states"


def run_training(
    objective: Objective,
    optimizer: OptimizerSection,
    *,
    states: RollingStates | None = None,
    save_every: int = 100,
    log_every: int = 50,
) -> dict[str, Any]:
    """Train from the last saved state to the last step.

    Every `log_every` steps the worker reports a line of metrics: `step`, `tokens` so far, `loss` (mean nats per learned
    token since the line before), `lr`, `grad_norm`, `tokens_per_s`, `eta_s`, `seconds`, `rss_mb` (of this process)
    and what the objective measures.

    Args:
        objective: what is trained, as this worker sees it.
        optimizer: rate and length.
        states: where states are kept; None keeps none.
        save_every: steps.
        log_every: steps.

    Returns:
        Progress: `step`, `seconds` and learned `tokens` of all tries, and the `schedule`: from which step on the
        training was to have how many steps.

    Raises:
        SwarmError: the training cannot go on, and would not in another try: loss or gradient are not finite, memory is
            full, or the saved states are damaged or of other data.
    """
    worker, steps = objective.worker, optimizer.steps
    progress: dict[str, Any] = {"step": 0, "seconds": 0.0, "tokens": 0, "schedule": []}
    if states is not None:
        try:
            saved = states.load(objective.model, objective.optimizer, lambda line: worker.report({"notice": line}))
            if saved is not None:
                objective.restore(saved.progress, saved.extra)
                progress = {name: saved.progress[name] for name in progress}
        except ValueError as error:
            raise SwarmError(str(error)) from error
    if 0 < progress["step"] < steps:
        worker.report({"notice": f"going on from step {progress['step']}"})
    if not progress["schedule"] or progress["schedule"][-1]["steps"] != steps:
        progress["schedule"] = [*progress["schedule"], {"from_step": progress["step"], "steps": steps}]
    before, started = progress["seconds"], time.monotonic()
    reports: list[StepReport] = []
    since = started
    for step in range(progress["step"], steps):
        rate = learning_rate(step, peak=optimizer.lr, warmup=optimizer.warmup, steps=steps, schedule=optimizer.schedule)
        report = _step(objective, step, rate, optimizer.clip, states)
        reports.append(report)
        done, last = step + 1, step + 1 == steps
        progress |= {"step": done, "seconds": before + time.monotonic() - started}
        progress["tokens"] += report.tokens
        if done % log_every == 0 or last:
            worker.report(_metrics(objective, reports, time.monotonic() - since, progress, steps, rate))
            reports, since = [], time.monotonic()
        if states is not None and (done % save_every == 0 or last):
            more, tensors = objective.state()
            if worker.rank == 0:
                states.save(done, objective.model, objective.optimizer, {**progress, **more}, tensors)
    return progress


def _step(objective: Objective, step: int, rate: float, clip: float, states: RollingStates | None) -> StepReport:
    """Take a step; what would happen again in every try is a SwarmError."""
    try:
        return train_step(objective, step, rate, clip)
    except FloatingPointError as error:
        kept = "" if states is None else f"the last good state is kept in {states.folder}; "
        raise SwarmError(f"training diverged at step {step} ({error}); {kept}set a lower lr") from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise SwarmError(
            f"out of memory at step {step}; raise optimizer.micro_batches, or lower optimizer.batch_size or the span"
        ) from error


def _metrics(
    objective: Objective, reports: list[StepReport], passed: float, progress: dict[str, Any], steps: int, rate: float
) -> dict[str, Any]:
    """Return a line of metrics; ratios are over the tokens of the steps since the line before."""
    tokens = sum(report.tokens for report in reports)
    sums = {name: sum(report.sums[name] for report in reports) for name in reports[-1].sums}
    return {
        "step": progress["step"],
        "tokens": progress["tokens"],
        "loss": round(sum(report.loss * report.tokens for report in reports) / tokens, 5),
        "lr": rate,
        "grad_norm": round(reports[-1].grad_norm, 4),
        "tokens_per_s": round(tokens / max(1e-9, passed), 1),
        "eta_s": round(passed / len(reports) * (steps - progress["step"]), 1),
        "seconds": round(progress["seconds"], 2),
        "rss_mb": round(resident_bytes() / 2**20, 1),
        **objective.metrics(sums, tokens),
    }


def trained(folder: Path, model: nn.Module, steps: int) -> dict[str, Any]:
    """Give a model the weights of a finished training and return its progress.

    Raises:
        SwarmError: the training has not ended, or its states are damaged.
    """
    try:
        saved = RollingStates(folder / STATES).load(model)
    except ValueError as error:
        raise SwarmError(str(error)) from error
    if saved is None or saved.progress["step"] != steps:
        raise SwarmError(f"training in {folder} ended before its last step; give the same command again")
    return saved.progress
