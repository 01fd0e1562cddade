"""Replay of runs that learn: puzzles of groups and of the exam, and the chain of what agents keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes.learned_run import write_learned_run
from fakes.records import rewrite

from swarm.record.change import Change
from swarm.record.journal import JournalWriter, read_records
from swarm.view.replay import ReplayError, replay_run, transcript


def test_groups_and_the_exam_are_replayed(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", group=2, share="mean")
    goals = [
        record["goal"] for record in read_records(tmp_path / "run" / "journal.jsonl") if record["kind"] == "episode"
    ]
    assert goals[-1] != goals[0]  # the exam has other options
    result = replay_run(tmp_path / "run", True)
    assert (result.episodes, result.changes, result.finished) == (10, 8, True)


@pytest.mark.parametrize(
    ("kind", "name", "value", "message"),
    [
        ("change", "parent", "f" * 64, r"seq \d+: parent differs: the journal has 'f+', recomputed is ''"),
        ("change", "cost", {"tokens": 1}, "tokens differs"),
        ("episode", "seed", 5, "seed differs"),
    ],
)
def test_what_does_not_follow_is_named(tmp_path: Path, kind: str, name: str, value: Any, message: str) -> None:
    write_learned_run(tmp_path / "run")

    def change(record: Any) -> None:
        if record["kind"] == kind:
            record[name] = value

    rewrite(tmp_path / "run", change)
    with pytest.raises(ReplayError, match=message):
        replay_run(tmp_path / "run", True)


def test_the_transcript_tells_each_change_in_a_line(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    lines = [line for line in transcript(tmp_path / "run") if "after round" in line]
    assert len(lines) == 4
    assert lines[0].startswith("a0 learned after round 1 (delta): nothing -> ")
    for told in (" attempts, ", " right, ", "kl ", " tokens", "loss "):
        assert told in lines[0]


def test_a_run_that_ended_may_be_undone_and_nothing_else_may_follow(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    journal = tmp_path / "run" / "journal.jsonl"
    old = [record for record in read_records(journal) if record["kind"] == "change" and record["agent"] == "a0"][-1]
    undo = Change("delta", "a0", "undo", old["result"], old["parent"])
    with JournalWriter.resume(journal, "group") as writer:
        writer.append(undo.as_record())
    assert replay_run(tmp_path / "run", True).finished
    with JournalWriter.resume(journal, "group") as writer:
        writer.append(Change("delta", "a0", "learn", old["parent"], old["result"]).as_record())
    with pytest.raises(ReplayError, match="after the end"):
        replay_run(tmp_path / "run", True)
