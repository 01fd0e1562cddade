"""Swarms of micro language models: run, resume, read, replay and compare them, and train what they are made of.

    from pathlib import Path

    from swarm import load_experiment, read_run, start_run

    file = Path("experiments/smoke.yaml")
    outcome = start_run(load_experiment(file, ["episodes=2"]), file, Path("runs/smoke"))
    print([puzzle.solved for puzzle in read_run(outcome.run_dir).puzzles])

Names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.process.machine import limit_threads
from ulm.lazy import names_from

if TYPE_CHECKING:
    from swarm.compare.runs import compare_arms
    from swarm.config.load import load_experiment
    from swarm.record.outcomes import read_run
    from swarm.run.experience import experience
    from swarm.run.runner import resume_run, start_run
    from swarm.train.training import train_policy
    from swarm.view.replay import replay_run

__all__ = [
    "compare_arms",
    "experience",
    "load_experiment",
    "read_run",
    "replay_run",
    "resume_run",
    "start_run",
    "train_policy",
]

limit_threads()  # libraries read it when they are loaded

__getattr__ = names_from(
    __name__,
    {
        "compare.runs": "compare_arms",
        "config.load": "load_experiment",
        "record.outcomes": "read_run",
        "run.experience": "experience",
        "run.runner": "resume_run start_run",
        "train.training": "train_policy",
        "view.replay": "replay_run",
    },
)
