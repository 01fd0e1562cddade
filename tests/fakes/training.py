"""What trainings are tested with: a worker that is alone, and what it reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from swarm.actors.ray_train import METRICS, appending
from ulm.train.states import RollingStates
from ulm.train.step import Objective, Worker

__all__ = [
    "alone",
    "damage_newest_state",
    "interrupt_after",
    "saved_tensors",
    "tiny_recipe",
    "train_tokenizers_on_little",
    "without_ray",
]


def tiny_recipe(**changes: Any) -> dict[str, Any]:
    """Return what the file of a small training says."""
    return {
        "kind": "policy",
        "name": "tiny",
        "world": "facts-v0",
        "task": "facts-agent",
        "model": {"preset": "tiny", "vocab_size": 300},
        "place": {"device": "cpu"},
        "save_every": 2,
        "log_every": 1,
        "score_examples": 2,
        "out": "policy",
        **changes,
    }


def train_tokenizers_on_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tokenizers see three lines in place of a world's corpus."""
    lines = ["ask page key value next done 0 1 2 3"] * 3
    monkeypatch.setattr("swarm.train.lessons.corpus", lambda world, task: lines)


def alone(records: list[dict[str, Any]] | None = None) -> Worker:
    """Return the only worker of a training, in this process; what it reports is appended to `records`."""
    return Worker(0, 1, torch.device("cpu"), ([] if records is None else records).append)


def saved_tensors(states: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the newest state in a folder, by name."""
    found = RollingStates(states)
    return found.read(found.steps()[-1])[0]


def damage_newest_state(states: Path) -> str:
    """Empty an object that the newest state alone needs; the name of the state."""
    newest, *older = sorted(states.glob("step-*.json"), reverse=True)
    shared = "".join(path.read_text() for path in older)
    own = [path for path in (states / "objects").iterdir() if path.name not in shared]
    own[0].write_bytes(b"")
    return newest.name


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings run in this process instead of on the workers of Ray Train."""

    def run_workers(loop: Any, settings: dict[str, Any], *, name: str, folder: Path, place: Any) -> None:
        loop(settings, Worker(0, 1, torch.device("cpu"), appending(folder / METRICS)))

    monkeypatch.setattr("swarm.train.training.run_workers", run_workers)


def interrupt_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next training be killed in the middle of a step, after so many."""
    import swarm.train.loop

    real, taken = swarm.train.loop.train_step, []

    def step(objective: Objective, *arguments: Any) -> Any:
        if len(taken) == steps:
            monkeypatch.setattr("swarm.train.loop.train_step", real)
            raise KeyboardInterrupt
        taken.append(1)
        return real(objective, *arguments)

    monkeypatch.setattr("swarm.train.loop.train_step", step)
