"""A tiny untrained µLM for numbers, and runs in which it learns, in seconds and without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from swarm.config.experiment import ExperimentConfig
from swarm.run.runner import RunOutcome, start_run
from ulm.checkpoint import save_checkpoint
from ulm.config import preset
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer


def write_base(folder: Path, seed: int = 1) -> Path:
    """Write the checkpoint of a model that knows digits and operators, and nothing else."""
    torch.set_num_threads(1)
    tokenizer = Tokenizer.train(["tiles 1 2 3 4 target 5 6 7 8 9 0\n1+2*3-4/(1)\n= 7 illegal"] * 3, 300)
    save_checkpoint(folder, Decoder(preset("tiny", tokenizer.vocab_size, window=64), seed=seed), tokenizer, {})
    return folder


def learning_config(base: Path, *, count: int = 1, learning: dict[str, Any] | None = None, **sections: Any) -> Any:
    """Return an experiment of two rounds of four puzzles of two small numbers."""
    settings = {
        "every": 4,
        "steps": 2,
        "batch": 4,
        "hindsight": 0.5,
        "explore": {"attempts": 6},
        "delta": {"rank": 2},
        "test": {"tasks": 0.3, "kl": 50.0},
    }
    data: dict[str, Any] = {
        "seed": 3,
        "episodes": 8,
        "concurrency": 4,
        "world": {
            "id": "numbers-v0",
            "options": {"count": 2, "high": 4, "target_low": 0, "target_high": 9, "split": "any"},
        },
        "agents": {
            "count": count,
            "engine": {"kind": "ulm", "model": str(base)},
            "memory": ["stm", "delta"],
            "temperature": 1.0,
            "max_new_tokens": 6,
        },
        "topology": {"kind": "none"},
        "budget": {"actions": 2 * count, "ticks": 4},
        "learning": settings | (learning or {}),
        "runtime": {"pool": "local"},
    }
    return ExperimentConfig.model_validate(data | sections)


def learned_run(folder: Path, **settings: Any) -> RunOutcome:
    """Play such a run in `folder`/run."""
    base = write_base(folder / "base")
    return start_run(learning_config(base, **settings), folder / "experiment.yaml", folder / "run")
