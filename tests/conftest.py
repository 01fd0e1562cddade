"""Fixtures shared by all tests: an untrained tiny policy, and experiments around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fakes.endpoint import Endpoint

from swarm.config.experiment import ExperimentConfig
from ulm.checkpoint import save_checkpoint
from ulm.config import preset
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread: products of narrow models differ by their number on some CPUs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained model: its actions are noise, but the same noise everywhere."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("policies") / "tiny"
    tokenizer = Tokenizer.train(["tiles half target 1 2 3 made"] * 3, 300)
    save_checkpoint(folder, Decoder(preset("tiny", tokenizer.vocab_size), seed=1), tokenizer, {"trained": False})
    return folder


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An OpenAI-compatible server on loopback that answers as the test tells it."""
    with Endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def experiment(tiny_policy: Path, tmp_path: Path) -> Callable[..., tuple[ExperimentConfig, Path]]:
    """Return a function that writes an experiment file around the tiny policy: (config, its path)."""

    def make(**sections: Any) -> tuple[ExperimentConfig, Path]:
        data: dict[str, Any] = {
            "name": "test",
            "seed": 11,
            "episodes": 2,
            "world": {"id": "split-numbers-v0"},
            "agents": {"count": 4, "engine": {"kind": "ulm", "model": str(tiny_policy)}, "max_new_tokens": 8},
            "coordinator": {"kind": "rules"},
            "budget": {"tokens": 500},
            "runtime": {"pool": "local"},
        }
        for name, value in sections.items():
            data[name] = {**data[name], **value} if isinstance(value, dict) and name in data else value
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump(data))
        return ExperimentConfig.model_validate(data), path

    return make
