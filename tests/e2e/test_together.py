"""Commands that are started together, in processes of their own, never share a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from swarm.record.journal import read_records
from swarm.view.replay import replay_run

pytestmark = [pytest.mark.process, pytest.mark.thorough]

EXPERIMENT = (
    "name: demo\nepisodes: 2\nworld: {id: numbers-v0}\nagents: {engine: {kind: echo}, count: 2}\n"
    "runtime: {pool: local}\nbudget: {ticks: 2, tokens: 500}\n"
    "compare: {seeds: [1], episodes: 2, arms: [swarm]}\n"
)


def test_runs_and_comparisons_that_start_together(tmp_path: Path) -> None:
    """Failed at a7f87d3: one comparison met the run of the other half made."""
    (tmp_path / "x.yaml").write_text(EXPERIMENT)
    lines = ["run x.yaml --no-live"] * 2 + ["compare x.yaml --out c"] * 2
    commands = [[sys.executable, "-m", "swarm.cli", *line.split()] for line in lines]
    started = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in commands
    ]
    said = [process.communicate(timeout=240)[0] for process in started]
    codes = [process.returncode for process in started]
    assert codes[:2] == [0, 0], said
    runs = sorted((tmp_path / "runs").iterdir())
    assert [run.name for run in runs] == ["demo-s0", "demo-s0-2"]
    assert all(replay_run(run, True).finished for run in runs)
    assert 0 in codes[2:], said
    for code, told in zip(codes[2:], said[2:], strict=True):
        assert code == 0 or "being written by another process" in told
    kinds = [record["kind"] for record in read_records(tmp_path / "c" / "swarm-s1" / "journal.jsonl")]
    assert (kinds.count("header"), kinds.count("end")) == (1, 1)
