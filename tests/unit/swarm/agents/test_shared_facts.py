"""Agents with an exact memory: what one has read, all can answer; or it alone, or nobody, as the file says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.memory_policy import shared, write_policy
from pydantic import ValidationError
from typer.testing import CliRunner

from swarm.agents.host import Host, HostSpec
from swarm.agents.shared_facts import SwarmFacts
from swarm.cli import app
from swarm.config.experiment import AgentsConfig, CoordinatorConfig, EngramSection, ExperimentConfig
from swarm.errors import SwarmError
from swarm.messages import ActRequest, FactsKnown
from swarm.record.journal import read_records
from swarm.run.runner import resume_run, start_run
from swarm.view.memory import view_facts
from swarm.view.replay import replay

Experiment = Callable[..., tuple[ExperimentConfig, Path]]


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned nothing: what it gets right it owes to its memory."""
    return write_policy(tmp_path_factory.mktemp("policies") / "blank", with_ltm=False)


# ---- who may recall what


def test_facts_are_shared_or_private_and_the_first_to_say_so_stays_right() -> None:
    for is_shared in (True, False):
        facts = SwarmFacts(EngramSection(shared=is_shared))
        assert facts.known("a0") == ()
        facts.write("a0", [("asked x", "answer 1")])
        facts.write("a1", [("asked x", "answer 2"), ("asked y", "answer 3")])
        assert facts.known("a0")[0] == ("asked x\n", "answer 1\n")
        assert len(facts.known("a0")) == (2 if is_shared else 1)
        assert facts.known("a1")[0][1] == ("answer 1\n" if is_shared else "answer 2\n")
        assert (facts.known("a0") is facts.known("a1")) == is_shared


def test_null_controls_keep_the_keys_and_lose_what_they_say() -> None:
    pairs = [(f"asked {n}", f"answer {n}") for n in range(5)]
    plain, shuffled, one = (
        SwarmFacts(EngramSection.model_validate({"control": control})) for control in ("none", "shuffled", "capacity_1")
    )
    for facts in (plain, shuffled, one):
        facts.write("a0", pairs)
    assert [key for key, _ in shuffled.known("a0")] == [key for key, _ in plain.known("a0")]
    assert not set(shuffled.known("a0")) & set(plain.known("a0"))
    assert one.known("a0") == (("asked 4\n", "answer 4\n"),)


@pytest.mark.parametrize(
    ("agents", "words"),
    [
        ({"memory": ["engram"]}, "must name `stm`"),
        ({"engram": {"shared": False}}, "add engram to `memory`"),
        ({"memory": ["stm", "engram"], "engram": {"size": 3}}, "size"),
    ],
)
def test_settings_that_do_not_fit_are_refused(agents: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        AgentsConfig.model_validate({"engine": {"kind": "ulm", "model": "m"}, **agents})


# ---- one host


def test_a_host_recalls_what_each_request_may_know_and_nothing_else(policy: Path) -> None:
    agents = AgentsConfig.model_validate(
        {"engine": {"kind": "ulm", "model": "m"}, "temperature": 0.0, "memory": ["stm", "engram"]}
    )
    host = Host(HostSpec(7, agents, CoordinatorConfig(), "echo-v0", 60.0, threads=1), {"m": shared(policy)})
    short: FactsKnown = (("asked one\n", "answer first\n"),)
    grown: FactsKnown = (*short, ("asked two\n", "answer next room\n"))
    other: FactsKnown = (("asked one\n", "answer lamp\n"),)

    def ask(tick: int, *calls: tuple[str, FactsKnown]) -> list[str]:
        requests = [ActRequest((0, tick, f"a{i}"), prompt, 12, None, None, f) for i, (prompt, f) in enumerate(calls)]
        return [reply.text for reply in host.act(requests)]

    bare = ask(0, ("asked one\n", ()), ("asked two\n", ()))
    assert ask(1, ("asked one\n", short), ("asked two\n", short)) == ["answer first", bare[1]]
    # In one batch, one agent's memory has grown and another's has not.
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
            "memory": ["stm", "engram"],
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
        "private": {"engram": {"shared": False}},
        "shuffled": {"engram": {"control": "shuffled"}},
        "off": {"memory": ["stm"]},
    }.items():
        made, folder = facts_run(name, agents=agents)
        start_run(*made, folder)
        assert replay(folder, check=True).finished
        found[name] = right(folder)
    assert found == {"shared": 12, "private": 6, "shuffled": 0, "off": 0}


def test_the_journal_says_who_wrote_what_and_when(facts_run: Callable[..., Any]) -> None:
    made, folder = facts_run("provenance", episodes=1)
    start_run(*made, folder)
    first = next(record for record in read_records(folder / "journal.jsonl") if record["kind"] == "tick")
    for entry in first["agents"]:
        ((observation, action),) = entry["facts"]
        assert observation.startswith("asked ")
        assert action.startswith("answer ")


def test_memory_show_names_what_an_agent_can_recall_and_who_wrote_it(facts_run: Callable[..., Any]) -> None:
    for is_shared in (True, False):
        made, folder = facts_run(f"shown-{is_shared}", agents={"engram": {"shared": is_shared}})
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
        made, folder = facts_run(f"whole-{span}", agents={"memory_span": span})
        start_run(*made, folder)
        journal = folder / "journal.jsonl"
        whole = journal.read_bytes()
        lines = whole.splitlines(keepends=True)
        for cut in range(2, len(lines)):
            journal.write_bytes(b"".join(lines[:cut]))
            resume_run(folder)
            assert journal.read_bytes() == whole


def test_facts_outlive_an_episode_only_if_asked_for(facts_run: Callable[..., Any]) -> None:
    known: dict[str, list[int]] = {}
    for span in ("episode", "run"):
        made, folder = facts_run(span, agents={"memory_span": span})
        from swarm.run import tick_loop as runtime

        lengths: list[int] = []
        real = runtime.Runtime._open

        def opened(self: Any, index: int, real: Any = real, lengths: list[int] = lengths) -> Any:
            episode = real(self, index)
            lengths.append(len(episode.facts.known("a0")))
            return episode

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runtime.Runtime, "_open", opened)
            start_run(*made, folder)
        known[span] = lengths
    assert known == {"episode": [0, 0], "run": [0, 6]}
