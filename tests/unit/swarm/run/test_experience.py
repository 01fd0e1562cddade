"""Experience is what was read and answered in play, word for word, with what came of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.records import rewrite
from fakes.scripted_run import ScriptedPool, play
from fakes.toy_run import GuessingPool, toy_config
from fakes.won_run import write_run

from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.messages import ActReply, ActRequest
from swarm.record.outcomes import read_run
from swarm.run.experience import experience
from worlds.numbers.solver import expressions

ECHO = {"kind": "echo"}


class Listening(GuessingPool):
    """Remembers what it was asked, and by whom it was answered how."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[tuple[int, int, str], tuple[str, str]] = {}

    def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
        replies = super().act(requests)
        self.asked |= {r.key: (r.prompt, reply.text) for r, reply in zip(requests, replies, strict=True)}
        return replies


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"concurrency": 2, "topology": {"kind": "ring"}},
        {"agents": {"count": 4, "engine": ECHO, "history": 2}, "coordinator": {"kind": "rules", "every_ticks": 2}},
        {"agents": {"count": 3, "engine": ECHO, "turns": "one_at_a_time"}, "coordinator": {"kind": "none"}},
    ],
)
def test_prompts_and_answers_are_those_of_play(tmp_path: Path, sections: dict[str, Any]) -> None:
    base = {"count": 4, "engine": ECHO}
    pool, config = Listening(), toy_config(episodes=4)
    data = {**config.model_dump(), "agents": base, **sections}
    play(tmp_path / "run", type(config).model_validate(data), pool)
    calls = list(experience(tmp_path / "run"))
    assert {call.key: (call.prompt, call.answer) for call in calls} == pool.asked
    assert len(calls) == len(pool.asked) >= 20
    assert {call.role for call in calls} == {"agent"}  # no playbook knows the toy world


def test_feedback_reward_fault_and_outcome_stand_with_each_call(tmp_path: Path) -> None:
    play(tmp_path / "run", toy_config(episodes=6, agents=8), GuessingPool())
    calls = list(experience(tmp_path / "run"))
    solved = {puzzle.episode: puzzle.solved for puzzle in read_run(tmp_path / "run").puzzles}
    assert set(solved.values()) == {True, False}
    assert all(call.solved == solved[call.key[0]] for call in calls)
    assert {call.feedback for call in calls if call.reward} == {"hit"}
    assert {call.fault for call in calls} == {None, "call timed out after 60 s"}
    assert all(not call.feedback for call in calls if call.fault)


class _Remembering(ScriptedPool):
    """Agents of scripted weights with a long-term memory, which each call changes; remembers what calls were given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[tuple[int, int, str], dict[str, tuple[str, int]]] = {}

    def answer(self, request: ActRequest) -> ActReply:
        self.given[request.key] = {handle.kind: handle.version for handle in request.memories}
        luck = random.Random(str(request.key))
        return ActReply(request.key, str(luck.randint(1, 30)), 10, 3, updates=(("ltm", b"memory"),))


@pytest.mark.parametrize("span", ["episode", "run"])
def test_each_call_names_the_versions_of_what_its_agent_kept(tmp_path: Path, span: str) -> None:
    agents = {
        "count": 3,
        "engine": {"kind": "ulm", "model": "policies/agent"},
        "memory": ["stm", {"kind": "ltm", "span": span}, {"kind": "facts", "span": span}],
    }
    pool = _Remembering()
    data = {**toy_config(episodes=3).model_dump(), "agents": agents}
    play(tmp_path / "run", ExperimentConfig.model_validate(data), pool)
    calls = list(experience(tmp_path / "run"))
    assert {call.key: call.versions for call in calls} == pool.given
    assert any(set(call.versions) == {"ltm", "facts"} for call in calls)
    names = {name for call in calls for name, _ in call.versions.values()}
    assert any(name.startswith("e2") for name in names) == (span == "episode")


def test_a_coordinators_briefings_and_answers_are_those_of_play(tmp_path: Path) -> None:
    """The scripted coordinator chooses whatever it can make, so its answers are known."""
    run = write_run(tmp_path / "run", [True] * 6)
    calls = [call for call in experience(run) if call.role == "coordinator"]
    assert len(calls) > 10
    for call in calls:
        tiles, _, menu = call.prompt.removeprefix("half ").strip().partition(" make ")
        made = expressions(tuple(map(int, tiles.split())))
        known = [word for word in menu.split() if int(word) in made]
        assert call.answer.split() == known[:2], call  # it directs two agents
    assert any(call.answer for call in calls)
    assert any(call.reward for call in calls)


def test_a_directed_call_tells_its_prompt_without_the_directive(tmp_path: Path) -> None:
    calls = [call for call in experience(write_run(tmp_path / "run", [True] * 6)) if call.role == "agent"]
    directed = [call for call in calls if call.undirected]
    assert 0 < len(directed) < len(calls)
    for call in directed:
        *others, directive = call.prompt.splitlines()
        assert "[" in directive
        assert call.undirected.splitlines() == others


def test_a_world_that_goes_another_way_is_named_by_its_line(tmp_path: Path) -> None:
    play(tmp_path, toy_config(), GuessingPool())

    def forge(record: Any) -> None:
        if record["kind"] == "tick" and record["episode"] == 1:
            record["state"] = "0" * 64

    rewrite(tmp_path, forge)
    with pytest.raises(SwarmError, match=r"journal line \d+: the world went another way"):
        list(experience(tmp_path))


def test_a_folder_without_its_experiment_is_one_line(tmp_path: Path) -> None:
    play(tmp_path, toy_config(), GuessingPool())
    (tmp_path / "experiment.yaml").unlink()
    with pytest.raises(SwarmError, match=r"experiment.yaml cannot be read"):
        list(experience(tmp_path))
    with pytest.raises(SwarmError, match="no journal at"):
        list(experience(tmp_path / "nowhere"))
