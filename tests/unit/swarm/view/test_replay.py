"""Replay recomputes a run from its journal and names the first thing that does not follow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.records import end, rewrite
from fakes.toy_run import GuessWorld, write_toy_run

from swarm.errors import SwarmError
from swarm.record.journal import JournalError, JournalWriter, read_records
from swarm.view.replay import ReplayError, replay_run, transcript


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_honest_run_replays_with_its_totals_and_hash(tmp_path: Path, concurrency: int) -> None:
    write_toy_run(tmp_path, episodes=4, concurrency=concurrency)
    records = list(read_records(tmp_path / "journal.jsonl"))
    seen: list[tuple[int, int]] = []
    result = replay_run(tmp_path, True, progress=lambda done, size: seen.append((done, size)))
    assert result.hash == records[-1]["hash"]
    assert (result.records, result.episodes, result.finished) == (len(records), 4, True)
    assert result.solved == records[-1]["solved"] > 0
    assert result.open_episodes == 0
    assert seen[-1][0] == seen[-1][1]


def test_a_run_that_was_cut_short_replays_up_to_its_torn_tail(tmp_path: Path) -> None:
    write_toy_run(tmp_path, finish=False)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"agents":[{"act')
    result = replay_run(tmp_path, True)
    assert (result.finished, result.open_episodes, result.episodes) == (False, 1, 1)
    assert result.hash == list(read_records(path))[-1]["hash"]


def change_entry(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        if record["kind"] == "tick" and record["tick"] == 0 and record["episode"] == 1:
            record["agents"][1][name] = value

    return change


def change_field(kind: str, name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        if record["kind"] == kind:
            record[name] = value(record[name]) if callable(value) else value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_entry("feedback", "you won"), r"seq \d+, episode 1, tick 0, agent a1: feedback .*'you won'"),
        (change_entry("valid", None), r"line \d+: .* tick.agents.1.valid: Input should be a valid boolean"),
        (change_entry("reward", 0.5), "agent a1: reward differs: the journal has 0.5, recomputed is"),
        (change_entry("report", "a lie"), "agent a1: report differs"),
        (change_entry("prompt_tokens", 1), "tick 0: spent differs"),
        (change_entry("action", "99"), "episode 1, tick 0"),
        (change_field("episode", "seed", 3), "seq 1, episode 0: seed differs: the journal has 3"),
        (change_field("episode", "goal", "rest"), "goal differs: the journal has 'rest'"),
        (change_field("episode", "state", "0" * 64), "seq 1, episode 0: state differs"),
        (
            change_field("episode", "agents", lambda agents: [{**agents[0], "report": "x"}, *agents[1:]]),
            "agent a0: report",
        ),
        (
            change_field("episode", "agents", lambda agents: [{**agents[0], "observation": ""}, *agents[1:]]),
            "observation",
        ),
        (change_field("episode", "agents", lambda agents: agents[::-1]), "episode 0: agents differs"),
        (change_field("tick", "state", "0" * 64), "tick 0: state differs"),
        (change_field("tick", "terminated", 1), r"line 3: .* tick.terminated: Input should be a valid boolean"),
        (change_field("tick", "truncated", True), "tick 0: truncated differs"),
        (
            change_field("tick", "tick", lambda tick: tick + 1),
            "tick differs: the journal has 1, recomputed is 0",
        ),
        (change_field("tick", "agents", lambda entries: entries[::-1]), "order of agents differs"),
        (change_field("tick", "spent", {"tokens": 0, "calls": 0, "actions": 0}), "tick 0: spent differs"),
        (change_field("episode_end", "solved", lambda solved: not solved), "solved differs"),
        (change_field("episode_end", "reason", "bored"), "reason is 'solved' differs"),
        (change_field("episode_end", "ticks", 99), "ticks differs: the journal has 99"),
        (change_field("episode_end", "actions", 99), "actions differs: the journal has 99"),
        (change_field("end", "solved", 99), "solved differs: the journal has 99"),
        (change_field("end", "faults", 99), "faults differs: the journal has 99"),
        (change_field("end", "tokens", 99), "tokens differs: the journal has 99"),
        (change_field("header", "format", 1), "journal format 1, and this version of swarm reads and writes 2"),
        (change_field("header", "config", {"seed": 1}), "line 1: the header lacks a setting"),
        (
            change_field("tick", "coordinator", "none"),
            r"line 3: .* tick.coordinator: Input should be a valid dictionary",
        ),
    ],
)
def test_a_forged_record_is_named_even_when_the_chain_is_right(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    write_toy_run(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(SwarmError, match=message) as caught:
        replay_run(tmp_path, True)
    assert "\n" not in str(caught.value)


def test_rechaining_without_a_change_still_replays(tmp_path: Path) -> None:
    write_toy_run(tmp_path)
    before = (tmp_path / "journal.jsonl").read_bytes()
    rewrite(tmp_path, lambda record: None)
    assert (tmp_path / "journal.jsonl").read_bytes() == before
    assert replay_run(tmp_path, True).finished


def test_check_finds_a_broken_chain_that_the_worlds_do_not_see(tmp_path: Path) -> None:
    write_toy_run(tmp_path)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b"try above 1", b"try above 2"))
    assert replay_run(tmp_path, False).finished
    with pytest.raises(JournalError, match="was altered"):
        replay_run(tmp_path, True)


@pytest.mark.parametrize("kind", ["header", "episode", "tick"])
def test_records_out_of_place_are_errors(tmp_path: Path, kind: str) -> None:
    write_toy_run(tmp_path)
    rewrite(tmp_path, lambda record: [record, record] if record["kind"] == kind else None)
    with pytest.raises(SwarmError, match=r"one header|began twice|tick differs"):
        replay_run(tmp_path, True)


def test_a_record_after_the_end_is_an_error(tmp_path: Path) -> None:
    write_toy_run(tmp_path)
    with JournalWriter.resume(tmp_path / "journal.jsonl") as journal:
        journal.append(end())
    with pytest.raises(ReplayError, match="after the end"):
        replay_run(tmp_path, True)


def test_missing_and_empty_journals_and_unknown_worlds_are_one_line_errors(tmp_path: Path) -> None:
    with pytest.raises(SwarmError, match="no journal at"):
        replay_run(tmp_path, True)
    (tmp_path / "journal.jsonl").write_bytes(b'{"conf')
    with pytest.raises(SwarmError, match="no whole record"):
        replay_run(tmp_path, True)
    write_toy_run(tmp_path / "run")

    def rename(record: dict[str, Any]) -> None:
        if record["kind"] == "header":
            record["config"]["world"]["id"] = "toy-gess-v0"
        if record["kind"] == "episode":
            record["world"] = "toy-gess-v0"

    rewrite(tmp_path / "run", rename)
    with pytest.raises(SwarmError, match=r"toy-gess-v0.* not found"):
        replay_run(tmp_path / "run", True)


def test_a_world_that_raises_is_named_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy_run(tmp_path)

    def broken(self: GuessWorld, actions: dict[str, str]) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(GuessWorld, "step", broken)
    with pytest.raises(ReplayError, match=r"tick 0: world toy-guess-v0: step raised ZeroDivisionError"):
        replay_run(tmp_path, True)


def test_the_transcript_tells_every_tick(tmp_path: Path) -> None:
    write_toy_run(tmp_path, episodes=3, concurrency=2)
    text = "\n".join(transcript(tmp_path))
    ticks = [record for record in read_records(tmp_path / "journal.jsonl") if record["kind"] == "tick"]
    assert text.count(" tick ") >= len(ticks)
    for wanted in (
        "toy: toy-guess-v0, 4 agents, seed 7",
        "a0 sees guess 1..30",
        "a0 <- try above 0",
        "secret ",
    ):
        assert wanted in text
    assert "illegal: ?! is no number" in text
    assert "!! call timed out after 60 s" in text
    assert text.splitlines()[-1].startswith("finished: ")


def test_the_transcript_tells_what_was_read(tmp_path: Path) -> None:
    write_toy_run(tmp_path, topology={"kind": "ring"}, agents=3)
    lines = list(transcript(tmp_path, prompts=True))
    first = lines.index(next(line for line in lines if line.startswith("episode 0 tick 0")))
    assert lines[first - 7 : first] == [
        "     a0 | guess 1..30",
        "     a0 | try above 0",
        "     a1 | guess 1..30",
        "     a1 | heard a0 is ready",
        "     a2 | guess 1..30",
        "     a2 | heard a0 is ready",
        "     a2 | try above 0",
    ]
    assert lines[-1].startswith("finished: ")


@pytest.mark.process
def test_replaying_loads_neither_torch_nor_ray() -> None:
    script = "import sys, json, swarm.view.replay; print(json.dumps([m for m in ('torch', 'ray') if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)
    assert json.loads(done.stdout) == []
