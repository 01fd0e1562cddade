"""The one record of every change of what an agent keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes.records import header

from swarm.record.change import Change
from swarm.record.journal import JournalWriter, read_records
from swarm.record.records import check_record

FULL = Change(
    "delta",
    "a3",
    "learn",
    "0f",
    "1e",
    {"records": [4, 12], "digest": "aa", "counts": {"right": 3}},
    {"rank": 4, "lr": 0.001},
    17,
    {"tokens": 300},
    ({"name": "probe", "before": 0.5, "after": 0.4, "limit": 0.02, "n": 200, "passed": False},),
    "failed: probe",
    accepted=False,
)


@pytest.mark.parametrize("change", [FULL, Change("facts", None, "forget", "5", "6")])
def test_a_change_comes_back_from_the_journal_as_it_was(tmp_path: Path, change: Change) -> None:
    with JournalWriter(tmp_path / "journal.jsonl") as journal:
        journal.append(header())
        journal.append(change.as_record())
    _, record = read_records(tmp_path / "journal.jsonl")
    assert record["kind"] == "change"
    assert Change.from_record(record) == change


@pytest.mark.parametrize(
    "damage",
    [{"cause": "whim"}, {"evidence": None}, {"evidence": {"digest": ""}}, {"tests": [{"before": 1}]}, {"tests": 3}],
)
def test_a_record_that_is_no_change_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(damage))):
        check_record({**FULL.as_record(), **damage})


@pytest.mark.parametrize("missing", list(FULL.as_record()))
def test_a_change_has_all_its_fields(missing: str) -> None:
    body: dict[str, Any] = {**FULL.as_record()}
    del body[missing]
    with pytest.raises(ValueError, match="discriminator" if missing == "kind" else missing):
        check_record(body)
