"""The shipped thinker solves puzzles by steps that the world answers; with wrong answers it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.config.load import load_experiment
from swarm.run.runner import start_run
from worlds.numbers.thoughts import result
from worlds.numbers.world import ExpressionWorld

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "think.yaml"
PUZZLES = 24


def solved(folder: Path) -> int:
    return start_run(load_experiment(EXPERIMENT, [f"episodes={PUZZLES}"]), EXPERIMENT, folder).solved


def one_more(observation: str, text: str) -> str | None:
    """Answer a step by a number that is one too high."""
    found = result(text)
    return str(int(found) + 1) if found is not None and found.isdigit() else found


def test_thoughts_solve_more_when_they_are_answered_rightly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert solved(tmp_path / "right") > PUZZLES / 2
    monkeypatch.setattr(ExpressionWorld, "inline", staticmethod(one_more))
    assert solved(tmp_path / "wrong") < PUZZLES / 10
