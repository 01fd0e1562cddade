"""Rivals of a registry remember what they should, so that a comparison with them means something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fakes.archive_rivals import RivalReaders, Strings
from fakes.scripted_run import play

from swarm.config.experiment import ExperimentConfig
from swarm.record.journal import read_records
from worlds.protocol import Claim


def said(source: str, subject: str, relation: str, other: str, year: int) -> Claim:
    types = {"works_for": ("person", "firm"), "seat": ("firm", "place"), "trade": ("person", "")}
    if relation == "married_to":
        return Claim(source, subject, "person", relation, other, "person", year)
    return Claim(source, subject, types[relation][0], relation, other, types[relation][1], year)


CLAIMS = [
    said("doc 1", "mara voss", "works_for", "brask", 8),
    said("doc 1", "mara voss", "trade", "smith", 8),
    said("doc 2", "brask", "seat", "tarn", 3),
    said("doc 3", "brask", "seat", "holm", 8),
    said("doc 4", "brask mills", "seat", "gorm", 9),
    said("doc 5", "ida kern", "married_to", "mara voss", 8),
]


def test_strings_join_what_is_written_alike_and_nothing_else() -> None:
    memory = Strings()
    memory.add(CLAIMS)
    assert memory("[mara voss] : works_for seat =") == "holm"  # the newest; brask mills is another string
    assert memory("answer [0] trade smith : works_for =", "who is [0 mara voss] ?") == "brask"
    assert memory("[mara voss] trade weaver : works_for =") == "unknown"
    assert memory("[mara voss] : married_to =") == "ida kern"
    assert memory("[voss] : works_for =") == "unknown"


def test_strings_forget_a_source_for_good() -> None:
    memory = Strings()
    memory.add(CLAIMS)
    memory.forget("doc 3")
    assert memory("[brask] : seat =") == "tarn"
    memory.add(CLAIMS)
    assert memory("[brask] : seat =") == "tarn"


def test_a_window_keeps_the_latest() -> None:
    memory = Strings(window=30)
    for claim in CLAIMS:
        memory.add([claim])
    assert memory("[mara voss] : works_for =") == "unknown"
    assert memory("[mara voss] : married_to =") == "ida kern"


def entries_of(folder: Path, rival: str, window: int | None = None, **changes: Any) -> list[Any]:
    options = {"persons": 12, "archives": 3, "questions": 6, "hops": 2, "unanswerable": 0, "reading": 1}
    told = {"tells": "claims"} if rival == "messages" else {}
    memory = ["stm", {"kind": "registry", "shared": False}] if rival == "alone" else ["stm"]
    config = ExperimentConfig.model_validate(
        {
            "name": "rivals",
            "world": {"id": "archive-v0", "options": options | told},
            "agents": {
                "count": 3,
                "engine": {"kind": "ulm", "model": "rules"},
                "max_new_tokens": 400,
                "memory": memory,
            },
            "coordinator": {"kind": "rules"},
            "topology": {"kind": "complete" if rival == "messages" else "star"},
            "episodes": 2,
        }
    )
    run_dir = folder / f"{rival}-{window}"
    folder.mkdir(exist_ok=True)
    play(run_dir, config, RivalReaders(config, rival, window, **changes))  # type: ignore[arg-type]
    entries = [e for r in read_records(run_dir / "journal.jsonl") if r["kind"] == "tick" for e in r["agents"]]
    assert all(entry["valid"] for entry in entries)
    return entries


def answers(folder: Path, rival: str, window: int | None) -> list[Any]:
    return [entry for entry in entries_of(folder, rival, window) if entry["action"].startswith("answer ")]


def opened(folder: Path, *, reads_on: bool) -> list[Any]:
    entries = entries_of(folder / str(reads_on), "alone", reads_on=reads_on)
    return [entry for entry in entries if entry["action"].startswith("open ")]


def test_what_all_hear_is_worth_as_much_as_one_memory_and_a_small_window_less(tmp_path: Path) -> None:
    right = {
        (rival, window): sum(entry["reward"] > 0 for entry in answers(tmp_path, rival, window))
        for rival, window in (("strings", None), ("messages", None), ("messages", 40), ("alone", None))
    }
    assert right["strings", None] >= 6, right  # of 12: short names are not joined with long ones
    assert abs(right["messages", None] - right["strings", None]) <= 2, right
    assert max(right["messages", 40], right["alone", None]) <= right["strings", None] - 3, right


def test_who_reads_on_reads_more(tmp_path: Path) -> None:
    assert len(opened(tmp_path, reads_on=True)) > len(opened(tmp_path, reads_on=False))
