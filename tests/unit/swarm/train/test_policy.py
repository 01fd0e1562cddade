"""`swarm train` chooses the recipe's schema and checks it after every override, before anything starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from swarm import cli
from swarm.train import lora as lora_trainer
from swarm.train import memory_agent as agent_trainer
from swarm.train import policy as training
from swarm.train.lora import LoraRecipe
from swarm.train.memory_agent import MemoryAgentConfig
from swarm.train.policy import TrainConfig, train_from_file

RECIPES: dict[str, dict[str, Any]] = {
    "policy": {"world": "split-numbers-v0", "task": "puzzle-agent"},
    "memory": {"world": "vault-v0", "task": "vault-agent", "span": 512},
    "lora": {"world": "split-numbers-v0", "task": "puzzle-coordinator", "model": "smollm2-135m"},
}


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The recipes that reached a trainer; files of all kinds lie in the working folder."""
    found: list[Any] = []
    for module, name in (
        (training, "train"),
        (agent_trainer, "train_memory_agent"),
        (lora_trainer, "train_lora"),
    ):
        monkeypatch.setattr(module, name, lambda recipe, *_: found.append(recipe) or Path("out"))
    monkeypatch.chdir(tmp_path)
    for kind, keys in RECIPES.items():
        recipe = {"name": kind, "steps": 4, "batch_size": 8, "out": "out", **keys}
        Path(f"{kind}.yaml").write_text(json.dumps(recipe))
    return found


def swarm(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["swarm", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    ("kind", "overrides", "schema"),
    [
        ("policy", [], TrainConfig),
        ("memory", [], MemoryAgentConfig),
        ("lora", [], LoraRecipe),
        ("policy", ["span=512"], MemoryAgentConfig),
        ("policy", ["task=puzzle-coordinator", "model=smollm2-135m"], LoraRecipe),
    ],
)
def test_the_schema_follows_from_the_recipe_after_its_overrides(
    trained: list[Any], kind: str, overrides: list[str], schema: type[Any]
) -> None:
    train_from_file(Path(f"{kind}.yaml"), overrides, None, None, resume=False)
    assert [type(recipe) for recipe in trained] == [schema]


def test_workers_of_the_command_line_replace_those_of_the_file(trained: list[Any]) -> None:
    for kind in RECIPES:
        train_from_file(Path(f"{kind}.yaml"), ["workers=8"], None, 2, resume=False)
    assert [recipe.workers for recipe in trained] == [2, 2, 2]


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "3"], "{kind}.yaml: batch_size 8 cannot be shared evenly by 3 workers"),
        (["--workers", "2", "--set", "batch_size=9"], "{kind}.yaml: batch_size 9 cannot be shared evenly by 2 workers"),
        (["--workers", "0"], "--workers 0: workers is 0; allowed: a whole number >= 1"),
        (["--set", "task=[1]"], "--set task=[1]: task "),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line_and_exit_2(
    trained: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    arguments: list[str],
    message: str,
) -> None:
    assert swarm(monkeypatch, "train", f"{kind}.yaml", *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message.format(kind=kind)}")
    assert said.count("\n") == 1
    assert trained == []
