"""The real command as schedulers, pagers, other locales and process managers start and end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swarm.record.journal import read_records
from swarm.view.replay import replay_run

SWARM = f"{sys.executable} -m swarm.cli"
GOOD = "name: demo\nworld: {id: numbers-v0}\nagents: {engine: {kind: echo}, count: 2}\nruntime: {pool: local}\n"
LONG = GOOD + "episodes: 100000\nbudget: {ticks: 1000}\n"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


def shell(folder: Path, command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command line in which `swarm` stands for the command."""
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; swarm() {{ {SWARM} "$@"; }}; {command}'],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an experiment."""
    (tmp_path / "x.yaml").write_text(GOOD)
    return tmp_path


def test_a_run_needs_no_stream_and_imports_nothing_from_the_current_folder(folder):
    """Failed at a7f87d3: `AttributeError: 'NoneType'`, exit code 70; the watcher executed queue.py and was gone."""
    for name in ("queue", "torch"):
        (folder / f"{name}.py").write_text("open('executed', 'a').write(__name__)\nraise SystemExit(9)\n")
    done = shell(folder, "swarm run x.yaml --out run <&- >&- 2>&-")
    assert done.returncode == 0
    assert list(read_records(folder / "run" / "journal.jsonl"))[-1]["reason"] == "finished"
    assert not (folder / "executed").exists()


def test_a_reader_that_leaves_is_no_failure(folder):
    """Failed at a7f87d3: exit code 1 for all, and no summary of the run."""
    done = shell(folder, "swarm run x.yaml --out run | true")
    assert (done.returncode, done.stderr) == (0, b"")
    assert list(read_records(folder / "run" / "journal.jsonl"))[-1]["reason"] == "finished"
    for command in ("replay run", "watch run --no-follow", "--help"):
        done = shell(folder, f"swarm {command} | true")
        assert (command, done.returncode, done.stderr) == (command, 0, b"")


@pytest.mark.parametrize("command", ["worlds", "--help"])
def test_a_full_disk_is_one_line(folder, command):
    """Failed at a7f87d3 for --help: a traceback."""
    done = shell(folder, f"swarm {command} > /dev/full")
    error = b"error: No space left on device; `swarm doctor` checks the disk and its rights\n"
    assert (done.returncode, done.stderr) == (1, error)


@pytest.mark.parametrize(
    "environment",
    [
        {"COLUMNS": "0", "LINES": "0"},
        {"COLUMNS": "²", "TERMINAL_WIDTH": "wide"},
        {"TERM": "dumb", "FORCE_COLOR": "1"},
        {"NO_COLOR": "1"},
        ASCII,
    ],
)
def test_help_and_mistakes_are_told_on_any_terminal(folder, environment):
    """Failed at a7f87d3 for all sizes and ASCII: no output, or a traceback."""
    told = shell(folder, "swarm --help", **environment)
    assert (told.returncode, told.stderr) == (0, b"")
    assert b"doctor" in told.stdout
    refused = shell(folder, "swarm run --sede 3", **environment)
    assert refused.returncode == 2
    assert b"error: no such option" in refused.stderr
    assert b"Traceback" not in refused.stderr
    if environment is ASCII:
        assert told.stdout.isascii()
        assert refused.stderr.isascii()


def stopped(folder: Path, number: int, *options: str) -> tuple[int, str]:
    """Start a long run, send a signal once it has written something, and return exit code and errors."""
    (folder / "x.yaml").write_text(LONG)
    run = subprocess.Popen(
        [*SWARM.split(), "run", "x.yaml", "--out", "run", *options],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    journal = folder / "run" / "journal.jsonl"
    while run.poll() is None and not (journal.is_file() and journal.stat().st_size > 20_000):
        time.sleep(0.05)
    run.send_signal(number)
    _, said = run.communicate(timeout=60)
    return run.returncode, said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_process_managers_and_lost_terminals_end_a_run_as_ctrl_c_does(folder, number, code):
    """Failed at a7f87d3: killed on the spot, no resume line."""
    assert stopped(folder, number) == (code, "stopped; continue with: swarm resume run\n")
    whole = replay_run(folder / "run", check=True)
    assert not whole.finished


@pytest.mark.ray
def test_they_do_with_ray_too(folder):
    """Failed at a7f87d3: exit code 134, no resume line."""
    code, said = stopped(folder, signal.SIGTERM, "--set", "runtime.pool=ray")
    lines = [line for line in said.splitlines() if not line.startswith("waiting for Ray")]  # a slow machine
    assert (code, lines) == (143, ["stopped; continue with: swarm resume run"])
