"""`swarm train` without Ray: the same command goes on, another recipe is refused, the result says how it was made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fakes.training import (
    damage_newest_state,
    interrupt_after,
    saved_tensors,
    tiny_recipe,
    train_tokenizers_on_little,
    without_ray,
)

from swarm.errors import SwarmError
from swarm.files import FolderLock
from swarm.train.progress import read_metrics
from swarm.train.training import train_policy
from ulm.checkpoint import load_checkpoint

pytestmark = pytest.mark.thorough

RECIPE = tiny_recipe(optimizer={"steps": 6, "batch_size": 4, "micro_batches": 2, "warmup": 2, "weight_decay": 0.05})


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The training file; the working folder is empty, and tokenizers are trained on little."""
    torch.set_num_threads(1)
    without_ray(monkeypatch)
    monkeypatch.chdir(tmp_path)
    train_tokenizers_on_little(monkeypatch)
    Path("train.yaml").write_text(json.dumps(RECIPE))
    return Path("train.yaml")


def train(*overrides: str, out: str = "policy") -> list[str]:
    lines: list[str] = []
    train_policy(Path("train.yaml"), overrides, out=Path(out), echo=lines.append)
    return lines


def state(name: str = "tiny") -> dict[str, torch.Tensor]:
    return saved_tensors(Path("runs", f"train-{name}", "states"))


def refused(message: str, *overrides: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.name != "lock"}
    with pytest.raises(SwarmError, match=message) as caught:
        train(*overrides, out="nothing")
    assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.name != "lock"} == before
    assert not Path("nothing").exists()


def test_the_checkpoint_holds_the_recipe_and_the_scores_of_its_weights() -> None:
    lines = train()
    assert any(line.startswith("score of page: {'n': 2") for line in lines)
    found = load_checkpoint(Path("policy"))
    assert found.meta["recipe"]["optimizer"]["steps"] == 6
    assert found.meta["examples"] == 6 * 4
    assert set(found.meta["scores"]) == {"page", "asked", "done"}
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, state()[f"weight.{name}"].to(torch.bfloat16).float())


def test_the_same_command_goes_on_and_ends_bit_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    train("name=whole", out="whole")
    interrupt_after(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train()
    assert not Path("policy").exists()
    assert any("going on from step 4" in line for line in train())
    assert state().keys() == state("whole").keys()
    assert all(torch.equal(value, state()[name]) for name, value in state("whole").items())
    assert Path("policy", "model.safetensors").read_bytes() == Path("whole", "model.safetensors").read_bytes()
    logged = [
        [(line["step"], line["loss"]) for line in read_metrics(Path("runs", f"train-{name}", "metrics.jsonl"))]
        for name in ("tiny", "whole")
    ]
    assert logged[0] == logged[1]


def test_what_is_trained_is_not_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    train()
    monkeypatch.setattr("swarm.train.loop.train_step", lambda *_: pytest.fail("trained again"))
    train(out="again")
    assert Path("policy", "model.safetensors").read_bytes() == Path("again", "model.safetensors").read_bytes()


def test_a_training_whose_last_state_is_damaged_does_not_ship_the_one_before() -> None:
    train()
    damage_newest_state(Path("runs/train-tiny/states"))
    lines = train(out="again")
    assert any("is damaged" in line for line in lines)
    assert Path("policy", "model.safetensors").read_bytes() == Path("again", "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("setting", "difference"),
    [
        ("seed=1", "seed is 0 there and 1 here"),
        ("optimizer.lr=0.5", "optimizer.lr is 0.001 there and 0.5 here"),
        ("model.window=64", "model.window is 128 there and 64 here"),
    ],
)
def test_another_recipe_in_the_same_folder_is_refused_by_its_first_difference(
    monkeypatch: pytest.MonkeyPatch, setting: str, difference: str
) -> None:
    interrupt_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train()
    refused(rf"train-tiny holds work with other settings \({difference}\); choose another --out", setting)


def test_a_damaged_recipe_is_one_clear_line() -> None:
    train()
    Path("runs/train-tiny/recipe.json").write_text('{"seed": ')
    refused(r"recipe.json is damaged .*; remove runs/train-tiny to start over")


def test_two_trainings_do_not_share_a_folder() -> None:
    train()
    lock = FolderLock(Path("runs/train-tiny"), "train")
    refused("being written by another process")
    lock.close()


def test_a_training_starts_from_a_checkpoint_and_says_so() -> None:
    train()
    train("name=child", "init=policy", "optimizer.steps=1", "optimizer.lr=1e-9", out="child")
    child, parent = load_checkpoint(Path("child")), load_checkpoint(Path("policy"))
    assert child.tokenizer.to_json() == parent.tokenizer.to_json()
    for name, weight in parent.model.state_dict().items():
        assert torch.allclose(child.model.state_dict()[name], weight, atol=1e-6)
    assert child.meta["started_from"]["meta"] == parent.meta
    assert child.meta["recipe"]["init"] == "policy"
    refused("init: policy is no 1m of window 128; set model.preset and model.window", "init=policy", "model.preset=1m")
    refused("init: no checkpoint at", "init=nowhere")


def test_a_task_without_lessons_is_refused() -> None:
    refused("world facts-v0 has no task 'chess'; available: facts-agent", "task=chess")
    refused("world echo-v0 has no lessons", "world=echo-v0")
    refused("examples of task 'vault-agent' are whole episodes", "world=vault-v0", "task=vault-agent")


def test_a_memory_is_trained_on_episodes_and_scored_with_and_without_it() -> None:
    recipe = {
        **RECIPE,
        "kind": "memory",
        "name": "memory",
        "world": "vault-v0",
        "task": "vault-agent",
        "span": 32,
        "score_examples": 1,
    }
    recipe["model"] = {"preset": "ltm-1m", "window": 16, "ltm": {"segment": 16}, "vocab_size": 300}
    Path("train.yaml").write_text(json.dumps({**recipe, "optimizer": {"steps": 2, "batch_size": 2}}))
    train()
    scores = load_checkpoint(Path("policy")).meta["scores"]
    assert scores["answer"]["n"] >= 1
    assert set(scores["answer"]) == {"n", "memory_on", "memory_off"}
    assert {"LTM_enabled": True}.items() <= read_metrics(Path("runs/train-memory/metrics.jsonl"))[-1].items()
