"""Nothing in swarm/ names a world: what is true of one world only lives in that world's folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import swarm
from worlds import available, world_class
from worlds.registry import load_lessons

WORLDS = [world_class(name) for name in available() if world_class(name).__module__.startswith("worlds.")]


def names_of_worlds() -> list[str]:
    """Ids, modules, classes and tasks, and words of folders that mean nothing else (`echo` and `signal` do)."""
    names = {world.id for world in WORLDS} | {world.__name__ for world in WORLDS}
    folders = {world.__module__.split(".")[1] for world in WORLDS}
    names |= {f"worlds.{folder}" for folder in folders} | {f"worlds/{folder}" for folder in folders}
    for world in WORLDS:
        lessons = load_lessons(world.id)
        names |= set(lessons.tasks) if lessons else set()
    names |= folders - {"echo", "facts", "graph", "numbers", "score", "signal"}
    return sorted(names | {name.replace("_", "-") for name in names} | {name.replace("_", " ") for name in names})


def test_no_file_of_the_swarm_names_a_world() -> None:
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, names_of_worlds()))})(?![\w])", re.IGNORECASE)
    root = Path(swarm.__file__).parent
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in sorted(root.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("name", ["split-numbers-v0", "vault", "worlds.graph", "VaultWorld", "puzzle-agent"])
def test_a_name_would_be_noticed(name: str) -> None:
    assert name in names_of_worlds()
