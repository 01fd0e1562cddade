"""Recipes of kind `symmetric`: trained by the one loop from a file of pairs, resumed, scored on texts not learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fakes.training import interrupt_after, tiny_recipe, without_ray

from swarm.errors import SwarmError
from swarm.train.training import train_policy
from ulm.checkpoint import load_checkpoint
from ulm.symmetric.network import Network
from ulm.symmetric.pairs import Pair, write_pairs
from ulm.symmetric.propositions import read

pytestmark = pytest.mark.thorough


def pair(text: str, said: str) -> Pair:
    return Pair(text, tuple(read(said)[0]))


LEARNED = [pair("[0] works for [1] .", "[0] works_for [1]"), pair("[0] lies in [1] .", "[0] region [1]")]
HELD_OUT = [pair("[3] works for [2] , in [1] .", "[3] works_for [2] ; [2] seat [1]"), LEARNED[0]]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    without_ray(monkeypatch)
    monkeypatch.chdir(tmp_path)
    write_pairs(Path("pairs.jsonl"), LEARNED)
    write_pairs(Path("held_out.jsonl"), HELD_OUT)
    recipe = tiny_recipe(
        kind="symmetric",
        pairs="pairs.jsonl",
        held_out="held_out.jsonl",
        relations=["seat"],
        optimizer={"steps": 4, "batch_size": 4, "warmup": 1},
    )
    del recipe["world"], recipe["task"]
    Path("train.yaml").write_text(json.dumps(recipe))


def train(*overrides: str, out: str = "network") -> list[str]:
    lines: list[str] = []
    train_policy(Path("train.yaml"), overrides, out=Path(out), echo=lines.append)
    return lines


def test_the_result_knows_its_relations_and_opens_as_a_network() -> None:
    lines = train()
    for score in ("parse: {'n': 1, 'f1': ", "verbalize: {'n': 1, 'read_back_f1': ", "ask: {'n': 1, 'right': "):
        assert any(line.startswith(f"score of {score}") for line in lines)
    network = Network.load(Path("network"))
    assert network.relations == ("region", "seat", "works_for")
    for name in network.relations:
        assert len(network.engine.tokenizer.encode(f" {name}")) == 1
    assert load_checkpoint(Path("network")).meta["examples"] == 16


def test_a_training_that_was_killed_ends_with_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    train("name=whole")
    interrupt_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train("name=cut", out="cut")
    train("name=cut", out="cut")
    whole, cut = (load_checkpoint(Path(name)).model.state_dict() for name in ("network", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_other_pairs_are_another_training() -> None:
    train()
    write_pairs(Path("pairs.jsonl"), LEARNED + HELD_OUT[:1])
    with pytest.raises(SwarmError, match="pairs_sha256"):
        train()


def test_one_direction_alone_is_scored_alone() -> None:
    lines = train("shares.parse=0", "shares.verbalize=0")
    assert [line.split(":")[0] for line in lines if line.startswith("score of")] == ["score of ask"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pairs=none.jsonl", "cannot read pairs"),
        ("held_out=none.jsonl", "cannot read pairs"),
        ("held_out=pairs.jsonl", "no pair that says anything and is not learned"),
        ("relations=[works for]", "'works for' cannot be written"),
        ("shares.parse=-1", "shares.parse is -1"),
        ("shares.sing=1", "sing"),
        ("model.preset=ltm-1m", "has a long-term memory, which `symmetric` does not train"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_one_line(override: str, message: str) -> None:
    with pytest.raises(SwarmError, match=message) as caught:
        train(override)
    assert "\n" not in str(caught.value)


def test_a_recipe_without_shares_learns_nothing() -> None:
    with pytest.raises(SwarmError, match="shares are all 0, so nothing would be learned"):
        train(*(f"shares.{name}=0" for name in ("parse", "verbalize", "ask")))
