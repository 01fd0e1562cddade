"""Training texts from journals: what was chosen in solved episodes, and nothing that is kept for evaluation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fakes.scripted_run import ScriptedPool, play
from fakes.won_run import write_run

from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.run.experience import experience
from swarm.train.lessons_from_runs import run_examples
from worlds.numbers.solver import expressions


def graph_run(folder: Path) -> Path:
    config = {"world": {"id": "graph-v0"}, "agents": {"engine": {"kind": "echo"}}, "budget": {"ticks": 1}}
    play(folder, ExperimentConfig.model_validate(config), ScriptedPool())
    return folder


MENU = re.compile(r"half (?P<tiles>[0-9 ]+) make (?P<menu>[0-9 ]+)\n")


def test_what_was_chosen_from_a_menu_in_a_solved_episode_is_learned(tmp_path: Path) -> None:
    trained, scored = run_examples([write_run(tmp_path / "run", [True] * 20)])
    assert len(trained) > 10
    assert scored
    for kind, prompt, completion in (*trained, *scored):
        read = MENU.fullmatch(prompt)
        assert read is not None
        chosen = completion.removesuffix("\n").split()
        assert (kind, completion[0], completion[-1]) == ("run", " ", "\n")
        assert set(chosen) <= set(read["menu"].split())
        made = expressions(tuple(map(int, read["tiles"].split())))
        assert all(int(word) in made for word in chosen)  # as the coordinator of these runs chooses
    assert not {prompt for _, prompt, _ in trained} & {prompt for _, prompt, _ in scored}


def test_what_was_declined_is_offered_no_more(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [True] * 20)
    offered: dict[tuple[int, str], list[str]] = {}
    for call in experience(run):
        if call.role == "coordinator" and (read := MENU.fullmatch(call.prompt)) is not None:
            declined = set(read["menu"].split()) - set(call.answer.split())
            seen = offered.setdefault((call.key[0], read["tiles"]), [])
            assert not declined & set(seen), call
            seen += declined
    assert sum(map(len, offered.values())) > 50


def test_episodes_that_were_not_solved_teach_nothing(tmp_path: Path) -> None:
    half = [number % 2 == 0 for number in range(40)]
    trained, scored = run_examples([write_run(tmp_path / "half", half)])
    calls = list(experience(tmp_path / "half"))
    assert {call.key[0] % 2 for call in calls if not call.solved} == {1}
    assert any(call.role == "coordinator" and not call.solved for call in calls)
    won = [call for call in calls if call.solved and call.role == "coordinator" and call.answer]
    assert len(won) == len(trained) + len(scored)


def test_menus_are_as_long_as_in_the_run(tmp_path: Path) -> None:
    trained, scored = run_examples([write_run(tmp_path / "run", [True] * 30, menu=1)])
    menus = [MENU.fullmatch(prompt) for _, prompt, _ in (*trained, *scored)]
    assert {len(read["menu"].split()) for read in menus if read} == {1}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: write_run(place / "run", [True] * 20, split="held_out"), "kept for evaluation"),
        (lambda place: graph_run(place / "run"), "choose from no menu"),
        (lambda place: write_run(place / "run", [True] * 9), "too few"),
        (lambda place: place / "nothing", "no journal at"),
    ],
)
def test_runs_that_teach_nothing_honest_are_refused(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(SwarmError, match=message):
        run_examples([make(tmp_path)])
