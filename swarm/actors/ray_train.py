"""Runs a training on the workers of Ray Train, and turns what goes wrong into one line.

The loop that is run is handed a `Worker` and knows no Ray. What rank 0 reports is appended to `METRICS` in the work
folder, one JSON object per line, where whoever waits can follow it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.actors.ray_tasks import ray_started
from swarm.config.training import PlaceSection, resolve_device
from swarm.errors import SwarmError, last_line
from swarm.process.machine import OomWatch, cores, memory_full
from worlds.protocol import WorldError

if TYPE_CHECKING:
    from ulm.train.step import Worker

METRICS = "metrics.jsonl"
GAVE_UP = "gave-up.txt"
ABORT_S = 30.0
"""How long a controller may take to end its workers and give back what it holds."""

MAX_FAILURES = 3
"""Deaths of workers after which a training ends."""


def run_workers(
    loop: Callable[[dict[str, Any], Worker], None],
    settings: dict[str, Any],
    *,
    name: str,
    folder: Path,
    place: PlaceSection,
) -> None:
    """Run `loop(settings, worker)` on every worker until all are done.

    Args:
        loop: the training; a worker that died runs it again, so it starts from its last saved state. A SwarmError
            that it raises would be raised in every try, and ends all.
        settings: given to it; must be picklable.
        name: of the run, for Ray's own records.
        folder: of the training; those records and `METRICS` go there.
        place: workers, threads, device, and whether a compiler is needed.

    Raises:
        SwarmError: device, compiler or Ray are not there, workers do not fit, the loop gave up, or they died too often.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    device = resolve_device(place.device)
    if place.compile:
        require_compiler(device)
    workers = place.workers
    cpus = max(1, min(place.threads or 1, cores() // workers))
    gpus = workers if device == "cuda" else 0
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    class Trainer(TorchTrainer):
        """Leaves Ctrl-C as it is; Ray Train's own way of stopping ends the process, with exit code 0 or 1."""

        controller: Any = None

        def _register_sigint_handler(self, controller: Any) -> None:
            self.controller = controller

    with ray_started(place.address):
        there = ray.cluster_resources()
        # Ray Train would wait for ever for what does not exist.
        if there.get("CPU", 0) < cpus * workers or there.get("GPU", 0) < gpus:
            raise SwarmError(
                f"{workers} workers need {cpus * workers} CPUs and {gpus} GPUs, Ray has "
                f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g}; lower `workers`"
            )
        trainer = Trainer(
            _in_worker,
            train_loop_config={
                "loop": loop,
                "settings": settings,
                "folder": folder.resolve(),
                "threads": place.threads,
                "device": device,
            },
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=bool(gpus), resources_per_worker={"CPU": cpus}),
            run_config=RunConfig(
                name=name,
                storage_path=str((folder / "ray").resolve()),
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        (folder / GAVE_UP).unlink(missing_ok=True)
        watch = OomWatch()
        try:
            trainer.fit()
        except Exception as error:
            kept = f"the last saved state is in {folder}, the same command goes on from it"
            if watch.is_full(error):
                remedy = f"raise optimizer.micro_batches, or lower optimizer.batch_size or `workers`; {kept}"
                raise memory_full("the training", remedy) from error
            raise SwarmError(f"training failed: {last_line(error)}; {kept}") from error
        finally:  # a Ray that was there before would train on
            if trainer.controller is not None:
                with contextlib.suppress(Exception):  # one that ends does not answer
                    ray.get(trainer.controller.abort.remote(), timeout=ABORT_S)
                with contextlib.suppress(Exception):
                    ray.kill(trainer.controller)
    if (folder / GAVE_UP).exists():
        raise SwarmError((folder / GAVE_UP).read_text(encoding="utf-8"))


def require_compiler(device: str) -> None:
    """Raise SwarmError if torch.compile lacks what it writes code for."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise SwarmError("compile: torch.compile needs Triton on CUDA: pip install triton, or set place.compile=false")
    if device != "cuda" and shutil.which(compiler) is None:
        raise SwarmError(
            f"compile: torch.compile needs the C++ compiler {compiler}, which is not here; install it, name another "
            f"in CXX, or set place.compile=false"
        )


def _in_worker(given: dict[str, Any]) -> None:
    import ray.train
    import ray.train.torch
    import torch

    from ulm.train.step import Worker

    if given["threads"]:
        torch.set_num_threads(given["threads"])
    context, folder = ray.train.get_context(), given["folder"]
    rank = context.get_world_rank()
    device = ray.train.torch.get_device() if given["device"] == "cuda" else torch.device(given["device"])
    report = appending(folder / METRICS) if rank == 0 else lambda record: None
    try:
        given["loop"](given["settings"], Worker(rank, context.get_world_size(), device, report))
    except (SwarmError, WorldError) as error:
        (folder / GAVE_UP).write_text(str(error), encoding="utf-8")


def appending(path: Path) -> Callable[[dict[str, Any]], None]:
    """Return a function that appends records to a file, one JSON object per line; it ends a line that was torn."""

    def append(record: dict[str, Any]) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    if path.exists() and path.read_bytes()[-1:] not in (b"", b"\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    return append
