"""A person approves what the coordinator says: what can be typed, what it costs, and what of it is on record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.cuts import resume_from_cuts
from fakes.endpoint_model import HELLO
from fakes.scripted_person import RANDOM, Steady, approve, records

from swarm.agents.host import Host
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.messages import DirectReply, DirectRequest
from swarm.record.journal import read_records
from swarm.run.runner import resume_run, start_run
from swarm.view.replay import replay_run, transcript

Experiment = Callable[..., tuple[ExperimentConfig, Path]]


def unchained(run_dir: Path, *without: str) -> list[dict[str, Any]]:
    left_out = ("prev", "hash", *without)
    return [{k: v for k, v in r.items() if k not in left_out} for r in read_records(run_dir / "journal.jsonl")]


def test_an_empty_line_approves_and_costs_nothing() -> None:
    reply, script, pool = approve([""])
    assert reply.directives == {"a0": "go", "a1": "wait"}
    assert (reply.tokens, reply.calls, reply.review) == (9, 1, {"answer": "approved"})
    assert script.shown[-2:] == ["     a0 <- go", "     a1 <- wait"]
    assert len(pool.asked) == 1


def test_a_person_replaces_removes_and_adds_directives_and_pays_for_their_own_words() -> None:
    reply, _, _ = approve(["a0: go far away", "a1:", "a2: wait", ""])
    assert reply.directives == {"a0": "go far away", "a2": "wait"}
    assert reply.review == {"answer": "replaced", "proposed": [("a0", "go"), ("a1", "wait")]}
    assert (reply.prompt_tokens, reply.generated_tokens) == (7, 2 + 3 + 1)


def test_nobody_is_directed_when_the_person_says_so() -> None:
    reply, _, _ = approve(["none"])
    assert (reply.directives, reply.tokens) == ({}, 9)
    assert reply.review == {"answer": "replaced", "proposed": [("a0", "go"), ("a1", "wait")]}


def test_words_that_come_back_to_what_was_proposed_are_an_approval() -> None:
    reply, _, _ = approve(["a0: else", "a0: go", ""])
    assert (reply.review, reply.tokens) == ({"answer": "approved"}, 9)


def test_a_hint_asks_again_and_all_of_it_is_charged() -> None:
    def says(asked: DirectRequest) -> DirectReply:
        return DirectReply(asked.key, {"a0": f"go {len(asked.hints)}"}, 10 + len(asked.hints), 2, 1)

    reply, script, pool = approve(["hint: try the left", "hint: or right", ""], says, reads_hints=True, max_tokens=100)
    assert [asked.hints for asked in pool.asked] == [(), ("try the left",), ("try the left", "or right")]
    assert [asked.max_tokens for asked in pool.asked] == [100, 100 - 12 - 3, 100 - 25 - 5]
    assert reply.directives == {"a0": "go 2"}
    assert (reply.prompt_tokens, reply.generated_tokens, reply.calls) == (10 + 11 + 12, 6 + 5, 3)
    assert reply.review == {"answer": "approved", "hints": ["try the left", "or right"]}
    assert "     a0 <- go 2" in script.shown


def test_hints_are_refused_where_nobody_reads_them() -> None:
    reply, script, pool = approve(["hint: try the left", ""])
    assert "reads no hints; direct agents yourself" in script.text
    assert (len(pool.asked), reply.review) == (1, {"answer": "approved"})


def test_a_coordinator_that_cannot_be_asked_again_keeps_what_it_said() -> None:
    def says(asked: DirectRequest) -> DirectReply:
        return DirectReply(asked.key) if asked.hints else DirectReply(asked.key, {"a0": "go"}, 7, 2, 1)

    reply, script, _ = approve(["hint: left", ""], says, reads_hints=True)
    assert (reply.directives, reply.tokens) == ({"a0": "go"}, 10)
    assert "the coordinator was not asked" in script.text


def test_the_person_hears_of_a_fault_and_can_step_in() -> None:
    reply, script, _ = approve(["a0: go", ""], lambda r: DirectReply(r.key, fault="HTTP 500"))
    assert "the coordinator failed: HTTP 500" in script.text
    assert (reply.directives, reply.fault) == ({"a0": "go"}, "HTTP 500")

    def recovers(asked: DirectRequest) -> DirectReply:
        return DirectReply(asked.key, {"a0": "go"}, 1, 1, 1, None if asked.hints else "HTTP 500")

    reply, _, _ = approve(["hint: once more", ""], recovers, reads_hints=True)
    assert (reply.directives, reply.fault) == ({"a0": "go"}, "HTTP 500")  # it happened all the same


def test_what_ends_a_run_is_not_answered_as_a_mistake_of_the_person() -> None:
    def says(asked: DirectRequest) -> DirectReply:
        if asked.hints:
            raise SwarmError("the endpoint refuses the key")
        return DirectReply(asked.key)

    with pytest.raises(SwarmError, match="refuses the key"):
        approve(["hint: left", ""], says, reads_hints=True)


def test_replacing_more_than_the_episode_can_pay_is_asked_again() -> None:
    reply, script, _ = approve(["a0: one two three", "", "a0: one", ""], max_tokens=10)
    assert (reply.directives["a0"], reply.tokens) == ("one", 10)
    assert "that takes 12 tokens and the episode has 10 left" in script.text


def test_a_hint_that_the_episode_cannot_pay_is_not_given() -> None:
    reply, script, pool = approve([f"hint: {'word ' * 25}", "hint: one", ""], reads_hints=True, max_tokens=30)
    assert "that takes 34 tokens and the episode has 30 left" in script.text
    assert [asked.hints for asked in pool.asked] == [(), ("one",)]
    assert reply.review is not None
    assert reply.review["hints"] == ["one"]


def test_approving_everything_changes_nothing_but_that_it_is_on_record(experiment: Experiment, tmp_path: Path) -> None:
    config, path = experiment(
        agents=RANDOM, coordinator={"kind": "rules", "shuffled": True}, concurrency=2, topology={"kind": "ring"}
    )
    alone = start_run(config, path, tmp_path / "alone")
    person = Steady(lambda episode, tick: [""])
    seen = start_run(config, path, tmp_path / "seen", terminal=person.terminal())
    assert unchained(alone.run_dir) == unchained(seen.run_dir, "review")
    ticks = records(seen.run_dir)
    assert [tick["review"] for tick in ticks] == [{"answer": "approved"}] * len(ticks)
    assert person.asked == [(tick["episode"], tick["tick"]) for tick in ticks]
    assert records(alone.run_dir, "header")[0]["hash"] == records(seen.run_dir, "header")[0]["hash"]


def test_approvals_are_replayed_and_retold_and_resumed(experiment: Experiment, tmp_path: Path) -> None:
    def answer(episode: int, tick: int) -> list[str]:
        return {0: ["a0: [7]", "a1:", ""], 1: ["none"]}.get(tick, [""])

    config, path = experiment(agents=RANDOM, coordinator={"kind": "rules"}, budget={"tokens": 900})
    run_dir = start_run(config, path, tmp_path / "run", terminal=Steady(answer).terminal()).run_dir
    assert replay_run(run_dir, check=True).finished
    story = list(transcript(run_dir))
    assert "  a person replaced what the coordinator said" in story
    assert "  a person approved what the coordinator said" in story
    assert any(line.endswith("(not passed on)") for line in story)
    resume_from_cuts(run_dir, lambda folder: resume_run(folder, terminal=Steady(answer).terminal()), first=1, step=3)


def test_hints_last_for_the_rest_of_the_episode_and_survive_a_resume(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[tuple[int, int], DirectRequest] = {}

    class Scripted(Host):
        def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
            asked.update({request.key[:2]: request for request in requests})
            return [DirectReply(r.key, dict.fromkeys(reversed(r.agents), "[1]"), 5, 5, 1) for r in requests]

    monkeypatch.setattr("swarm.agents.local_pool.Host", Scripted)
    monkeypatch.setattr("swarm.backends.openai.OpenAIModel.check", lambda self, probe: ("pattern", HELLO))
    config, path = experiment(
        agents={**RANDOM, "count": 12},  # a10 comes before a2 in a record
        coordinator={"kind": "model", "engine": {"kind": "openai", "model": "m", "url": "http://localhost:1/v1"}},
        budget={"ticks": 4, "tokens": None},
    )
    person = Steady(lambda episode, tick: ["hint: try left", ""] if (episode, tick) == (0, 1) else [""])
    run_dir = start_run(config, path, tmp_path / "run", terminal=person.terminal()).run_dir
    told = {key: request.hints for key, request in asked.items()}
    assert told == {(0, 0): (), **{(0, t): ("try left",) for t in (1, 2, 3)}, **{(1, t): () for t in range(4)}}
    journal = run_dir / "journal.jsonl"
    whole, before = journal.read_bytes(), dict(asked)
    journal.write_bytes(b"".join(whole.splitlines(keepends=True)[:5]))  # up to tick 2 of episode 0
    asked.clear()
    resume_run(run_dir, terminal=person.terminal())
    assert journal.read_bytes() == whole
    assert asked == {key: request for key, request in before.items() if key > (0, 2)}
    assert replay_run(run_dir, check=True).finished
