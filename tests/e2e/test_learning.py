"""The command line on `experiments/learn_smoke.yaml`: agents learn, and it is looked at, taken back and taken out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.record.journal import read_records
from ulm.checkpoint import load_checkpoint

pytestmark = [pytest.mark.process, pytest.mark.thorough]
SMOKE = str(Path(__file__).parents[2] / "experiments" / "learn_smoke.yaml")


def swarm(*arguments: object, code: int = 0) -> list[str]:
    """Return the lines that a command prints, after it ended with this code."""
    done = subprocess.run(
        [sys.executable, "-m", "swarm.cli", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == code, done.stderr
    return (done.stdout if code == 0 else done.stderr).splitlines()


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run."""
    folder = tmp_path_factory.mktemp("learned") / "run"
    lines = swarm("run", SMOKE, "--no-live", "--out", folder)
    assert any(line.startswith("solved ") and line.endswith(" of 16") for line in lines)
    assert any(line.startswith("in the exam ") and line.endswith(" of 4") for line in lines)
    assert sum(" learned after round " in line or " rejected after round " in line for line in lines) == 2
    return folder


@pytest.fixture
def run(learned: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return shutil.copytree(learned, tmp_path / "run")


def test_replay_takes_every_learning_step_again(learned: Path) -> None:
    lines = swarm("replay", learned, "--check", "--learn")
    assert any(line.startswith("deltas        2 changes recomputed, all equal") for line in lines)
    *_, last = read_records(learned / "journal.jsonl")
    assert lines[-1] == last["hash"]


def test_what_was_learned_is_looked_at_and_taken_back(run: Path) -> None:
    assert "2 changes: " in swarm("memory", "history", run)[-1]
    (undone,) = swarm("memory", "undo", run, "a0")
    assert " undone, of round " in undone
    assert any(line.endswith("a0 undone") for line in swarm("memory", "show", run, "a0"))
    assert "run           finished" in swarm("replay", run, "--check")
    swarm("resume", run, "--no-live")  # it has ended: it is only reported
    assert swarm("memory", "undo", run, "a1", code=2)[0].startswith("error: a1 has learned nothing")


def test_what_was_learned_plays_without_the_run(learned: Path, tmp_path: Path) -> None:
    swarm("export", learned, "a0", "--out", tmp_path / "a0")
    assert load_checkpoint(tmp_path / "a0").meta["learned"]["experiment"] == "learn_smoke"
    settings = ("learning=null", "agents.memory=[stm]", "episodes=2", f"agents.engine.model={tmp_path / 'a0'}")
    lines = swarm(
        "run", SMOKE, "--no-live", "--out", tmp_path / "frozen", *(x for one in settings for x in ("--set", one))
    )
    assert any(line.startswith("ended ") and line.endswith(" finished") for line in lines)
    assert not any(line.startswith("in the exam") for line in lines)


def test_the_report_has_the_curve(run: Path) -> None:
    swarm("report", run)
    assert "<h2>Learning</h2>" in (run / "report" / "report.html").read_text()
