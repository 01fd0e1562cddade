"""Runs in which agents learn: what changes when, from what, and the same again after a kill anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.cuts import resume_from_cuts
from fakes.learned_run import steps_here
from fakes.learning import learned_run, learning_config, write_base
from pydantic import ValidationError

from swarm.agents.delta import delta_path
from swarm.learn import learner, share
from swarm.learn.recompute import recompute
from swarm.record.journal import read_records
from swarm.run.experience import experience
from ulm.delta import Delta

EXAM: dict[str, Any] = {"exam": {"episodes": 2}, "test": {"on": False, "probe": 0, "tasks": 0}}
NOTHING = "nothing to learn from: no attempt was right"


def changes(run_dir: Path) -> list[dict[str, Any]]:
    return [dict(record) for record in read_records(run_dir / "journal.jsonl") if record["kind"] == "change"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"count": 2, "learning": {"share": "mean"}},
        {"count": 2, "learning": {"learner": "team", "method": "elite"}},
        {"learning": {"method": "grpo", "group": 2, "predict": 0.3, "hindsight": 0.0, "explore": None}},
        {
            "learning": {
                "exam": {"episodes": 3, "options": {"high": 5}, "budget": {"actions": 1}},
                "control": "permuted",
            }
        },
        {"count": 2, "learning": {"control": "swapped", **EXAM}},
        {"count": 2, "learning": {"control": "random", "share": "concat", **EXAM}},
    ],
    ids=["alone", "shared", "team", "grpo", "exam", "swapped", "random"],
)
def test_a_run_that_was_killed_anywhere_learns_the_same(tmp_path: Path, settings: dict[str, Any]) -> None:
    outcome = learned_run(tmp_path, **settings)
    assert outcome.reason == "finished"
    assert [change["settings"]["round"] for change in changes(outcome.run_dir) if change["cause"] == "learn"]
    lines = (outcome.run_dir / "journal.jsonl").read_bytes().count(b"\n")
    resume_from_cuts(outcome.run_dir, step=max(1, lines // 6))


def test_each_step_goes_on_from_what_was_accepted(tmp_path: Path) -> None:
    first, second = changes(learned_run(tmp_path).run_dir)
    assert first["parent"] == ""
    assert second["parent"] == (first["result"] if first["accepted"] else "")
    assert len(first["result"]) == 64
    assert first["cost"]["tokens"] >= 3 * first["cost"]["trained_tokens"] > 0
    assert (tmp_path / "run" / "memory" / "deltas" / f"{first['result']}.safetensors").is_file()


def test_the_next_round_is_played_with_what_was_learned(tmp_path: Path) -> None:
    outcome = learned_run(tmp_path, learning={"test": {"on": False, "tasks": 0.0}})
    first = changes(outcome.run_dir)[0]
    versions = {call.key[0]: call.versions.get("delta") for call in experience(outcome.run_dir)}
    assert {versions[index] for index in range(4)} == {None}
    assert {versions[index] for index in range(4, 8)} == {(first["result"], 0)}


def test_the_exam_is_played_with_the_delta_of_the_next_agent_or_with_a_random_one(tmp_path: Path) -> None:
    found: dict[str, dict[str, str]] = {}
    for control in ("none", "swapped", "random"):
        (tmp_path / control).mkdir()
        run_dir = learned_run(tmp_path / control, count=3, learning={"control": control, **EXAM}).run_dir
        found[control] = {c.key[2]: c.versions["delta"][0] for c in experience(run_dir) if c.key[0] >= 8}
        assert recompute(run_dir).equal == len(changes(run_dir))
    learned = found["none"]
    assert len(set(learned.values())) == 3
    assert found["swapped"] == {"a0": learned["a1"], "a1": learned["a2"], "a2": learned["a0"]}
    for agent, name in found["random"].items():
        own, other = (
            Delta.from_bytes(delta_path(tmp_path / control / "run" / "memory", which).read_bytes())
            for control, which in (("none", learned[agent]), ("random", name))
        )
        assert other.norm() == pytest.approx(own.norm(), rel=1e-5)
        assert not torch.allclose(other.rows_EC, own.rows_EC)
        for weight, added in own.added().items():
            assert float(other.added()[weight].norm()) == pytest.approx(float(added.norm()), rel=1e-4)


def test_a_rejected_step_leaves_what_there_was(tmp_path: Path) -> None:
    outcome = learned_run(tmp_path, learning={"test": {"kl": 1e-9, "tasks": 0.0}})
    for change in changes(outcome.run_dir):
        assert not change["accepted"]
        assert change["settings"]["size"] == 0.5
        assert "failed: kl" in change["note"]
    assert all("delta" not in call.versions for call in experience(outcome.run_dir))


@pytest.mark.parametrize(("size", "accepted"), [(0.5, True), (1e6, False)])
def test_what_is_shared_is_tested_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: float, accepted: bool
) -> None:
    """Where deltas are right alone and wrong together, all keep their own."""

    def together(deltas: list[Delta], *_: Any) -> Delta:
        one = deltas[0]
        factors = {name: (a_RK, size * b_NR) for name, (a_RK, b_NR) in one.factors.items()}
        return Delta(factors, one.ids_E, size * one.rows_EC, one.base)

    monkeypatch.setattr(share, "together", together)
    monkeypatch.setattr(learner, "run_steps", steps_here)
    run_dir = learned_run(tmp_path, count=2, learning={"share": "mean", "test": {"kl": 1.0, "tasks": 0.0}}).run_dir
    first = [change for change in changes(run_dir) if change["settings"]["round"] == 0]
    own = {change["agent"]: change["result"] for change in first if change["cause"] == "learn" and change["accepted"]}
    shared = [change for change in first if change["cause"] == "share"]
    assert len(own) == len(shared) == 2
    for change in shared:
        assert change["accepted"] == accepted
        assert ("failed: kl" in change["note"]) != accepted
        assert [part["name"] for part in change["tests"]] == ["kl"]
        assert change["parent"] == own[change["agent"]]
    assert [bool(change["cost"]) for change in shared] == [True, False]
    later = {call.key[2]: call.versions["delta"][0] for call in experience(run_dir) if call.key[0] in range(4, 8)}
    assert later == {agent: shared[0]["result"] if accepted else name for agent, name in own.items()}


def test_a_round_without_a_single_win_says_so(tmp_path: Path) -> None:
    outcome = learned_run(tmp_path, learning={"hindsight": 0.0, "explore": None})
    assert [change["note"] for change in changes(outcome.run_dir)] == [
        "nothing to learn from: no attempt was right"
    ] * 2
    assert not any(change["accepted"] for change in changes(outcome.run_dir))


def test_episodes_of_a_group_share_a_puzzle_and_not_their_attempts(tmp_path: Path) -> None:
    outcome = learned_run(tmp_path, learning={"method": "grpo", "group": 4, "hindsight": 0.0, "explore": None})
    records = [r for r in read_records(outcome.run_dir / "journal.jsonl") if r["kind"] in ("episode", "tick")]
    states = [r["state"] for r in records if r["kind"] == "episode"]
    assert len(set(states[:4])) == 1
    assert len(set(states)) == 2
    said = {r["episode"]: r["agents"][0]["action"] for r in records if r["kind"] == "tick" and r["tick"] == 0}
    assert len({said[index] for index in range(4)}) > 1


def test_run_tokens_count_learning_and_end_the_run(tmp_path: Path) -> None:
    outcome = learned_run(tmp_path, budget={"actions": 2, "ticks": 4, "run_tokens": 200})
    assert outcome.reason == "budget: run_tokens"
    assert outcome.exit_code == 0
    ticks = [record for record in read_records(outcome.run_dir / "journal.jsonl") if record["kind"] == "tick"]
    played = {tick["episode"]: tick["spent"]["tokens"] for tick in ticks}
    assert outcome.tokens == sum(played.values()) + sum(change["cost"]["tokens"] for change in changes(outcome.run_dir))


def test_an_exam_has_limits_of_its_own_above_those_of_rounds(tmp_path: Path) -> None:
    """Failed at 949e03a: agents passed once they had acted as often as a round allows, whatever the exam allowed."""
    exam = {"exam": {"episodes": 2, "budget": {"actions": 7, "ticks": 9}}, "steps": 0, "explore": None}
    outcome = learned_run(tmp_path, learning=exam)
    ends = [record for record in read_records(outcome.run_dir / "journal.jsonl") if record["kind"] == "episode_end"]
    assert {end["actions"] for end in ends if end["episode"] < 8 and not end["solved"]} == {2}
    assert {end["actions"] for end in ends if end["episode"] >= 8 and not end["solved"]} == {7}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"agents": {"count": 1, "engine": {"kind": "random"}}}, "set agents.memory: \\[stm, delta\\]"),
        (
            {"agents": {"count": 1, "engine": {"kind": "random"}, "memory": ["stm", "delta"]}},
            "'random' cannot learn",
        ),
        ({"learning": {"every": 4, "method": "grpo"}}, "set `group`"),
        (
            {"learning": {"every": 4, "group": 2, "method": "grpo", "hindsight": 0.0, "explore": {"attempts": 2}}},
            "grpo learns from random attempts by `hindsight` alone",
        ),
        ({"learning": {"every": 4, "hindsight": 0.7, "rehearse": 0.6}}, "must not exceed 1"),
        ({"learning": {"every": 4, "control": "random"}}, "set `exam`"),
        (
            {"learning": {"every": 4, "control": "swapped", "share": "mean", "exam": {"episodes": 2}}},
            "deltas of their own",
        ),
        ({"learning": {"every": 4, "exam": {"episodes": 2, "budget": {"tokens": 0}}}}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_learn_is_refused(tmp_path: Path, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        learning_config(write_base(tmp_path / "base"), **sections)
