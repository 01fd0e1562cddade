"""Lessons in which the world answers while an answer is written: what it says is read, and not learned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fakes.training import alone, tiny_recipe, train_tokenizers_on_little

from swarm.train.recipe import PolicyRecipe
from swarm.train.training import open_training
from ulm.decode.engine import Engine, GenerationRequest
from ulm.model import IGNORE
from ulm.tokenizer import Tokenizer

OPTIMIZER = {"kind": "adamw", "steps": 1, "batch_size": 8, "lr": 1e-3, "warmup": 1}
THINKER = {"world": "split-numbers-v0", "task": "puzzle-thinker", "optimizer": OPTIMIZER}


def _training(folder: Path, **changes: Any) -> Any:
    return open_training(PolicyRecipe.model_validate(tiny_recipe(**THINKER, **changes)), folder)


@pytest.mark.parametrize("inline", [True, False])
def test_what_the_world_says_is_not_learned(inline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_tokenizers_on_little(monkeypatch)
    training = _training(tmp_path, inline=inline)
    training.prepare(tmp_path)
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    parts, _ = training.objective(tmp_path, alone()).batch(0)
    for part in parts:
        for ids, labels in zip(part["ids"].tolist(), part["labels"].tolist(), strict=True):
            read = tokenizer.decode([token for token in ids if token != tokenizer.pad_id])
            learned = tokenizer.decode([token for token in labels if token != IGNORE])
            assert re.search(r"=[0-9]", read)
            assert bool(re.search(r"=[0-9]", learned)) != inline
            assert "=" in learned


def test_the_world_answers_while_the_result_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_tokenizers_on_little(monkeypatch)
    training = _training(tmp_path, inline=True, max_new_tokens=99)
    training.prepare(tmp_path)
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    asked: list[GenerationRequest] = []
    generate = Engine.generate

    def spied(self: Engine, requests: list[GenerationRequest]) -> Any:
        asked.extend(requests)
        return generate(self, requests)

    monkeypatch.setattr(Engine, "generate", spied)
    model, _ = training.model(tokenizer, alone().device, 1)
    training.score(model, tokenizer)
    assert {request.max_new_tokens for request in asked} == {99}
    assert {request.inline("3*7=") for request in asked if request.inline} == {"21"}
    assert all(request.inline for request in asked)
