"""A policy that knows nothing yet: where learning a world from its reward alone begins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.train.recipe import ModelSection
from swarm.train.untrained import write_untrained
from ulm.checkpoint import checkpoint_hash, load_checkpoint
from ulm.decode.engine import Engine, GenerationRequest

TINY = ModelSection(preset="tiny", window=32, vocab_size=300)


def _config(**world: object) -> ExperimentConfig:
    agents = {"count": 2, "engine": {"kind": "ulm", "model": "agent"}}
    return ExperimentConfig.model_validate({"world": {"id": "signal-v0"} | world, "agents": agents})


def test_a_seed_gives_the_same_weights_and_a_tokenizer_that_knows_the_worlds_words(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        write_untrained(_config(), tmp_path, TINY, seed, tmp_path / name)
    one, same, other = (checkpoint_hash(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same != other
    tokens = load_checkpoint(tmp_path / "one").tokenizer.encode("object 2 0 3 1\n")
    assert len(tokens) <= 7


def test_after_some_steps_it_says_what_is_legal_and_not_always_the_same(tmp_path: Path) -> None:
    write_untrained(_config(), tmp_path, TINY, 1, tmp_path / "agent", steps=150)
    read = load_checkpoint(tmp_path / "agent")
    engine = Engine(read.model, read.tokenizer)
    prompts = [f"message {a} {b} {a} {c}\n" for a in "bkx" for b in "cmz" for c in "aeo"]
    found = engine.generate([GenerationRequest(prompt, 10, temperature=0.0, stop=("\n",)) for prompt in prompts])
    said = [result.text for result in found]
    legal = [text for text in said if re.fullmatch(r"[0-3]( [0-3]){3}", text)]
    assert len(legal) >= 0.9 * len(said)
    assert len(set(legal)) > 1


@pytest.mark.parametrize(
    ("world", "preset", "words"),
    [
        ({"id": "nowhere-v0"}, "tiny", "nowhere-v0"),
        ({"options": {"values": 200}}, "tiny", "values"),
        ({}, "huge", "unknown model preset 'huge'"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path, world: dict[str, object], preset: str, words: str
) -> None:
    model = ModelSection(preset=preset, window=32, vocab_size=300)
    config = ExperimentConfig.model_construct(
        **{**_config().__dict__, "world": _config().world.model_copy(update=world)}
    )
    with pytest.raises(SwarmError, match=words):
        write_untrained(config, tmp_path, model, 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()
