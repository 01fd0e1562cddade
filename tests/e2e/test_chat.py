"""`swarm chat` through plain pipes: it learns, is killed while it learns, and remembers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swarm.record.journal import read_records

POLICY = Path(__file__).parents[2] / "experiments" / "policies" / "numbers-agent"
SWARM = [sys.executable, "-m", "swarm.cli"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
pytestmark = [pytest.mark.process, pytest.mark.thorough]


def chat(folder: Path, *lines: str) -> str:
    """Return what is printed for a person who types these lines."""
    done = subprocess.run(
        [*SWARM, "chat", str(POLICY), "--out", "chat"],
        cwd=folder,
        env=ENVIRONMENT,
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_chat_that_was_killed_while_it_learned_learns_then_remembers_and_forgets(tmp_path):
    process = subprocess.Popen(
        [*SWARM, "chat", str(POLICY), "--out", "chat"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write("good morning\n= aye aye\n")
    process.stdin.flush()
    journal = tmp_path / "chat" / "chat.jsonl"
    deadline = time.monotonic() + 120
    while not journal.is_file() or journal.read_bytes().count(b"\n") < 3:  # header, exchange, mark
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "change" not in {record["kind"] for record in read_records(journal)}

    assert "learned; what you typed" in chat(tmp_path, "/quit")
    again = chat(tmp_path, "good morning", "/history")
    assert "aye aye  (as you typed it)" in again
    command = [*SWARM, "memory", "forget", "chat", "1"]
    forgotten = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
    assert forgotten.returncode == 0, forgotten.stderr
    assert "1 is forgotten" in forgotten.stdout
    assert "as you typed it" not in chat(tmp_path, "good morning").splitlines()[-1]


def test_mistakes_are_one_line(tmp_path):
    for arguments, why in (
        (["chat", "no-such-model"], "no-such-model"),
        (["memory", "forget", ".", "1"], "holds no chat"),
    ):
        done = subprocess.run(
            [*SWARM, *arguments], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert why in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert [path.name for path in tmp_path.iterdir()] == []
