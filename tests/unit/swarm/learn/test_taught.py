"""What a base was taught is asked as it was taught: with inline answers, where it had them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fakes.learning import write_base

from swarm.learn import taught
from swarm.learn.taught import ANSWER_TOKENS, Taught
from ulm.checkpoint import load_checkpoint
from ulm.decode.engine import Engine, GenerationRequest

RECIPE = {"kind": "policy", "world": "split-numbers-v0", "task": "puzzle-thinker", "max_new_tokens": 60}


@pytest.mark.parametrize(("inline", "longest"), [(True, 60), (False, ANSWER_TOKENS)])
def test_a_base_is_asked_as_it_was_taught(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, inline: bool, longest: int
) -> None:
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(write_base(tmp_path / "base"))
    found = Taught.of({"recipe": {**RECIPE, "inline": inline}})
    assert found
    asked: list[GenerationRequest] = []
    generate = Engine.generate
    monkeypatch.setattr(Engine, "generate", lambda self, requests: generate(self, asked.extend(requests) or requests))
    assert not any(taught.score(checkpoint, None, found, 4).right)
    assert [request.max_new_tokens for request in asked] == [longest] * 4
    assert {request.inline and request.inline("3*7=") for request in asked} == {"21" if inline else None}


@pytest.mark.parametrize("inline", [True, False])
def test_what_the_world_said_is_rehearsed_and_not_learned(monkeypatch: pytest.MonkeyPatch, inline: bool) -> None:
    monkeypatch.setattr(taught, "REHEARSED", 3)
    monkeypatch.setattr(taught, "answers", lambda _, __, prompts, ___: (["3*7=21 21+1=22"] * len(prompts), 0))
    found = Taught.of({"recipe": {**RECIPE, "inline": inline}})
    assert found
    samples, _ = taught.rehearsal(object(), found)  # type: ignore[arg-type]
    assert len(samples) == 3
    for sample in samples:
        assert [sample.completion[start:end] for start, end in sample.inlined] == (["21", "22"] if inline else [])
