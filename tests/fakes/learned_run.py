"""Runs whose agents learn: a script acts in a toy world, and a tiny model takes the real learning steps."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from fakes.character_tokenizer import characters
from fakes.scripted_run import KilledError, ScriptedPool
from fakes.toy_run import GuessWorld

from swarm.config.experiment import ExperimentConfig
from swarm.learn.accept import Outcome
from swarm.learn.workers import Task
from swarm.messages import ActReply, ActRequest
from swarm.run.runner import RunOutcome, resume_run, start_run
from ulm.checkpoint import save_checkpoint
from ulm.config import ModelConfig
from ulm.model import Decoder

AGENTS = 2


class LearnedPool(ScriptedPool):
    """Agents guess by their keys; the run is killed when episode `stop` has its first call."""

    def __init__(self, stop: int | None = None) -> None:
        super().__init__()
        self.stop = stop

    def answer(self, request: ActRequest) -> ActReply:
        if request.key[0] == self.stop:
            raise KilledError
        luck = random.Random(str(request.key))
        return ActReply(request.key, str(luck.randint(1, 4)), 12, 2)


def learned_config(*, share: str = "none", rounds: int = 2, **learning: Any) -> ExperimentConfig:
    """Return an experiment of `AGENTS` agents, four episodes a round, and an exam of two."""
    section = {
        "every": 4,
        "steps": 3,
        "batch": 4,
        "lr": 0.05,
        "share": share,
        "delta": {"rank": 2, "rows": 8},
        "test": {"probe": 0, "tasks": 0, "kl": 100.0},
        "exam": {"episodes": 2, "options": {"high": 4}},
        **learning,
    }
    data: dict[str, Any] = {
        "name": "learned",
        "seed": 7,
        "episodes": 4 * rounds,
        "world": {"id": GuessWorld.id, "options": {"high": 3}},
        "agents": {
            "count": AGENTS,
            "engine": {"kind": "ulm", "model": "policy"},
            "memory": ["stm", "delta"],
        },
        "budget": {"ticks": 2},
        "learning": section,
        "runtime": {"pool": "local", "durability": "group"},
    }
    return ExperimentConfig.model_validate(data)


def write_policy(folder: Path) -> Path:
    """Write an untrained checkpoint whose tokens are characters."""
    tokenizer = characters("guess find the number below 0123456789.:\n")
    shape = ModelConfig(tokenizer.vocab_size, n_layer=1, n_head=2, n_kv_head=1, d_model=16, d_ff=32, window=64)
    save_checkpoint(folder, Decoder(shape, seed=3), tokenizer, {"trained": False})
    return folder


def steps_here(tasks: Sequence[Task], workers: int | None = None) -> list[Outcome]:
    """Take learning steps in this process."""
    return [task.compute() for task in tasks]


@contextmanager
def scripted(pool: LearnedPool) -> Iterator[None]:
    """Have runs answered by the pool, and learning steps taken here, for the `with` block."""
    torch.set_num_threads(1)
    with (
        mock.patch("swarm.run.runner._make_pool", return_value=pool),
        mock.patch("swarm.learn.learner.run_steps", steps_here),
        mock.patch("swarm.record.journal._sync_data"),
    ):
        yield


def write_learned_run(run_dir: Path, *, stop: int | None = None, **learning: Any) -> RunOutcome | None:
    """Play a run; `stop` is the episode at which it is killed. Arguments as of `learned_config`."""
    if not (policy := run_dir.parent / "policy").is_dir():
        write_policy(policy)
    with scripted(LearnedPool(stop)):
        try:
            return start_run(learned_config(**learning), run_dir.parent / "experiment.yaml", run_dir)
        except KilledError:
            return None


def go_on(run_dir: Path) -> RunOutcome:
    """Resume a run that was killed."""
    with scripted(LearnedPool()):
        return resume_run(run_dir)
