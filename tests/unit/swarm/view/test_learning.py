"""Report, dashboard and summary tell of learning what the journal says, and keep the exam apart."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from fakes.learned_run import write_learned_run
from fakes.toy_run import write_toy_run
from rich.console import Console

from swarm.record.journal import read_records
from swarm.record.outcomes import read_run
from swarm.view.dashboard import RunPoller, watch
from swarm.view.dashboard_state import DashboardState, LearnedView
from swarm.view.dashboard_view import render, status
from swarm.view.report import report_data, write_report


def polled(run_dir: Path) -> DashboardState:
    poller = RunPoller(run_dir)
    poller.poll()
    return poller.state


def drawn(state: DashboardState, width: int, height: int) -> str:
    console = Console(width=width, height=height, record=True, force_terminal=True, file=io.StringIO())
    console.print(render(state, width, height))
    return console.export_text()


def test_the_outcome_of_a_run_keeps_the_exam_apart(tmp_path: Path) -> None:
    outcome = write_learned_run(tmp_path / "run")
    assert outcome is not None
    exam = [puzzle for puzzle in read_run(tmp_path / "run").puzzles if puzzle.episode >= 8]
    assert (outcome.episodes, outcome.exam_episodes) == (10, 2)
    assert outcome.exam_solved == sum(puzzle.solved for puzzle in exam)


def test_report_data_has_a_row_for_each_round_and_adds_up(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", share="mean", rounds=3)
    data, run = report_data(tmp_path / "run"), read_run(tmp_path / "run")
    learning = data["learning"]
    assert json.loads(json.dumps(data)) == data
    assert [(row["round"], row["puzzles"], row["accepted"]) for row in learning["rounds"]] == [
        (1, 4, 2),
        (2, 4, 2),
        (3, 4, 2),
    ]
    solved = sum(row["solved"] for row in learning["rounds"])
    assert (solved, data["num_played"], learning["exam"]["puzzles"]) == (data["num_solved"], 12, 2)
    assert solved + learning["exam"]["solved"] == sum(puzzle.solved for puzzle in run.puzzles)
    *_, end = read_records(tmp_path / "run" / "journal.jsonl")
    assert end["kind"] == "end"
    assert sum(data["tokens_by_part"].values()) == end["tokens"]
    cost = learning["cost"]
    assert cost["play"] + cost["learning and its tests"] == end["tokens"]
    assert data["tokens_by_part"]["learning"] == cost["learning and its tests"] > 0
    assert learning["num_changes"] == len(learning["changes"]) == 12


def test_the_page_shows_the_curve_and_every_change(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    page = write_report(tmp_path / "run").read_text()
    assert "<h2>Learning</h2>" in page
    assert "in rounds, and" in page
    assert page.count("<td>learned</td>") == 4
    assert "the probe after each round" in page


@pytest.mark.parametrize("stop", [0, 2])
def test_a_run_without_a_whole_round_still_has_its_page(tmp_path: Path, stop: int) -> None:
    write_learned_run(tmp_path / "run", stop=stop)
    data = report_data(tmp_path / "run")
    assert data["learning"]["exam"] is None
    assert [row["puzzles"] for row in data["learning"]["rounds"]] == ([stop] if stop else [])
    assert write_report(tmp_path / "run").is_file()


def test_the_final_picture_of_the_dashboard_agrees_with_the_end_record(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    state, last = polled(tmp_path / "run"), list(read_records(tmp_path / "run" / "journal.jsonl"))[-1]
    assert last["kind"] == "end"
    assert (state.num_ended, state.num_solved, state.tokens) == (last["episodes"], last["solved"], last["tokens"])
    assert (state.total_episodes, state.eta_s()) == (10, None)
    assert state.learned is not None
    assert state.learned.exam[0] == 2
    assert state.learned.counts == {"learned": 4}
    assert sum(ended for ended, _ in state.learned.rounds.values()) == 8


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (120, 24), (140, 40), (60, 15), (200, 60)])
def test_the_panel_of_learning_is_whole_where_there_is_room(tmp_path: Path, size: tuple[int, int]) -> None:
    write_learned_run(tmp_path / "run")
    text = drawn(polled(tmp_path / "run"), *size)
    lines = text.splitlines()
    assert len(lines) <= size[1]
    assert text.count("╭") == text.count("╰") == text.count("╮") == text.count("╯")
    assert ("learning · round 2 of 2" in text) == (size != (60, 15))
    assert ("4 learned" in text) == (size != (60, 15))


def test_the_dashboard_says_while_a_step_is_computed(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", stop=2)
    state = polled(tmp_path / "run")
    assert status(state)[0] == "running"
    state.fold_telemetry({"kind": "learning", "at_s": 1.0, "round": 0})
    assert status(state, 1000.0)[0] == "learning after round 1"
    state.fold_telemetry({"kind": "commit", "at_s": 2.0, "seq": 9, "agent_steps": 1, "seconds": 1.0})
    assert status(state)[0] == "running"


def test_a_run_says_in_its_telemetry_that_it_learns(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    facts = [json.loads(line) for line in (tmp_path / "run" / "telemetry.jsonl").read_text().splitlines()]
    assert [fact["round"] for fact in facts if fact["kind"] == "learning"] == [0, 1]


def test_plain_lines_tell_each_change_and_keep_the_exam_apart(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    console = Console(record=True, file=io.StringIO(), width=400)
    watch(tmp_path / "run", follow=False, console=console, plain=True)
    lines = console.export_text().splitlines()
    assert sum(" learned after round " in line for line in lines) == 4
    assert " of 8 solved and " in lines[-1]
    assert " of 2 in the exam, " in lines[-1]


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (120, 24), (140, 40), (60, 15), (200, 60)])
@pytest.mark.parametrize("agents", [1, 8, 64])
def test_the_panel_leaves_the_others_whole(tmp_path: Path, size: tuple[int, int], agents: int) -> None:
    write_toy_run(tmp_path, agents=agents, finish=False)
    state = polled(tmp_path)
    state.learned = LearnedView(40, 4, 10, {number: (4, number % 5) for number in range(9)}, tokens=123_456_789)
    lines = drawn(state, *size).splitlines()
    assert len(lines) <= size[1]
    assert max(map(len, lines)) <= size[0]
    corners = [sum(line.count(corner) for line in lines) for corner in "╭╮╰╯"]
    assert len(set(corners)) == 1
    if size[1] >= 40:
        assert any("▁▃▅▆█▁▃▅▆" in line and "75%" in line for line in lines)


def test_the_budget_that_is_shown_is_that_of_the_exam(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", exam={"episodes": 2, "budget": {"ticks": 5}})
    state = polled(tmp_path / "run")
    assert [state.limits(episode)["ticks"] for episode in (0, 7, 8)] == [2, 2, 5]
    assert "/5 " in drawn(state, 120, 40)
