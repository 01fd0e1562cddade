"""A coordinator from a package that is not ours: found by its name, made, run, shuffled; broken ones are one line."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarm.config.coordinator import COORDINATORS, CoordinatorConfig
from swarm.config.experiment import ExperimentConfig
from swarm.config.load import load_experiment
from swarm.config.section import Section
from swarm.coordinator.kinds import make_coordinator
from swarm.coordinator.protocol import Coordinator, Setup
from swarm.errors import SwarmError
from swarm.messages import DirectReply, DirectRequest
from swarm.record.journal import read_records
from swarm.run.runner import resume_run, start_run

Experiment = Callable[..., tuple[ExperimentConfig, Path]]


class CallOptions(Section):
    word: str = "hello"


class CallByName(Coordinator):
    """Tells every agent its own name, without a model and in any world."""

    Options = CallOptions

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        assert isinstance(setup.options, CallOptions)
        self.word = setup.options.word

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        return [self._direct(request) for request in requests]

    def _direct(self, request: DirectRequest) -> DirectReply:
        said = {agent: f"{self.word} {agent}" for agent in request.agents}
        return DirectReply(request.key, said, 0, sum(self.setup.count_tokens(list(said.values()))))


class Silent(Coordinator):
    """Forgets to answer."""

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        return []


class Half(Coordinator):
    """Its author forgot `direct`."""


class Careless(CallByName):
    """Asks for what it did not say that it needs."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.book = setup.playbook


class Crashing(CallByName):
    """Cannot be made."""

    def __init__(self, setup: Setup) -> None:
        raise KeyError("no map")


class Counting(CallByName):
    """Counts with numpy."""

    def _direct(self, request: DirectRequest) -> DirectReply:
        reply = super()._direct(request)
        said = {agent: np.str_(text) for agent, text in reply.directives.items()}
        return replace(reply, directives=said, generated_tokens=np.int64(reply.generated_tokens))  # type: ignore[arg-type]


class Halving(CallByName):
    """Says half a character."""

    def _direct(self, request: DirectRequest) -> DirectReply:
        return DirectReply(request.key, dict.fromkeys(request.agents, "half \ud83e"))


NAMES = {
    "counting": "Counting",
    "halving": "Halving",
    "by-name": "CallByName",
    "silent": "Silent",
    "half": "Half",
    "careless": "Careless",
    "crashing": "Crashing",
}


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """Install a package with all of the above, one with a class that is no coordinator, and one that cannot load."""
    group = "ulm_swarm.coordinators"
    outside = types.ModuleType("outside")
    for name in NAMES.values():
        setattr(outside, name, globals()[name])
    monkeypatch.setitem(sys.modules, "outside", outside)
    entries = [EntryPoint(name, f"outside:{value}", group) for name, value in NAMES.items()]
    entries += [EntryPoint("number", "fractions:Fraction", group), EntryPoint("gone", "not_there_at_all:X", group)]
    monkeypatch.setattr("worlds.entry_points.entry_points", lambda group: entries if group == entries[0].group else [])
    return entries


def made(kind: str, **settings: Any) -> Coordinator:
    config = CoordinatorConfig.model_validate({"kind": kind, **settings})
    return make_coordinator(config, "numbers-v0", None, lambda texts: [1 for _ in texts])


def directives(journal: Path) -> list[dict[str, str]]:
    return [dict(record["directives"]) for record in read_records(journal) if record["kind"] == "tick"]


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_run_is_directed_by_a_coordinator_of_another_package(
    experiment: Experiment, tmp_path: Path, shuffled: bool
) -> None:
    section = {"kind": "by-name", "options": {"word": "go"}, "shuffled": shuffled}
    config, path = experiment(coordinator=section, agents={"engine": {"kind": "random"}}, budget={"tokens": 3000})
    run_dir = start_run(config, path, tmp_path / "run").run_dir
    told = directives(run_dir / "journal.jsonl")
    names = ["a0", "a1", "a2", "a3"]
    assert len(told) > 1
    for said in told:
        assert sorted(said.values()) == [f"go {name}" for name in names]
        assert [said[name] == f"go {name}" for name in names] == [not shuffled] * 4
    journal = run_dir / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(b"".join(whole.splitlines(keepends=True)[:4]))
    resume_run(run_dir)
    assert journal.read_bytes() == whole


def test_a_reply_that_answers_nothing_is_a_fault_of_the_call(experiment: Experiment, tmp_path: Path) -> None:
    config, path = experiment(coordinator={"kind": "silent"}, agents={"engine": {"kind": "random"}})
    outcome = start_run(config, path, tmp_path / "run")
    assert (outcome.reason, outcome.faults > 0) == ("finished", True)


def test_numbers_of_numpy_in_a_reply_are_taken(experiment: Experiment, tmp_path: Path) -> None:
    """Failed at a7f87d3: TypeError: Object of type int64 is not JSON serializable."""
    for kind in ("by-name", "counting"):
        config, path = experiment(coordinator={"kind": kind}, agents={"engine": {"kind": "random"}})
        start_run(config, path, tmp_path / kind)
    journals = [list(read_records(tmp_path / kind / "journal.jsonl"))[1:] for kind in ("by-name", "counting")]
    assert [{**r, "hash": "", "prev": ""} for r in journals[0]] == [{**r, "hash": "", "prev": ""} for r in journals[1]]


def test_half_a_character_in_a_directive_is_a_fault_of_the_call(experiment: Experiment, tmp_path: Path) -> None:
    """Failed at a7f87d3: it went on record and on to the agents."""
    config, path = experiment(coordinator={"kind": "halving"}, agents={"engine": {"kind": "random"}})
    start_run(config, path, tmp_path / "run")
    ticks = [r for r in read_records(tmp_path / "run" / "journal.jsonl") if r["kind"] == "tick"]
    assert ticks
    for tick in ticks:
        assert "direct() returned half a surrogate pair in '0.directives.a0'" in tick["coordinator"]["fault"]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("half", r"coordinator 'half' comes from the package outside:Half .*, which lacks direct; fix or uninstall it"),
        ("number", r"'number' comes .*, which is not a subclass of swarm\.coordinator\.protocol\.Coordinator"),
        ("gone", r"'gone' comes .*, which failed to load: ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("by-nam", r"no coordinator 'by-nam'; did you mean 'by-name'\? There are none, rules, model, human, by-name, "),
    ],
)
def test_a_coordinator_that_cannot_be_found_is_one_line_at_its_place_in_the_file(
    tmp_path: Path, kind: str, says: str
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"world: {{id: numbers-v0}}\nagents: {{engine: {{kind: echo}}}}\ncoordinator:\n  kind: {kind}\n")
    with pytest.raises(SwarmError, match=rf"^\S+x.yaml:4: coordinator.kind: .*{says}") as caught:
        load_experiment(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        ("careless", {}, "coordinator 'careless' asks for a playbook and does not say `needs_playbook`"),
        ("crashing", {}, "coordinator 'crashing' cannot be made: KeyError: 'no map'"),
        ("by-name", {"options": {"wrod": "x"}}, r"coordinator\.options\.wrod: Extra inputs are not permitted"),
    ],
)
def test_a_coordinator_that_cannot_be_made_is_one_line(kind: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SwarmError, match=says):
        made(kind, **settings)


def test_options_of_a_coordinator_are_checked_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(
        "world: {id: numbers-v0}\nagents: {engine: {kind: echo}}\n"
        "coordinator:\n  kind: by-name\n  options: {wrod: go}\n"
    )
    with pytest.raises(SwarmError, match=r"x.yaml:5: unknown key 'wrod' in 'coordinator.options'; did you mean 'word'"):
        load_experiment(file)


def test_a_name_that_two_packages_claim_is_refused(packages: list[EntryPoint]) -> None:
    packages.append(EntryPoint("by-name", "elsewhere:CallByName", packages[0].group))
    with pytest.raises(SwarmError, match=r"'by-name' is claimed by elsewhere:CallByName and outside:CallByName"):
        COORDINATORS.find("by-name")
