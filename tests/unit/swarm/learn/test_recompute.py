"""Every learning step of a run can be taken again from its journal, and a forged one is found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.learned_run import LearnedPool, go_on, scripted, write_learned_run
from fakes.records import rewrite

from swarm.agents.delta import delta_path
from swarm.config.learning import PUT_TOGETHER
from swarm.errors import SwarmError, WorkFailedError
from swarm.learn.recompute import recompute
from swarm.record.journal import read_records
from swarm.record.records import ChangeRecord
from ulm.delta import Delta


@pytest.fixture(autouse=True)
def _steps_are_taken_here() -> Iterator[None]:
    with scripted(LearnedPool()):
        yield


def changes(run_dir: Path) -> list[ChangeRecord]:
    return [record for record in read_records(run_dir / "journal.jsonl") if record["kind"] == "change"]


def files(run_dir: Path) -> set[str]:
    return {path.stem for path in (run_dir / "memory" / "deltas").iterdir()}


@pytest.mark.parametrize("share", ["none", "data", "mean", "concat", "regmean"])
def test_all_steps_of_a_run_are_recomputed_to_the_bit(tmp_path: Path, share: str) -> None:
    write_learned_run(tmp_path / "run", share=share, rounds=3)
    told = changes(tmp_path / "run")
    assert len(told) == 3 * 2 * (2 if share in PUT_TOGETHER else 1)
    assert all(record["result"] for record in told)
    seen: list[ChangeRecord] = []
    found = recompute(tmp_path / "run", on_change=seen.append)
    assert (found.equal, found.near, found.skipped, found.machine) == (len(told), 0, 0, "")
    assert seen == told


def test_recomputing_writes_nothing_into_the_run_folder(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", rounds=3)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    recompute(tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_run_that_was_killed_in_a_round_is_recomputed_up_to_there(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", stop=6)
    assert recompute(tmp_path / "run").equal == 2
    go_on(tmp_path / "run")
    assert recompute(tmp_path / "run").equal == 4


def forge(run_dir: Path, round_: int, **fields: Any) -> None:
    def change(record: Any) -> None:
        if record["kind"] == "change" and record["settings"]["round"] == round_ and record["agent"] == "a1":
            record.update(fields)

    rewrite(run_dir, change)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"result": "f" * 64}, r"round 2, a1: result differs: the journal has 'f+', recomputed is"),
        ({"accepted": False}, "round 2, a1: accepted differs: the journal has False, recomputed is True"),
        ({"tests": []}, "round 2, a1: tests differs"),
        ({"cost": {"tokens": 1}}, "round 2, a1: cost differs"),
        ({"seed": 1}, "round 2, a1: seed differs"),
        ({"evidence": {"records": [1, 2], "digest": "0", "counts": {}}}, "round 2, a1: evidence differs"),
    ],
)
def test_a_forged_change_is_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    write_learned_run(tmp_path / "run")
    forge(tmp_path / "run", 1, **fields)
    with pytest.raises(WorkFailedError, match=message):
        recompute(tmp_path / "run")


def on_another_machine(run_dir: Path) -> None:
    path = run_dir / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cpu": "an abacus"}))


def nudge(run_dir: Path, by: float) -> None:
    """Let the last delta of a1 be one that another CPU would have computed."""
    old = changes(run_dir)[-1]["result"]
    delta = Delta.from_bytes(delta_path(run_dir / "memory", old).read_bytes())
    new = Delta(delta.factors, delta.ids_E, delta.rows_EC + by, delta.base)
    delta_path(run_dir / "memory", new.sha256).write_bytes(new.to_bytes())
    forge(run_dir, 1, result=new.sha256)


def test_on_another_machine_weights_may_differ_a_little(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    nudge(tmp_path / "run", 5e-5)
    with pytest.raises(WorkFailedError, match="result differs"):
        recompute(tmp_path / "run")
    on_another_machine(tmp_path / "run")
    found = recompute(tmp_path / "run")
    assert (found.equal, found.near) == (3, 1)
    assert found.machine.startswith("cpu an abacus, here ")


def test_on_another_machine_weights_may_not_differ_much(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    nudge(tmp_path / "run", 5e-4)
    on_another_machine(tmp_path / "run")
    with pytest.raises(WorkFailedError, match=r"weights differ by 0.0005, more than 0.0001"):
        recompute(tmp_path / "run")


def test_on_another_machine_steps_whose_files_were_pruned_are_counted(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", rounds=3)
    on_another_machine(tmp_path / "run")
    first = next(record for record in changes(tmp_path / "run") if record["agent"] == "a1")

    def change(record: Any) -> None:  # as if the other machine had other bits in the first round
        for name in ("result", "parent"):
            if record["kind"] == "change" and record[name] == first["result"]:
                record[name] = "e" * 64

    rewrite(tmp_path / "run", change)
    found = recompute(tmp_path / "run")
    assert found.skipped == 3  # a1's first step, and the second round, which starts from it
    assert found.equal == 3


def test_files_that_nobody_needs_go_during_a_run_and_come_back_when_asked_for(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", rounds=3)
    results = {agent: [r["result"] for r in changes(tmp_path / "run") if r["agent"] == agent] for agent in ("a0", "a1")}
    assert files(tmp_path / "run") == {*results["a0"][1:], *results["a1"][1:]}
    recompute(tmp_path / "run", keep=[results["a0"][0]])
    assert files(tmp_path / "run") == {*results["a0"], *results["a1"][1:]}


def test_another_base_is_refused(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")

    def change(record: Any) -> None:
        if record["kind"] == "header":
            record["checkpoints"] = {"policy": "0" * 64}

    rewrite(tmp_path / "run", change)
    with pytest.raises(SwarmError, match="checkpoint changed since the run began"):
        recompute(tmp_path / "run")


def test_steps_that_failed_leave_no_file_and_are_recomputed_too(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", test={"probe": 0, "tasks": 0, "kl": 1e-9})
    told = changes(tmp_path / "run")
    assert [(record["accepted"], record["settings"]["size"]) for record in told] == [(False, 0.5)] * 4
    assert files(tmp_path / "run") == set()
    assert recompute(tmp_path / "run").equal == 4


def test_a_kill_after_a_barrier_leaves_the_same_files(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "whole", rounds=3, share="mean")
    write_learned_run(tmp_path / "run", rounds=3, share="mean", stop=12)
    go_on(tmp_path / "run")
    assert files(tmp_path / "run") == files(tmp_path / "whole")
