"""Runs a training loop on the workers of Ray Train, and turns what goes wrong into one line.

Owns the check that the workers fit, retries after a worker's death, and the file by which a worker says
that the training cannot go on. It refuses to know what the loop does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarm.actors.ray_tasks import ray_started
from swarm.errors import SwarmError

__all__ = ["give_up", "run_workers"]

GAVE_UP = "gave-up.txt"
MAX_FAILURES = 3
"""Deaths of workers after which a training ends."""


def give_up(folder: Path, reason: str) -> None:
    """Say from within a loop that every retry would fail in the same way; the loop then returns."""
    (folder / GAVE_UP).write_text(reason, encoding="utf-8")


def run_workers(
    loop: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    *,
    name: str,
    folder: Path,
    workers: int,
    threads: int | None,
    use_gpu: bool,
) -> None:
    """Run `loop(settings)` on every worker until all are done.

    Args:
        loop: the training; a worker that died runs it again, so it starts from its last saved state.
        settings: given to it; must be picklable.
        name: of the run, for Ray's own records.
        folder: where those records go, and where `give_up` writes.
        workers: how many.
        threads: CPUs per worker; None takes one.
        use_gpu: one GPU per worker.

    Raises:
        SwarmError: Ray cannot be started, the workers do not fit, the loop gave up, or workers died too often.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    cpus = max(1, min(threads or 1, (os.cpu_count() or 1) // workers))
    gpus = workers if use_gpu else 0
    with ray_started():
        there = ray.cluster_resources()
        # Ray Train would wait for ever for what does not exist.
        if there.get("CPU", 0) < cpus * workers or there.get("GPU", 0) < gpus:
            raise SwarmError(
                f"{workers} workers need {cpus * workers} CPUs and {gpus} GPUs, Ray has "
                f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g}; lower `workers`"
            )
        trainer = TorchTrainer(
            loop,
            train_loop_config=settings,
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu, resources_per_worker={"CPU": cpus}),
            run_config=RunConfig(
                name=name,
                storage_path=str((folder / "ray").resolve()),
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        (folder / GAVE_UP).unlink(missing_ok=True)
        try:
            trainer.fit()
        except Exception as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise SwarmError(
                f"training failed: {reason}; the last saved state is in {folder}, go on from it with "
                "`swarm train --resume` or the same `swarm lab`"
            ) from error
    if (folder / GAVE_UP).exists():
        raise SwarmError((folder / GAVE_UP).read_text(encoding="utf-8"))
