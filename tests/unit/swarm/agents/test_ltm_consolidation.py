"""Consolidation in a run: on record, the same after a kill, taken back, refused where it does not fit."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fakes.memory_policy import LTM, two_who_talk_noise, write_policy

from swarm.agents.ltm import BEFORE, LongTermMemory
from swarm.agents.ltm_files import MemoryStore
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.learn.undo import undo_consolidation
from swarm.record.journal import JournalWriter, read_records
from swarm.record.records import ChangeRecord
from swarm.run.runner import resume_run, start_run
from swarm.view.memory import view_memory
from ulm.config import LTMConfig
from ulm.memory import LTMState

POLICY = {"capacity": 20, "slots": 8}
RULES = {"keep": 0.5, "gate": False}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("consolidation")
    write_policy(folder / "policy")
    return folder


def experiment(**memory: Any) -> ExperimentConfig:
    ltm = {"kind": "ltm", "span": "run", "policy": POLICY, "consolidate": RULES, **memory}
    section = {name: value for name, value in ltm.items() if value is not None}
    return two_who_talk_noise(3, memory=["stm", section])


def play(place: Path, name: str, **memory: Any) -> Path:
    return start_run(experiment(**memory), place / "experiment.yaml", place / name).run_dir


@pytest.fixture(scope="module")
def run_dir(place: Path) -> Path:
    return play(place, "run")


def changes(run_dir: Path) -> list[ChangeRecord]:
    return [record for record in read_records(run_dir / "journal.jsonl") if record["kind"] == "change"]


def test_what_was_nearly_full_is_consolidated_and_on_record(run_dir: Path) -> None:
    found = changes(run_dir)
    assert found
    assert {change["agent"] for change in found} == {"a0", "a1"}
    for change in found:
        counts = change["evidence"]["counts"]
        assert (change["memory"], change["cause"], change["accepted"]) == ("ltm", "consolidate", True)
        assert counts["items_before"] >= 18
        assert counts["items"] == -(-counts["items_before"] // 2)
        assert counts["slots"] <= 8
        assert change["parent"] != change["result"]
    last = {change["agent"]: change["result"] for change in found}
    stored = MemoryStore(run_dir / "memory").last()
    # What each agent was left with after its last consolidation is what its next call began with.
    assert {agent + BEFORE for agent in last} <= set(stored)


def test_slots_are_shown_with_how_many_they_stand_for(run_dir: Path) -> None:
    view = view_memory(run_dir, "a0")
    slots = [item for item in view.items if item.members]
    assert 0 < len(slots) <= 8
    assert view.capacity == 20
    assert all(item.members >= 1 for item in slots)


class KilledError(BaseException):
    """In place of a kill."""


def killed(place: Path, records: int) -> Path:
    """A run that died after so many records, before anything else was written."""
    folder = place / f"killed-{records}"
    real_append, real_save, written = JournalWriter.append, LongTermMemory.save, [0]

    def append(self: JournalWriter, record: Any) -> Any:
        if written[0] == records:
            raise KilledError
        written[0] += 1
        return real_append(self, record)

    def save(self: LongTermMemory, episode: int, tick: int) -> None:
        if written[0] == records:
            raise KilledError
        real_save(self, episode, tick)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JournalWriter, "append", append)
        patch.setattr(LongTermMemory, "save", save)
        with pytest.raises(KilledError):
            start_run(experiment(), place / "experiment.yaml", folder)
    return folder


def test_a_run_killed_around_a_consolidation_goes_on_as_if_nothing_had_happened(run_dir: Path, place: Path) -> None:
    kinds = [record["kind"] for record in read_records(run_dir / "journal.jsonl")]
    first = kinds.index("change") + 1  # the header is a record of its own
    whole = list(read_records(run_dir / "journal.jsonl"))[-1]
    for records in (first - 1, first, first + 1, first + 2):
        folder = killed(place, records)
        resume_run(folder)
        assert list(read_records(folder / "journal.jsonl"))[-1] == whole, f"killed after {records} records"


def test_a_consolidation_can_be_taken_back_once(run_dir: Path, place: Path) -> None:
    folder = place / "undone"
    shutil.copytree(run_dir, folder)
    last = {change["agent"]: change for change in changes(folder)}
    (undone,) = undo_consolidation(folder, "a0")
    assert (undone.parent, undone.result) == (last["a0"]["result"], last["a0"]["parent"])
    store = MemoryStore(folder / "memory").last()
    assert sha256(store["a0" + BEFORE]).hexdigest() == undone.result
    before = LTMState.from_bytes(store["a0" + BEFORE], LTMConfig.from_dict({**LTM, **POLICY}))
    assert len(view_memory(folder, "a0").items) == int((before.position_BM >= 0).sum())
    with pytest.raises(SwarmError, match=r"a0 has no consolidation in .* that could be undone"):
        undo_consolidation(folder, "a0")
    assert [change.agent for change in undo_consolidation(folder)] == ["a1"]


def test_without_consolidation_the_journal_knows_nothing_of_it(place: Path) -> None:
    plain = play(place, "plain", consolidate=None, policy=None)
    assert not changes(plain)
    assert not any("ltm" in r["memory"] for r in read_records(plain / "journal.jsonl") if r["kind"] == "tick")
    with pytest.raises(SwarmError, match="agents have no consolidation"):
        undo_consolidation(plain)


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        ({"policy": {"capacity": 20}}, "set ltm.policy.slots"),
        ({"policy": {"slots": 4, "head_size": 2}}, "ltm.policy has no 'head_size'; it may have: capacity, slots"),
        ({"policy": {"slots": -4}}, "slots must be a whole number of at least 1"),
        ({"consolidate": {"keep": 2}}, "ltm.consolidate: keep must be a number above 0 and at most 1"),
    ],
)
def test_a_policy_that_does_not_fit_is_one_clear_line(place: Path, memory: dict[str, Any], words: str) -> None:
    with pytest.raises(SwarmError, match=words):
        play(place, "refused", **memory)
    assert not (place / "refused").exists()
