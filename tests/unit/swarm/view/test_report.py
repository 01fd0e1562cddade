"""The report of one run says what the journal says, for finished, broken and hostile runs alike."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from fakes.scripted_run import Script, chance, experiment, write_run

from swarm.errors import SwarmError
from swarm.record.outcomes import read_run
from swarm.view.report import report_data, write_report

CONFIG = experiment(
    episodes=6, agents={"count": 2, "engine": {"kind": "ulm", "model": "policies/agent"}}, budget={"tokens": 600}
)
ALTERNATE = Script(lambda seed, episode: 300.0 if episode % 2 else None)


def visible(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", page.split("<body>")[1]))


def test_outcomes_add_up_to_what_was_charged(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG, ALTERNATE)
    run = read_run(tmp_path)
    assert [puzzle.solved for puzzle in run.puzzles] == [False, True] * 3
    for puzzle in run.puzzles:
        assert puzzle.agent_tokens + puzzle.coordinator_tokens == puzzle.tokens
        assert puzzle.largest_call == 30
    assert run.end_reason == "finished"
    assert run.telemetry.wall_s > 0


def test_report_states_rate_interval_budget_tokens_and_first_solution(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG, ALTERNATE)
    path = write_report(tmp_path)
    assert path == tmp_path / "report" / "report.html"
    text = visible(path.read_text())
    run = read_run(tmp_path)
    assert "Solved 3 of 6 puzzles; the run finished." in text
    assert ".500 [" in text
    assert "of the budget of 600" in text
    assert "The first solved puzzle: number 1" in text
    assert "3+7+11" in text
    assert run.journal_hash in text
    assert "w1-policies/agent" in text


def test_data_is_plain_and_says_what_the_page_says(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG, ALTERNATE._replace(fault_at=2))
    data = report_data(tmp_path)
    assert json.loads(json.dumps(data)) == data
    run = read_run(tmp_path)
    assert (data["num_solved"], data["episodes"], data["end_reason"]) == (3, 6, "finished")
    assert data["means"]["tokens until solved"]["largest"] == max(p.tokens for p in run.puzzles if p.solved)
    assert sum(data["tokens_by_part"].values()) == sum(p.tokens for p in run.puzzles)
    assert data["ended_by"] == {"budget: tokens": 3, "solved": 3}
    assert data["faults"] == [{"episode": 2, "tick": 0, "who": "a0", "text": "timeout after 60 s"}]
    first = data["first_solved"]
    assert first is not None
    assert (first["episode"], list(first["observations"])) == (1, ["a0", "a1"])
    step = {"tick": 0, "agent": "a0", "directive": "100+[45]", "action": "3+7+11", "feedback": "= 21", "report": ""}
    assert first["steps"][0] == step
    assert len(first["steps"]) == run.puzzles[1].actions


def test_long_puzzle_is_cut_and_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.view.report.MAX_TRANSCRIPT_ROUNDS", 2)
    write_run(tmp_path, CONFIG, ALTERNATE)
    first = report_data(tmp_path)["first_solved"]
    assert first is not None
    assert {step["tick"] for step in first["steps"]} == {0, 1}
    assert first["rounds"] > 2
    assert "The first 2 rounds are shown." in visible(write_report(tmp_path).read_text())


def test_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG, ALTERNATE)
    page = write_report(tmp_path).read_text()
    assert page.count('src="data:image/png;base64,') == 2
    assert not re.search(r"https?://|<script|<link|url\(", page)


def test_model_text_never_becomes_markup(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script><img src=x onerror=1>\x1b[2J\u202e'
    keys = ("action", "feedback", "directive", "observation", "goal", "fault")
    write_run(tmp_path, CONFIG, ALTERNATE._replace(texts=dict.fromkeys(keys, evil), fault_at=1))
    page = write_report(tmp_path).read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert page.count("&lt;script&gt;") >= len(keys)
    assert "·[2J·" in page


def test_lone_surrogates_from_a_model_do_not_break_the_page(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG, ALTERNATE._replace(texts={"action": "\ud800 half"}))
    assert "half" in write_report(tmp_path).read_text(encoding="utf-8")


def test_interrupted_run_is_reported_as_unfinished(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG, ALTERNATE._replace(stop_after=2))
    text = visible(write_report(tmp_path).read_text())
    assert "Solved 1 of 2 puzzles so far; the run has not finished (2 of 6 puzzles ended)." in text


def test_run_stopped_by_faults_names_the_reason_and_the_fault(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG, ALTERNATE._replace(broken=True))
    text = visible(write_report(tmp_path).read_text())
    assert "stopped by 'faults'" in text
    assert "timeout after 60 s" in text
    assert "21 faults" in text


def test_run_that_solved_nothing_still_has_a_report(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG, Script(chance(0.0)))
    text = visible(write_report(tmp_path).read_text())
    assert "No puzzle was solved." in text
    assert ".000 [.000, .459]" in text  # 1 - .025 ** (1 / 6)


def test_run_without_any_ended_puzzle_still_has_a_report(tmp_path: Path) -> None:
    write_run(tmp_path, CONFIG, ALTERNATE._replace(stop_after=0))
    assert "Solved 0 of 0 puzzles so far" in visible(write_report(tmp_path).read_text())


@pytest.mark.parametrize("damage", ["missing", "empty", "altered"])
def test_unreadable_journal_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    journal = tmp_path / "journal.jsonl"
    write_run(tmp_path, CONFIG, ALTERNATE)
    if damage == "missing":
        journal.unlink()
    elif damage == "empty":
        journal.write_bytes(b"")
    else:
        journal.write_bytes(journal.read_bytes().replace(b'"solved":true', b'"solved":null', 1))
    with pytest.raises(SwarmError, match=r"journal|header"):
        write_report(tmp_path)
