"""How fast it goes on this machine: from an earlier run of the same, or from a few seconds of the work itself.

What is played or trained here is kept nowhere: there is no journal, and folders are temporary.
"""

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.agents.memory import Place, make_memories
from swarm.agents.models import LoadedModels
from swarm.config.experiment import ExperimentConfig
from swarm.config.section import logical_settings
from swarm.errors import SwarmError
from swarm.process.machine import memory_bytes
from swarm.process.progress import duration, progress
from swarm.record.journal import JOURNAL_NAME, read_header
from swarm.record.outcomes import read_run
from swarm.run.tick_loop import Runtime
from swarm.run.unrecorded import play_unrecorded
from ulm.train.step import Objective, Worker, train_step

PLAYED_S = 3.0
"""Seconds after which a measurement ends with the tick or step that it is in."""
JUST_NOW = "as steps went that were taken just now in this process"
LONGEST_CALL_S = 30.0
_OWN_KEYS = ("name", "seed", "episodes")
"""Settings in which an earlier run may differ."""
_LARGEST_JOURNAL = 100e6
_CHAIN_BYTES = 200
"""Of a record, beside its own text: the hashes of the chain."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What an episode takes.

    Attributes:
        rests_on: where the numbers come from, or why there are none.
        seconds, tokens, disk_bytes: of an episode; `seconds` is None where nothing is known.
    """

    rests_on: str
    seconds: float | None = None
    tokens: float = 0.0
    disk_bytes: float = 0.0


def earlier(config: ExperimentConfig, runs: Path) -> Pace | None:
    """Return what the newest earlier run of the same settings in a folder took, None without one."""
    wanted = _comparable(logical_settings(config))
    journals = sorted(runs.glob(f"*/{JOURNAL_NAME}"), key=lambda file: file.stat().st_mtime, reverse=True)
    for journal in journals:
        with suppress(SwarmError, OSError):
            header = read_header(journal) if journal.stat().st_size < _LARGEST_JOURNAL else None
            if header is None or _comparable(dict(header["config"])) != wanted:
                continue
            run = read_run(journal.parent)
            count, wall_s = len(run.puzzles), run.telemetry.wall_s
            if count and wall_s:
                tokens = sum(puzzle.tokens for puzzle in run.puzzles)
                basis = f"as {journal.parent} went: {count:,} episodes in {duration(wall_s)}, without its start"
                return Pace(basis, wall_s / count, tokens / count, journal.stat().st_size / count)
    return None


def _comparable(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _OWN_KEYS}


def played(config: ExperimentConfig, base_dir: Path, models: LoadedModels, weights_bytes: float) -> Pace:
    """Play the first seconds of an experiment in this process and return what an episode takes.

    Args:
        config: the experiment.
        base_dir: folder of its file.
        models: loaded.
        weights_bytes: memory that its models take.
    """
    coordinator = config.coordinator
    if coordinator.traits.needs_terminal:
        return Pace("it waits for a person")
    if config.agents.engine.is_remote or (coordinator.engine is not None and coordinator.engine.is_remote):
        return Pace("engines that answer from elsewhere are not asked for it, and no earlier run is in runs/")
    if weights_bytes > memory_bytes() / 2:
        return Pace("the models are too large to be tried beside what runs here")
    budget = config.budget.model_copy(update={"wall_time_s": PLAYED_S})
    faults = config.faults.model_copy(update={"call_timeout_s": LONGEST_CALL_S, "max_faults": 0})
    runtime = config.runtime.model_copy(update={"compile": False})
    short = config.model_copy(update={"budget": budget, "faults": faults, "runtime": runtime})
    sizes: list[int] = []
    began_s = [0.0]
    with tempfile.TemporaryDirectory() as folder, progress("playing the first ticks"):
        memories = make_memories(config.agents.memory, Place.of(config, base_dir, Path(folder), "group"))
        loop = play_unrecorded(
            short,
            base_dir,
            models,
            memories,
            lambda record: sizes.append(len(json.dumps(record)) + _CHAIN_BYTES),
            on_start=lambda: began_s.__setitem__(0, time.monotonic()),
        )
        took_s = time.monotonic() - began_s[0]
    return _pace(config, loop, took_s, sum(sizes))


def _pace(config: ExperimentConfig, runtime: Runtime, took_s: float, num_bytes: int) -> Pace:
    """Return what an episode takes, after those that ended and the part of the others that their budget tells."""
    end, budget = runtime.end, config.budget
    if end["reason"] == "faults":
        return Pace(f"the first ticks had a fault, such as no answer within {LONGEST_CALL_S:.0f} s")
    parts = 0.0
    for episode in runtime.live.values():
        used = (
            (episode.spent.tokens, budget.tokens),
            (episode.spent.calls, budget.calls),
            (episode.spent.actions, budget.actions),
            (episode.ticks, budget.ticks),
        )
        parts += max(done / limit for done, limit in used if limit is not None)
    if not (episodes := end["episodes"] + parts):
        return Pace("nothing was played")
    count, start = end["episodes"], "; Ray's start comes on top" if config.runtime.pool == "ray" else ""
    what = f"{count:,} episode(s)" if count else "the beginning of an episode"
    bound = "" if count else ", if it uses up its budget"
    basis = f"as {what} went, played just now in this process{bound}{start}"
    return Pace(basis, took_s / episodes, end["tokens"] / episodes, num_bytes / episodes)


def step_seconds(
    make: Callable[[Path, Worker], Objective], clip: float, device: str, threads: int | None = None
) -> float:
    """Return how long a training step takes, after a first one that does not count.

    Args:
        make: returns what is trained; it may write in the folder that it is given.
        clip: largest norm of the gradient.
        device: where it is computed.
        threads: of the CPU; None takes one.
    """
    import torch

    took: list[float] = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads or 1)
    try:
        with tempfile.TemporaryDirectory() as folder, progress("taking the first steps"):
            objective = make(Path(folder), Worker(0, 1, torch.device(device), lambda record: None))
            while len(took) < 2 or (sum(took) < PLAYED_S and len(took) < 50):
                began_s = time.monotonic()
                train_step(objective, len(took), 1e-6, clip)
                took.append(time.monotonic() - began_s)
    finally:
        torch.set_num_threads(before)
    return sum(took[1:]) / (len(took) - 1)
