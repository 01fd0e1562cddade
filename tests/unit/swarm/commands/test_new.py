"""`swarm new world`: what it writes works as it stands, and what cannot be written is one line."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml

from swarm.commands.world_package import write_world_package
from swarm.errors import SwarmError
from worlds import check_world


def test_a_new_world_keeps_the_contract_with_playbook_and_lessons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_world_package("old-map", tmp_path / "old-map")
    monkeypatch.syspath_prepend(str(folder))
    world = importlib.import_module("old_map.world")
    assert world.OldMap.id == "old-map-v0"
    assert check_world(lambda: world.OldMap(4, world.OldMapOptions())) == []


def test_every_file_is_named_and_filled_in(tmp_path: Path) -> None:
    folder = write_world_package("lost-key", tmp_path / "somewhere" / "else")
    written = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert sorted(written) == [
        "experiment.yaml",
        "lost_key/__init__.py",
        "lost_key/lessons.py",
        "lost_key/playbook.py",
        "lost_key/world.py",
        "pyproject.toml",
        "tests/test_world.py",
        "train.yaml",
    ]
    assert not [name for name, text in written.items() if "$" in text]
    assert yaml.safe_load(written["experiment.yaml"])["world"]["id"] == "lost-key-v0"
    assert yaml.safe_load(written["train.yaml"])["world"] == "lost-key-v0"
    for name, text in written.items():
        assert max(map(len, text.splitlines())) <= 120, name
        if name.endswith(".py"):
            compile(text, name, "exec")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Lost-Key", "is no name for a world; use lower-case words and hyphens"),
        ("lost key", "is no name for a world"),
        ("../lost", "is no name for a world"),
        ("", "is no name for a world"),
        ("1st", "is no name for a world"),
        ("class", "there is a Python module class"),
        ("random", "there is a Python module random"),
        ("torch", "there is a Python module torch"),
        ("split-numbers", "there is a world split-numbers-v0"),
    ],
)
def test_a_bad_or_taken_name_is_one_line(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(SwarmError, match=re.escape(message)) as caught:
        write_world_package(name, tmp_path / "new")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SwarmError, match=r"is not empty .*; choose another folder with --out, or another name"):
        write_world_package("lost-key", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
