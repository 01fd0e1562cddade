"""Agents with a registry: what they note is on record, all look it up, and the journal gives it back."""

from __future__ import annotations

import json
import pickle
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.archive_reader import ArchiveReaders
from fakes.cuts import resume_from_cuts
from fakes.memory_policy import write_policy
from fakes.scripted_run import play, standing_in
from pydantic import ValidationError

from swarm.agents.memory import Place
from swarm.agents.models import load_models
from swarm.agents.registry import Registry, RegistryReader, RegistrySection
from swarm.config.experiment import AgentsConfig, ExperimentConfig
from swarm.errors import SwarmError
from swarm.record.journal import read_records
from swarm.run.experience import experience
from swarm.run.runner import resume_run
from swarm.view.memory import view_changes
from swarm.view.replay import replay_run
from ulm.memory.registry import EntityRegistry, Identity, Origin, Relation
from worlds.protocol import Claim

SMALL = {"persons": 12, "archives": 3, "questions": 4, "hops": 2, "unanswerable": 0.25, "reading": 0.5}
FLAGS = {"works_for": ("functional",), "seat": ("functional",), "trade": ("functional", "constant", "is_property")}


def experiment(**changes: Any) -> ExperimentConfig:
    registry = {"kind": "registry", **changes.pop("registry", {})}
    agents: dict[str, Any] = {"count": 3, "engine": {"kind": "ulm", "model": "rules"}, "max_new_tokens": 400}
    return ExperimentConfig.model_validate(
        {
            "name": "archive",
            "world": {"id": "archive-v0", "options": SMALL},
            "agents": agents | {"memory": ["stm", registry]},
            "coordinator": {"kind": "rules"},
            "episodes": 2,
            **changes,
        }
    )


def played(folder: Path, config: ExperimentConfig) -> Path:
    run_dir = folder / "run"
    play(run_dir, config, ArchiveReaders(config))
    return run_dir


def right(run_dir: Path) -> list[bool]:
    """Return for each answer whether it was right."""
    entries = [e for r in read_records(run_dir / "journal.jsonl") if r["kind"] == "tick" for e in r["agents"]]
    return [entry["reward"] > 0 for entry in entries if entry["action"].startswith("answer ")]


# ---- a whole run


def test_readers_with_one_registry_answer_nearly_all_and_the_journal_has_what_they_looked_up(tmp_path: Path) -> None:
    run_dir = played(tmp_path, experiment())
    assert len(right(run_dir)) == 8
    assert sum(right(run_dir)) >= 7  # a short name that two have may be taken for the other
    records = [r for r in read_records(run_dir / "journal.jsonl") if r["kind"] == "tick"]
    noted = [r["memory"]["registry"] for r in records if r["memory"]]
    assert sum(len(one["claims"]) for one in noted) > 20
    answers = [e for r in records for e in r["agents"] if e["action"].startswith("answer ")]
    assert all(e["inlined"] and e["action"][slice(*e["inlined"][0])].strip() for e in answers)
    assert not list((run_dir / "memory").glob("registry-*"))  # an episode is over, and its registry with it


@pytest.mark.parametrize("settings", [{}, {"shared": False}, {"span": "run"}])
def test_a_run_that_is_cut_off_anywhere_goes_on_with_what_was_noted(tmp_path: Path, settings: Any) -> None:
    config = experiment(registry=settings)
    run_dir = played(tmp_path, config)

    def resume(folder: Path) -> None:
        with standing_in(ArchiveReaders(config)):
            resume_run(folder)

    resume_from_cuts(run_dir, resume, step=3)


def test_a_replay_needs_no_model_and_a_registry_that_comes_out_otherwise_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = played(tmp_path, experiment())
    assert replay_run(run_dir, check=True).changes == 2
    changes = view_changes(run_dir, "registry")
    assert [(one["cause"], one["agent"]) for one in changes] == [("forget", None)] * 2
    calls = list(experience(run_dir))
    assert {call.key[2] for call in calls} >= {"a0", "a1", "a2", "coordinator"}
    other = Identity.by_text()
    monkeypatch.setattr(Identity, "load", lambda: other)  # other code decides otherwise who is meant
    for read in (lambda: list(experience(run_dir)), lambda: replay_run(run_dir, check=True)):
        with pytest.raises(SwarmError, match=r"registry e0 is not what it was at tick [0-9]+ of episode 0"):
            read()


@pytest.mark.parametrize(
    "settings",
    [
        {"control": "no_reads"},
        {"control": "shuffled_values"},
        {"control": "shuffled_subjects"},
        {"control": "capacity_1"},
        {"shared": False},
    ],
)
def test_null_controls_answer_next_to_nothing(tmp_path: Path, settings: Mapping[str, Any]) -> None:
    run_dir = played(tmp_path, experiment(registry=settings))
    assert sum(right(run_dir)) <= 5  # two of eight questions have no answer, and in so small a town values are few


# ---- the memory alone


def registry(folder: Path | None, **settings: Any) -> Registry:
    return Registry(RegistrySection.model_validate(settings), Place(folder, claims=FLAGS))


def tick(number: int, claims: Mapping[str, list[Claim]], forged: Mapping[str, list[str]], to: Registry) -> Any:
    """Let a memory take in a tick as the loop does."""
    agents = sorted({*claims, *forged})
    entry = {"action": "note", "feedback": "", "valid": True, "reward": 0.0, "prompt_tokens": 1, "generated_tokens": 1}
    told = [{**entry, "agent": a} for a in agents]
    record: Any = {"kind": "tick", "episode": 0, "tick": number, "seq": 10 + number, "agents": told}
    infos = {a: {"claims": claims.get(a, []), "forged": forged.get(a, [])} for a in agents}
    record["memory"] = {}
    if body := to.after_tick(record, SimpleNamespace(infos=infos), {}):  # type: ignore[arg-type]
        record["memory"] = {"registry": json.loads(json.dumps(body))}
    to.fold(record)
    for change in to.pending():
        to.fold(change.as_record())
    return record


MARA = [
    Claim("doc 1", "mara voss", "person", "works_for", "brask mills", "firm", 8),
    Claim("doc 1", "mara voss", "person", "trade", "smith", "", 8),
]
BRASK = [Claim("doc 2", "brask mills", "firm", "seat", "tarn", "place", 8)]
FALSE = [Claim("doc 3", "brask mills", "firm", "seat", "holm", "place", 9)]


def asked(memory: Registry, agent: str, text: str) -> str | None:
    """Look up as a host does that has only what is sent to it."""
    handle = memory.handle(0, agent)
    reader = RegistryReader(memory.settings, SimpleNamespace())  # type: ignore[arg-type]
    answers = {reader.open(one)["inline"]("", text) for one in (handle, pickle.loads(pickle.dumps(handle.packed())))}  # noqa: S301
    assert len(answers) == 1
    return answers.pop()


def test_what_one_notes_all_look_up_where_they_share_it(tmp_path: Path) -> None:
    memory = registry(tmp_path)
    tick(0, {"a0": MARA, "a1": BRASK}, {}, memory)
    for agent in ("a0", "a1", "a2"):
        assert asked(memory, agent, "[mara voss] : works_for seat =") == " tarn"
    lookup = memory.lookup(0)
    assert lookup is not None
    far = pickle.loads(pickle.dumps(lookup))  # noqa: S301
    assert far("[mara voss] : works_for =") == "brask mills"
    assert lookup("who is that ?") is None


def test_a_private_registry_has_what_its_agent_noted(tmp_path: Path) -> None:
    memory = registry(tmp_path, shared=False)
    tick(0, {"a0": MARA, "a1": BRASK}, {}, memory)
    assert asked(memory, "a0", "[mara voss] : works_for =") == " brask mills"
    assert asked(memory, "a0", "[mara voss] : works_for seat =") == " unknown"
    assert asked(memory, "a2", "[mara voss] : works_for =") == " unknown"
    assert memory.lookup(0) is None


def test_a_forged_source_is_forgotten_and_what_it_still_says_is_not_noted(tmp_path: Path) -> None:
    memory = registry(tmp_path)
    tick(0, {"a0": MARA + BRASK, "a1": FALSE}, {}, memory)
    assert asked(memory, "a0", "[mara voss] : works_for seat =") == " holm"
    tick(1, {}, {"a0": ["doc 3"], "a1": ["doc 3"]}, memory)
    assert asked(memory, "a0", "[mara voss] : works_for seat =") == " tarn"
    tick(2, {"a2": FALSE}, {}, memory)
    assert asked(memory, "a0", "[mara voss] : works_for seat =") == " tarn"


def test_a_forged_source_is_forgotten_by_a_change_which_a_kill_before_it_only_delays(tmp_path: Path) -> None:
    memory = registry(tmp_path / "one", shared=False)
    records = [
        tick(0, {"a0": BRASK + FALSE, "a1": BRASK}, {}, memory),
        tick(1, {}, {"a0": ["doc 3"], "a1": ["doc 3"]}, memory),
    ]
    killed = registry(tmp_path / "other", shared=False)
    for record in records:
        killed.fold(record)
    assert asked(killed, "a0", "[brask mills] : seat =") == " holm"
    (change,) = killed.pending()  # a1 had nothing of it
    assert (change.memory, change.agent, change.cause, change.evidence["records"]) == (
        "registry",
        "a0",
        "forget",
        [11, 11],
    )
    assert asked(killed, "a0", "[brask mills] : seat =") == " holm", "nothing has changed before it is on record"
    told = change.as_record()
    killed.fold(told)
    assert asked(killed, "a0", "[brask mills] : seat =") == " tarn"
    assert list(killed.pending()) == []
    assert change.result == killed.registry(0, "a0").digest == memory.registry(0, "a0").digest
    with pytest.raises(SwarmError, match="registry e0-a0 is not what it was before doc 3 was forgotten"):
        killed.fold(told)


def test_records_give_the_registry_back_and_what_a_kill_left_behind_goes(tmp_path: Path) -> None:
    memory = registry(tmp_path)
    records = [tick(0, {"a0": MARA}, {}, memory), tick(1, {"a1": BRASK}, {}, memory)]
    tick(2, {"a1": FALSE}, {}, memory)  # is on no record
    again = registry(tmp_path)
    alone = registry(None)
    for record in records:
        again.fold(record)
        alone.fold(record)
    assert again.version(0, "a0") == alone.version(0, "a0")
    assert asked(again, "a0", "[brask mills] : seat =") == " tarn"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"control": "no_reads"}, " unknown"),
        ({"control": "capacity_1"}, " unknown"),
        ({"control": "shuffled_values"}, " holm"),
        ({"control": "shuffled_subjects"}, " holm"),
    ],
)
def test_controls_are_laid_over_what_is_read(tmp_path: Path, settings: Any, said: str) -> None:
    other = [Claim("doc 4", "gorm works", "firm", "seat", "holm", "place", 8)]
    memory = registry(tmp_path, **settings)
    tick(0, {"a0": BRASK, "a1": other}, {}, memory)
    assert asked(memory, "a0", "[brask mills] : seat =") == said
    if settings["control"] == "capacity_1":
        assert asked(memory, "a0", "[gorm works] : seat =") == " holm"


def test_the_last_claim_is_the_last_that_holds(tmp_path: Path) -> None:
    memory = registry(tmp_path, control="capacity_1")
    tick(0, {"a0": MARA + BRASK}, {}, memory)
    tick(1, {"a0": FALSE}, {}, memory)
    assert asked(memory, "a0", "[brask mills] : seat =") == " holm"
    tick(2, {}, {"a0": ["doc 3"]}, memory)
    assert asked(memory, "a0", "[brask mills] : seat =") == " tarn"
    assert asked(memory, "a0", "[mara voss] : works_for =") == " unknown"


@pytest.mark.parametrize(("control", "count"), [("by_name", 1), ("none", 2), ("by_text", 3)])
def test_identity_says_who_is_one(tmp_path: Path, control: str, count: int) -> None:
    memory = registry(tmp_path, control=control)
    weaver = [Claim("doc 5", "mara voss", "person", "trade", "weaver", "", 8)]
    smith = [Claim("doc 6", "mara voss", "person", "trade", "smith", "", 8)]
    for number, claims in enumerate((MARA, weaver, smith)):
        tick(number, {"a0": claims}, {}, memory)
    assert len(memory._registry("e0").named("mara voss")) == count


def test_of_what_contradicts_itself_the_newest_or_the_oldest_counts(tmp_path: Path) -> None:
    again = [Claim("doc 7", "brask mills", "firm", "seat", "holm", "place", 8)]
    for conflicts, said in (("newest", " holm"), ("oldest", " tarn")):
        memory = registry(tmp_path / conflicts, conflicts=conflicts)
        tick(0, {"a0": BRASK}, {}, memory)
        tick(1, {"a0": again}, {}, memory)
        assert asked(memory, "a0", "[brask mills] : seat =") == said


# ---- a registry that several runs share


def earlier(path: Path) -> Path:
    """Write the registry of an earlier run."""
    kept = EntityRegistry(path)
    for name, flags in FLAGS.items():
        kept.declare(Relation.of(name, flags))
    kept.store.fold_log()
    brask = kept.create("brask mills", "firm", "an earlier run", Origin("an earlier run"))
    tarn = kept.create("tarn", "place", "an earlier run", Origin("an earlier run"))
    kept.add_relation(brask, "seat", tarn, Origin("an earlier run"))
    kept.close()
    return path


def test_a_run_may_begin_with_the_registry_of_another_which_stays_as_it_is(tmp_path: Path) -> None:
    start = earlier(tmp_path / "earlier.db")
    before = start.read_bytes()
    memory = registry(tmp_path / "memory", start=str(start))
    assert asked(memory, "a1", "[brask mills] : seat =") == " tarn"
    records = [tick(0, {"a0": MARA}, {}, memory), tick(1, {"a0": FALSE}, {}, memory)]
    assert asked(memory, "a1", "[mara voss] : works_for seat =") == " holm"
    assert start.read_bytes() == before
    again = registry(None, start=str(start))
    for record in records:
        again.fold(record)
    assert again._registry("e0").digest == memory._registry("e0").digest
    other = registry(None, start=str(earlier(tmp_path / "other.db")))
    kept = EntityRegistry.load(tmp_path / "other.db")
    kept.forget("an earlier run")
    kept.close()
    with pytest.raises(
        SwarmError, match=r"not what it was at tick 0 .*; the journal was made by other code or .*other.db"
    ):
        other.fold(records[0])


def test_the_header_names_the_hash_of_what_a_run_begins_with(tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "policy", with_ltm=False)
    earlier(tmp_path / "earlier.db")
    config = experiment(registry={"start": "earlier.db"})
    engine = config.agents.engine.model_copy(update={"model": str(policy)})
    config = config.model_copy(update={"agents": config.agents.model_copy(update={"engine": engine})})
    digest = EntityRegistry.load(tmp_path / "earlier.db").digest
    assert load_models(config, tmp_path).hashes["earlier.db"] == digest


@pytest.mark.parametrize(
    ("made", "says"),
    [("none", "there is no registry at"), ("text", "is damaged"), ("newer", "has format 99, this version")],
)
def test_a_file_that_cannot_be_begun_with_is_refused_in_one_line(tmp_path: Path, made: str, says: str) -> None:
    path = tmp_path / "start.db"
    if made == "text":
        path.write_text("no database, and long enough to be read as one" * 99)
    elif made == "newer":
        with closing(sqlite3.connect(earlier(path))) as connection, connection:
            connection.execute("UPDATE about SET value = '99' WHERE name = 'format'")
    with pytest.raises(SwarmError, match=f"agents.memory, start: .*{says}") as refused:
        RegistrySection(start="start.db").hashes(tmp_path)
    assert "\n" not in str(refused.value)


def test_relations_that_the_world_means_otherwise_are_refused(tmp_path: Path) -> None:
    kept = EntityRegistry(tmp_path / "start.db")
    kept.declare(Relation("seat", symmetric=True))
    kept.close()
    with pytest.raises(SwarmError, match="relation 'seat' is declared otherwise already"):
        registry(tmp_path, start=str(tmp_path / "start.db")).registry(0, "a0")


def test_settings_that_make_no_sense_are_refused() -> None:
    engine = {"kind": "ulm", "model": "m"}
    for settings in ({"control": "odd"}, {"conflicts": "odd"}, {"sharde": True}):
        with pytest.raises(ValidationError):
            AgentsConfig.model_validate({"engine": engine, "memory": ["stm", {"kind": "registry", **settings}]})
    with pytest.raises(ValidationError, match=r"look-ups while an action is written, .*; set constrained: false"):
        AgentsConfig.model_validate({"engine": engine, "memory": ["stm", "registry"], "constrained": True})


def test_a_world_that_states_no_claims_is_refused(tmp_path: Path) -> None:
    config = experiment(world={"id": "numbers-v0"}, coordinator={"kind": "none"})
    with pytest.raises(SwarmError, match="world numbers-v0 has no `claims`; leave registry out"):
        played(tmp_path, config)
