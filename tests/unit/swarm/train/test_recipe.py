"""A training file is checked after every override, before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.config.shipped import maker_of
from swarm.train.recipe import LoraRecipe, MemoryRecipe, PolicyRecipe, load_recipe

RECIPES: dict[str, dict[str, Any]] = {
    "policy": {"world": "split-numbers-v0", "task": "puzzle-agent"},
    "memory": {"world": "vault-v0", "task": "vault-agent"},
    "lora": {"world": "split-numbers-v0", "task": "puzzle-coordinator", "model": "smollm2-135m"},
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of all kinds lie in the working folder; a training that starts is a failure."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("swarm.train.training.work_folder", lambda *_: pytest.fail("a training started"))
    for kind, keys in RECIPES.items():
        recipe = {"kind": kind, "name": kind, "optimizer": {"steps": 4, "batch_size": 8}, "out": "out", **keys}
        Path(f"{kind}.yaml").write_text(json.dumps(recipe))


@pytest.mark.parametrize(
    ("file", "overrides", "schema"),
    [
        ("policy", [], PolicyRecipe),
        ("memory", [], MemoryRecipe),
        ("lora", [], LoraRecipe),
        ("policy", ["kind=memory", "model.preset=ltm-1m"], MemoryRecipe),
        ("policy", ["kind=lora", "model=smollm2-135m"], LoraRecipe),
    ],
)
def test_the_kind_after_overrides_says_what_else_may_stand_in_the_file(
    file: str, overrides: list[str], schema: type[Any]
) -> None:
    assert type(load_recipe(Path(f"{file}.yaml"), overrides)) is schema


def test_workers_of_the_command_line_replace_those_of_the_file() -> None:
    for kind in RECIPES:
        assert load_recipe(Path(f"{kind}.yaml"), ["place.workers=8"], 2).place.workers == 2


def test_where_a_training_runs_is_no_part_of_what_it_is() -> None:
    same = [
        "name=other",
        "place.threads=2",
        "place.device=cpu",
        "save_every=3",
        "score_examples=9",
        "optimizer.steps=9",
    ]
    for kind in RECIPES:
        here = load_recipe(Path(f"{kind}.yaml")).identity()
        assert load_recipe(Path(f"{kind}.yaml"), same, 2).identity() == here
        for other in ("seed=1", "optimizer.lr=0.5", "optimizer.batch_size=4", "place.dtype=bfloat16"):
            assert load_recipe(Path(f"{kind}.yaml"), [other]).identity() != here


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        *((kind, ["--workers", "3"], f"{kind}.yaml: batch_size 8 cannot be shared evenly by 3") for kind in RECIPES),
        ("lora", ["--workers", "2", "--set", "optimizer.batch_size=9"], "lora.yaml: batch_size 9 cannot be shared"),
        ("memory", ["--workers", "0"], "--set place.workers=0: place.workers is 0; allowed: a whole number >= 1"),
        ("policy", ["--set", "task=[1]"], "--set task=[1]: task "),
        ("policy", ["--set", "kind=chess"], "kind is 'chess'; allowed: one of policy, memory, reward, text, lora"),
        ("policy", ["--set", "model.preset=7t"], "policy.yaml: unknown model preset '7t'; available: tiny"),
        ("policy", ["--set", "model.preset=ltm-1m"], "policy.yaml: model.preset ltm-1m has a long-term memory"),
        ("memory", ["--set", "model.preset=1m"], "memory.yaml: model.preset 1m has no long-term memory"),
        ("memory", ["--set", "span=500"], "memory.yaml: span 500 must be a multiple of the memory's segment 128"),
        ("lora", ["--set", "optimizer.kind=muon"], "lora.yaml: optimizer.kind muon trains µLMs only"),
        ("lora", ["--set", "task=runs"], "lora.yaml: `runs` names run folders for task 'runs', and only for it"),
        ("policy", ["--set", "place.device=mps", "--workers", "2"], "place: device mps has one GPU for 2 workers"),
        ("policy", ["--set", "place.device=mps"], "device 'mps' was asked for but torch sees no such GPU here"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_one_line_and_exit_2(
    swarm: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert swarm("train", f"{kind}.yaml", *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_files_beside_a_recipe_that_are_no_recipes_are_passed_over(tmp_path: Path) -> None:
    """Failed at a7f87d3: a YAML file that is no UTF-8, or a folder of such a name, ended in "this is a bug"."""
    (tmp_path / "a.yaml").write_bytes(b"\xff")
    (tmp_path / "b.yaml").mkdir()
    (tmp_path / "c.yaml").write_text("out: there\n")
    assert maker_of(tmp_path / "there", tmp_path) == tmp_path / "c.yaml"
