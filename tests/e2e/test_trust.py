"""A goal of one's own in ten lines, from the command line: it runs for who trusts it, in every command anew."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.record.journal import read_records

SCORER = '''"""As many different letters as can be, in as few characters as can be."""


def score(text):
    return len(set(text)) - len(text) / 10
'''
EXPERIMENT = """name: letters
episodes: 2
world:
  id: score-v0
  options: {file: letters.py, task: different letters, max_steps: 5}
agents: {count: 2, engine: {kind: random}}
runtime: {pool: local}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "letters.py").write_text(SCORER, encoding="utf-8")
    (tmp_path / "letters.yaml").write_text(EXPERIMENT, encoding="utf-8")
    return tmp_path


def swarm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swarm.cli", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize("command", [("run", "letters.yaml", "--no-live"), ("check", "letters.yaml")])
def test_code_that_nobody_trusts_does_not_run_and_the_line_says_why(folder: Path, command: tuple[str, ...]) -> None:
    done = swarm(folder, *command)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "letters.py is code that comes with the experiment" in done.stderr
    assert "add --trust" in done.stderr
    assert done.stderr.count("\n") == 1


def test_trusted_code_runs_and_every_command_that_plays_it_asks_again(folder: Path) -> None:
    done = swarm(folder, "run", "letters.yaml", "--no-live", "--out", "run", "--trust")
    assert done.returncode == 0, done.stderr
    rewards = [
        entry["reward"]
        for record in read_records(folder / "run" / "journal.jsonl")
        if record["kind"] == "tick"
        for entry in record["agents"]
    ]
    assert len(rewards) == 20
    assert min(rewards) > 1
    assert "add --trust" in swarm(folder, "replay", "run", "--check").stderr
    checked = swarm(folder, "replay", "run", "--check", "--trust")
    assert checked.returncode == 0, checked.stderr
    assert "all equal" in checked.stdout
