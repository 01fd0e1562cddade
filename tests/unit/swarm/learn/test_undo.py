"""What was learned can be taken back, step by step, while nobody writes the run; later rounds start from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.learned_run import LearnedPool, go_on, scripted, write_learned_run

from swarm.agents.delta import delta_path, prune
from swarm.errors import SwarmError
from swarm.files import FolderLock
from swarm.learn.recompute import recompute
from swarm.learn.undo import held, undo
from swarm.record.journal import read_records
from swarm.record.records import ChangeRecord
from swarm.view.replay import replay_run


@pytest.fixture(autouse=True)
def _steps_are_taken_here() -> Iterator[None]:
    with scripted(LearnedPool()):
        yield


def changes(run_dir: Path, agent: str | None = "a0") -> list[ChangeRecord]:
    records = read_records(run_dir / "journal.jsonl")
    return [record for record in records if record["kind"] == "change" and record["agent"] == agent]


def test_each_undo_goes_back_one_step_until_nothing_is_left(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    first, second = (record["result"] for record in changes(tmp_path / "run"))
    (change,) = undo(tmp_path / "run", "a0")
    assert (change.parent, change.result, change.settings) == (second, first, {"of": "learn", "round": 1})
    assert held(tmp_path / "run").of("a0") == first
    (change,) = undo(tmp_path / "run", "a0")
    assert (change.parent, change.result, change.settings["round"]) == (first, "", 0)
    with pytest.raises(SwarmError, match="a0 has learned nothing that could be undone; there are: a1"):
        undo(tmp_path / "run", "a0")
    assert replay_run(tmp_path / "run", True).finished


def test_without_a_name_the_last_step_of_every_agent_is_undone(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", share="mean")
    assert [(change.agent, change.settings["of"]) for change in undo(tmp_path / "run")] == [
        ("a0", "share"),
        ("a1", "share"),
    ]
    own = [record["result"] for record in changes(tmp_path / "run") if record["cause"] == "learn"]
    assert held(tmp_path / "run").of("a0") == own[-1]


def test_a_team_has_one_delta_to_undo(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", learner="team")
    with pytest.raises(SwarmError, match="one delta, the team's: leave a0 out"):
        undo(tmp_path / "run", "a0")
    (change,) = undo(tmp_path / "run")
    assert change.agent is None
    assert held(tmp_path / "run").of("a0") == change.result != ""


def test_later_rounds_start_from_what_was_left(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", stop=5)
    undo(tmp_path / "run", "a0")
    go_on(tmp_path / "run")
    learned = [record for record in changes(tmp_path / "run") if record["cause"] == "learn"]
    assert learned[1]["parent"] == ""
    assert changes(tmp_path / "run", "a1")[1]["parent"] == changes(tmp_path / "run", "a1")[0]["result"]
    assert replay_run(tmp_path / "run", True).finished
    assert recompute(tmp_path / "run").equal == 4


def test_a_run_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    before = (tmp_path / "run" / "journal.jsonl").read_bytes()
    with FolderLock(tmp_path / "run"), pytest.raises(SwarmError, match="is being written by another process"):
        undo(tmp_path / "run")
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == before


def test_a_file_that_was_pruned_is_computed_anew(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", rounds=3)
    undo(tmp_path / "run", "a0")
    first = delta_path(tmp_path / "run" / "memory", changes(tmp_path / "run")[0]["result"])
    assert not first.is_file()
    undo(tmp_path / "run", "a0")
    assert first.is_file()


def test_pruning_keeps_the_last_two_of_each_agent(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    folder = tmp_path / "run" / "memory"
    undo(tmp_path / "run", "a0")
    (folder / "deltas" / f"{'0' * 64}.safetensors").write_bytes(b"left by a kill")
    files, freed = prune(folder, held(tmp_path / "run").newest())
    assert files == 2
    assert freed > 14
    left = {path.stem for path in (folder / "deltas").iterdir()}
    assert left == {changes(tmp_path / "run")[0]["result"], *(r["result"] for r in changes(tmp_path / "run", "a1"))}


def test_agents_that_learned_nothing_have_nothing_to_undo(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", stop=0)
    with pytest.raises(SwarmError, match="have learned nothing that could be undone"):
        undo(tmp_path / "run")


def test_a_run_goes_on_where_files_that_it_needs_are_gone(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "whole", rounds=3)
    write_learned_run(tmp_path / "run", rounds=3, stop=9)
    for path in (tmp_path / "run" / "memory" / "deltas").iterdir():
        path.unlink()
    go_on(tmp_path / "run")
    whole, again = (list(read_records(tmp_path / name / "journal.jsonl")) for name in ("whole", "run"))
    assert again == whole


@pytest.mark.parametrize("agent", ["a0", "a1"])
def test_an_undo_at_a_barrier_that_a_kill_left_half_done_counts(tmp_path: Path, agent: str) -> None:
    """a0 has learned from the second round, a1 has not: of a0 that step is undone, of a1 what was shared before."""
    run_dir = tmp_path / "run"
    write_learned_run(run_dir, share="mean", rounds=3)
    journal = run_dir / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    whole = list(read_records(journal))
    at = next(n for n, r in enumerate(whole) if r["kind"] == "change" and r["settings"]["round"] == 1)
    journal.write_bytes(b"".join(lines[: at + 1]))
    undo(run_dir, agent)
    go_on(run_dir)
    own = [
        record for record in changes(run_dir, agent) if record["cause"] == "undo" or record["settings"]["round"] == 1
    ]
    learned = {record["cause"]: record for record in own}
    if agent == "a0":
        assert [record["cause"] for record in own] == ["learn", "undo", "share"]
        assert learned["share"]["parent"] == learned["undo"]["result"] == learned["learn"]["parent"]
    else:
        assert [record["cause"] for record in own] == ["undo", "learn", "share"]
        assert learned["learn"]["parent"] == learned["undo"]["result"] != learned["undo"]["parent"]
    assert replay_run(run_dir, True).finished
    found = recompute(run_dir)
    assert (found.equal, found.skipped) == (3 * 2 * 2, 0)
