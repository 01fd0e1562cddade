"""What a folder holds: the same work goes on, other work is refused by its first difference."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from swarm.errors import SwarmError
from swarm.identity import claim, is_claimed, refuse_other, work_folder

WORK: dict[str, Any] = {"seed": 1, "model": {"window": 128, "layers": (1, 2)}, "init": None}


def test_work_is_claimed_once_and_recognised_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    assert not is_claimed(path, WORK)
    assert not claim(path, WORK)
    assert json.loads(path.read_text())["model"] == {"window": 128, "layers": [1, 2]}
    assert claim(path, WORK)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 2}, "(seed is 1 there and 2 here)"),
        ({"seed": 2, "init": "x"}, '(init is null there and "x" here)'),
        ({"model": {"window": 64, "layers": [1, 2]}}, "(model.window is 128 there and 64 here)"),
        ({"model": {"window": 128, "layers": [1]}}, "(model.layers is [1, 2] there and [1] here)"),
        ({"model": {}}, "(model.layers is [1, 2] there and null here)"),
        ({"more": "é"}, "(more is null there"),
    ],
)
def test_other_work_is_refused_by_the_first_setting_that_differs(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    claim(tmp_path / "recipe.json", WORK)
    with pytest.raises(SwarmError) as caught:
        claim(tmp_path / "recipe.json", {**WORK, **change})
    assert str(caught.value).startswith(f"{tmp_path} holds work with other settings {says}")
    assert str(caught.value).endswith("choose another --out or name, or remove it")


def test_a_long_setting_is_cut(tmp_path: Path) -> None:
    with pytest.raises(SwarmError) as caught:
        refuse_other(tmp_path, "a" * 500, "b" * 500)
    assert len(str(caught.value)) < 350


def test_a_damaged_claim_is_no_licence(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(SwarmError, match=r"recipe.json is damaged .*; remove .* to start over"):
        claim(tmp_path / "recipe.json", WORK)


def test_a_folder_is_made_locked_and_gone_on_with_by_the_same_command(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "work"
    with work_folder(folder, "train"):
        (folder / "a.json").write_text("{}")
        with pytest.raises(SwarmError, match="being written by another process"), work_folder(folder, "train"):
            pass
    with work_folder(folder, "train"):
        assert (folder / "a.json").exists()
    with (
        pytest.raises(SwarmError, match=r"holds what `swarm train` wrote; choose another --out"),
        work_folder(folder, "mqar"),
    ):
        pass
    with work_folder(folder, "train"):  # the refusal has changed nothing
        pass
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SwarmError, match=r"cannot write to .*: Not a directory"),
        work_folder(tmp_path / "file" / "x", "train"),
    ):
        pass


@pytest.mark.parametrize(
    "names",
    [
        ("data", "thesis.tex"),  # a folder `data` made any folder one of `swarm lab`
        ("results.json", "mine-s1.json"),  # ... and such a name one of `swarm mqar`
        ("recipe.json",),
        ("lock",),  # of another program
    ],
)
def test_a_folder_of_something_else_is_refused_and_nothing_is_written(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Failed at a7f87d3: names of files were what made a folder ours."""
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(SwarmError, match="choose another --out"), work_folder(tmp_path, "lab"):
        pass
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "mine")


def test_of_many_that_start_together_one_is_in_the_folder(tmp_path: Path) -> None:
    inside: list[int] = []

    def enter(folder: Path, barrier: Barrier) -> str:
        barrier.wait()
        try:
            with work_folder(folder, "compare"):
                inside.append(1)
                assert len(inside) == 1
                time.sleep(0.002)
                inside.pop()
        except SwarmError as error:
            return str(error)
        return "entered"

    with ThreadPoolExecutor(4) as threads:
        for number in range(100):
            barrier = Barrier(4)
            said = list(threads.map(lambda _, n=number, b=barrier: enter(tmp_path / f"{n}", b), range(4)))
            assert "entered" in said
            assert all(line == "entered" or "being written by another process" in line for line in said), said
