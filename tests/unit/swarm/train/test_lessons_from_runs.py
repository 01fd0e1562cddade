"""Training texts from journals: what was chosen in solved episodes, and nothing that is kept for evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes.won_run import write_run

from swarm.errors import SwarmError
from swarm.train.lessons_from_runs import run_examples


def test_what_was_chosen_from_a_menu_in_a_solved_episode_is_learned(tmp_path: Path) -> None:
    trained, scored = run_examples([write_run(tmp_path / "run", [True] * 20)])
    assert (len(trained), len(scored)) == (36, 4)
    assert trained[0] == ("run", "half 2 4 9 make 45 245\n", " 45\n")
    assert trained[1] == ("run", "half 2 4 9 make 45\n", " 45\n")  # what was declined is offered no more
    assert not {prompt for _, prompt, _ in trained} & {prompt for _, prompt, _ in scored}


def test_episodes_that_were_not_solved_teach_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [number % 2 == 0 for number in range(40)])
    trained, scored = run_examples([run])
    told = [int(completion) for _, _, completion in (*trained, *scored)]
    assert all((value - 45) % 2 == 0 for value in told)
    assert len(told) == 40


def test_menus_are_as_long_as_in_the_run(tmp_path: Path) -> None:
    trained, _ = run_examples([write_run(tmp_path / "run", [True] * 20, menu=1)])
    assert trained[0][1] == "half 2 4 9 make 45\n"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: write_run(place / "run", [True] * 20, split="held_out"), "kept for evaluation"),
        (lambda place: write_run(place / "run", [True] * 20, world="graph-v0"), "choose from no menu"),
        (lambda place: write_run(place / "run", [True] * 9), "too few"),
        (lambda place: place / "nothing", "no run folder"),
    ],
)
def test_runs_that_teach_nothing_honest_are_refused(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(SwarmError, match=message):
        run_examples([make(tmp_path)])
