"""Agents with an exact memory: what one has read, all can answer; or it alone, or nobody, as the file says."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes.cuts import resume_from_cuts
from fakes.hosts import host_spec
from fakes.memory_policy import shared, versions_given, write_policy
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from swarm.agents.facts import Facts, FactsReader, FactsSection
from swarm.agents.host import Host
from swarm.agents.memory import Place
from swarm.cli import app
from swarm.config.experiment import AgentsConfig, ExperimentConfig
from swarm.errors import SwarmError
from swarm.messages import ActRequest, Handle
from swarm.record.journal import read_records
from swarm.run.experience import experience
from swarm.run.runner import start_run
from swarm.run.tick_loop import Runtime
from swarm.view.memory import view_facts
from swarm.view.replay import replay_run
from ulm.memory.exact import NOTHING
from ulm.tokenizer import Tokenizer

pytestmark = pytest.mark.thorough

ULM = {"kind": "ulm", "model": "m"}
Experiment = Callable[..., tuple[ExperimentConfig, Path]]


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned nothing: what it gets right it owes to its memory."""
    return write_policy(tmp_path_factory.mktemp("policies") / "blank", with_ltm=False)


# ---- who may recall what

TOKENIZER = Tokenizer.bytes()


def facts(folder: Path | None, **settings: Any) -> Facts:
    return Facts(FactsSection.model_validate(settings), Place(folder))


def reader(**settings: Any) -> FactsReader:
    return FactsReader(FactsSection.model_validate(settings), SimpleNamespace(tokenizer=TOKENIZER))  # type: ignore[arg-type]


def learn(memory: Facts, *learned: tuple[str, str, str], episode: int = 0) -> None:
    memory.fold({"kind": "tick", "episode": episode, "memory": {"facts": {"learned": learned}}})


def recalled(index: Any, observation: str) -> str:
    """What follows an observation, token by token."""
    ids = TOKENIZER.encode(observation + "\n")
    said: list[int] = []
    while (token := int(index.following(np.array([ids + said]), 1)[0, 0])) != NOTHING:
        said.append(token)
    return TOKENIZER.decode(said).removesuffix("\n")


def answers(memory: Facts, here: FactsReader, agent: str, *observations: str, episode: int = 0) -> list[str]:
    handle = memory.handle(episode, agent)
    return (
        [""] * len(observations) if handle is None else [recalled(here.open(handle)["facts"], o) for o in observations]
    )


def test_facts_are_shared_or_private_and_the_first_to_say_so_stays_right(tmp_path: Path) -> None:
    for is_shared in (True, False):
        memory = facts(tmp_path / str(is_shared), shared=is_shared)
        here = reader(shared=is_shared)
        assert memory.handle(0, "a0") is None
        learn(memory, ("a0", "asked x", "answer 1"))
        learn(memory, ("a1", "asked x", "answer 2"), ("a1", "asked y", "answer 3"))
        assert answers(memory, here, "a0", "asked x", "asked y") == ["answer 1", "answer 3" if is_shared else ""]
        assert answers(memory, here, "a1", "asked x") == ["answer 1" if is_shared else "answer 2"]
        assert (memory.handle(0, "a0") == memory.handle(0, "a1")) == is_shared


def test_null_controls_keep_the_keys_and_lose_what_they_say(tmp_path: Path) -> None:
    keys = [f"asked {n}" for n in range(5)]
    memory = facts(tmp_path)
    learn(memory, *(("a0", key, f"answer {n}") for n, key in enumerate(keys)))
    assert answers(memory, reader(), "a0", *keys) == [f"answer {n}" for n in range(5)]
    assert answers(memory, reader(control="shuffled"), "a0", *keys) == [f"answer {n}" for n in (1, 2, 3, 4, 0)]
    assert answers(memory, reader(control="capacity_1"), "a0", *keys) == ["", "", "", "", "answer 4"]


def test_a_version_holds_what_was_known_then_whatever_was_learned_later(tmp_path: Path) -> None:
    memory, here = facts(tmp_path), reader()
    versions = []
    for n in range(4):
        learn(memory, ("a0", f"asked {n}", f"answer {n}"))
        versions.append(memory.handle(0, "a0"))
    keys = [f"asked {n}" for n in range(4)]
    for number in (0, 2, 1, 3, 3):  # a reader follows, goes back, and stays
        handle = versions[number]
        assert handle is not None
        index = here.open(handle)["facts"]
        assert [bool(recalled(index, key)) for key in keys] == [n <= number for n in range(4)]


def test_a_call_carries_a_path_and_no_facts_unless_its_host_is_elsewhere(tmp_path: Path) -> None:
    memory = facts(tmp_path)
    for n in range(100):
        learn(memory, ("a0", f"asked {n}", f"answer {n}"))
    handle = memory.handle(0, "a0")
    assert handle is not None
    assert len(pickle.dumps(handle)) < 500
    elsewhere = handle.packed()
    Path(str(handle.content)).unlink()
    assert recalled(reader().open(elsewhere)["facts"], "asked 99") == "answer 99"
    with pytest.raises(OSError, match="No such file"):
        reader().open(handle)


def test_a_file_that_was_cut_is_said_to_be(tmp_path: Path) -> None:
    memory = facts(tmp_path)
    learn(memory, ("a0", "asked 1", "answer 1"), ("a0", "asked 2", "answer 2"))
    handle = memory.handle(0, "a0")
    assert handle is not None
    path = Path(str(handle.content))
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(ValueError, match="facts e0: 1 of 2 are missing"):
        reader().open(handle)


def test_a_resumed_run_writes_the_file_of_a_killed_one_anew(tmp_path: Path) -> None:
    killed = facts(tmp_path)
    learn(killed, ("a0", "asked 1", "answer of a tick that never came on record"))
    killed.handle(0, "a0")
    resumed = facts(tmp_path)
    learn(resumed, ("a0", "asked 1", "answer 1"))
    assert answers(resumed, reader(), "a0", "asked 1") == ["answer 1"]


def test_the_files_of_an_episode_go_with_it(tmp_path: Path) -> None:
    for span, left in (("episode", 0), ("run", 1)):
        memory = facts(tmp_path / span, span=span)
        learn(memory, ("a0", "asked 1", "answer 1"), episode=3)
        memory.handle(3, "a0")
        assert list(memory.after_episode({"episode": 3}, [3])) == []
        memory.fold({"kind": "episode_end", "episode": 3})
        assert len(list((tmp_path / span).iterdir())) == left
        assert (memory.handle(4, "a1") is not None) == (span == "run")


LEARNED = st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "y", "z"]), st.sampled_from("012"))


@settings(max_examples=25, deadline=None)
@given(
    ticks=st.lists(st.lists(LEARNED, max_size=3), max_size=4),
    opened=st.lists(st.booleans(), min_size=4, max_size=4),
    control=st.sampled_from(["none", "shuffled", "capacity_1"]),
)
def test_a_reader_that_follows_finds_what_one_that_begins_anew_finds(
    tmp_path_factory: pytest.TempPathFactory, ticks: list[list[tuple[str, str, str]]], opened: list[bool], control: str
) -> None:
    memory, follower = facts(tmp_path_factory.mktemp("facts"), control=control), reader(control=control)
    keys = ("x", "y", "z")
    for learned, is_open in zip(ticks, opened, strict=False):
        learn(memory, *learned)
        if is_open:
            assert answers(memory, follower, "a", *keys) == answers(memory, reader(control=control), "a", *keys)


@pytest.mark.parametrize(
    ("agents", "words"),
    [
        ({"memory": ["facts"]}, "must name `stm`"),
        ({"memory": ["stm", {"kind": "facts", "size": 3}]}, "size"),
        ({"memory": ["stm", {"kind": "facts", "shared": 1}]}, "valid boolean"),
        ({"memory": ["stm", "facts"], "engine": ULM | {"prompt": "chat"}}, "set engine.prompt: plain"),
        ({"memory": ["stm", "facts"], "engine": {"kind": "transformers", "model": "m"}}, "facts needs engine 'ulm'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(agents: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        AgentsConfig.model_validate({"engine": ULM, **agents})


# ---- one host


def test_a_host_recalls_what_each_request_may_know_and_nothing_else(policy: Path) -> None:
    agents = AgentsConfig.model_validate({"engine": ULM, "temperature": 0.0, "memory": ["stm", "facts"]})
    host = Host(host_spec(agents, threads_per_host=1), {"m": shared(policy)})

    def known(name: str, *pairs: tuple[str, str]) -> tuple[Handle, ...]:
        lines = "".join(f"{json.dumps([key, action])}\n" for key, action in pairs)
        return (Handle("facts", (name, len(pairs)), lines.encode()),)

    first, second = ("asked one\n", "answer first\n"), ("asked two\n", "answer next room\n")
    short, grown, other = known("e0", first), known("e0", first, second), known("e1", ("asked one\n", "answer lamp\n"))

    def ask(tick: int, *calls: tuple[str, tuple[Handle, ...]]) -> list[str]:
        requests = [ActRequest((0, tick, f"a{i}"), prompt, 12, None, held) for i, (prompt, held) in enumerate(calls)]
        return [reply.text for reply in host.act(requests)]

    bare = ask(0, ("asked one\n", ()), ("asked two\n", ()))
    assert ask(1, ("asked one\n", short), ("asked two\n", short)) == ["answer first", bare[1]]
    # A run never asks so, but no batch mixes versions up: one agent's memory has grown and another's has not.
    assert ask(2, ("asked two\n", grown), ("asked two\n", short), ("asked one\n", other)) == [
        "answer next room",
        bare[1],
        "answer lamp",
    ]
    assert ask(3, ("asked one\n", grown), ("asked one\n", ()), ("asked two\n", other)) == ["answer first", *bare]


# ---- whole runs

OPTIONS = {"desks": 3, "pages": 2, "facts": 1, "questions": 2, "foreign": 0.5}


@pytest.fixture
def facts_run(experiment: Experiment, policy: Path, tmp_path: Path) -> Callable[..., Any]:
    def run(name: str, **changes: Any) -> tuple[tuple[ExperimentConfig, Path], Path]:
        agents = {
            "count": 3,
            "engine": {"kind": "ulm", "model": str(policy)},
            "memory": ["stm", "facts"],
            "temperature": 0.0,
            "constrained": True,
            "max_new_tokens": 24,
            **changes.pop("agents", {}),
        }
        made = experiment(
            world={"id": "facts-v0", "options": OPTIONS},
            coordinator={"kind": "none"},
            topology={"kind": "none"},
            budget={"tokens": None, "ticks": 12},
            agents=agents,
            **{"episodes": 2, **changes},
        )
        return made, tmp_path / name

    return run


def right(folder: Path) -> int:
    ticks = [record for record in read_records(folder / "journal.jsonl") if record["kind"] == "tick"]
    return sum(entry["feedback"] == "right" for record in ticks for entry in record["agents"])


def test_what_others_have_read_is_answered_only_where_facts_are_shared(facts_run: Callable[..., Any]) -> None:
    found = {}
    for name, agents in {
        "shared": {},
        "private": {"shared": False},
        "shuffled": {"control": "shuffled"},
        "off": None,
    }.items():
        memory = ["stm"] if agents is None else ["stm", {"kind": "facts", **agents}]
        made, folder = facts_run(name, agents={"memory": memory})
        start_run(*made, folder)
        assert replay_run(folder, check=True).finished
        found[name] = right(folder)
    assert found == {"shared": 12, "private": 6, "shuffled": 0, "off": 0}


def test_the_journal_says_who_wrote_what_and_when(facts_run: Callable[..., Any]) -> None:
    made, folder = facts_run("provenance", episodes=1)
    start_run(*made, folder)
    first = next(record for record in read_records(folder / "journal.jsonl") if record["kind"] == "tick")
    learned = first["memory"]["facts"]["learned"]
    assert [agent for agent, *_ in learned] == ["a0", "a1", "a2"]
    for _, observation, action in learned:
        assert observation.startswith("asked ")
        assert action.startswith("answer ")


def test_memory_show_names_what_an_agent_can_recall_and_who_wrote_it(facts_run: Callable[..., Any]) -> None:
    for is_shared in (True, False):
        made, folder = facts_run(
            f"shown-{is_shared}", agents={"memory": ["stm", {"kind": "facts", "shared": is_shared}]}
        )
        start_run(*made, folder)
        items = view_facts(folder, "a1")
        assert {item.source for item in items} == ({"a0", "a1", "a2"} if is_shared else {"a1"})
        assert {item.episode for item in items} == {1}
        assert all(item.action.startswith("answer ") for item in items)
        shown = CliRunner().invoke(app, ["memory", "show", str(folder), "a1", "--episode", "0"])
        assert shown.exit_code == 0, shown.output
        assert "facts that a1 can recall" in shown.output
    with pytest.raises(SwarmError, match="no agent 'a7'; agents: a0, a1, a2"):
        view_facts(folder, "a7")
    with pytest.raises(SwarmError, match="no episode 5"):
        view_facts(folder, "a1", 5)


def test_a_run_that_is_cut_off_anywhere_goes_on_with_what_was_known(facts_run: Callable[..., Any]) -> None:
    for span in ("episode", "run"):
        made, folder = facts_run(f"whole-{span}", agents={"memory": ["stm", {"kind": "facts", "span": span}]})
        start_run(*made, folder)
        resume_from_cuts(folder)


def test_experience_names_the_version_that_each_call_was_given(
    facts_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, folder = facts_run("versions", agents={"memory": ["stm", {"kind": "facts", "span": "run"}]})
    given = versions_given(monkeypatch)
    start_run(*made, folder)
    assert {call.key: call.versions for call in experience(folder)} == given
    assert given[1, 0, "a0"] == {"facts": ("run", 6)}


def test_facts_outlive_an_episode_only_if_asked_for(facts_run: Callable[..., Any]) -> None:
    known: dict[str, list[int]] = {}
    for span in ("episode", "run"):
        made, folder = facts_run(span, agents={"memory": ["stm", {"kind": "facts", "span": span}]})
        lengths: list[int] = []
        real = Runtime._open

        def opened(self: Runtime, index: int, *level: Any, real: Any = real, lengths: list[int] = lengths) -> Any:
            handles = (memory.handle(index, "a0") for memory in self.memories)
            lengths.append(sum(handle.version[1] for handle in handles if handle is not None))
            return real(self, index, *level)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Runtime, "_open", opened)
            start_run(*made, folder)
        known[span] = lengths
    assert known == {"episode": [0, 0], "run": [0, 6]}
