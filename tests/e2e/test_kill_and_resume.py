"""The real command, killed with SIGKILL at random moments and resumed, against an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.config.experiment import ExperimentConfig

Experiment = Callable[..., tuple[ExperimentConfig, Path]]
SWARM = [sys.executable, "-m", "swarm.cli"]
NUM_KILLS = 20
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def swarm(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SWARM, *arguments], cwd=cwd, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=240
    )


@pytest.mark.slow
def test_journal_does_not_depend_on_the_hash_seed(experiment: Experiment, tmp_path: Path) -> None:
    _, path = experiment(episodes=2, budget={"tokens": 300})
    journals = set()
    for hash_seed in range(8):
        out = tmp_path / f"run{hash_seed}"
        done = swarm("run", str(path), "--no-live", "--out", str(out), cwd=tmp_path, PYTHONHASHSEED=str(hash_seed))
        assert done.returncode == 0, done.stderr
        journals.add(out.joinpath("journal.jsonl").read_bytes())
    assert len(journals) == 1


@pytest.mark.slow
def test_driver_killed_at_random_points_and_resumed_writes_the_same_journal(
    experiment: Experiment, tmp_path: Path
) -> None:
    _, path = experiment(episodes=40, concurrency=3, agents={"engine": {"kind": "random"}}, budget={"tokens": 3000})
    reference = tmp_path / "reference"
    assert swarm("run", str(path), "--no-live", "--out", str(reference), cwd=tmp_path).returncode == 0
    whole = reference.joinpath("journal.jsonl").read_bytes()
    rng = random.Random(3)
    points = sorted(rng.randrange(1, len(whole)) for _ in range(NUM_KILLS))
    killed = tmp_path / "killed"
    command = ["run", str(path), "--no-live", "--out", str(killed)]
    journal = killed / "journal.jsonl"
    kills = 0
    for point in points:
        process = subprocess.Popen(
            [*SWARM, *command], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if journal.exists() and journal.stat().st_size >= point:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.001)
        process.wait(30)
        assert whole.startswith(journal.read_bytes().rpartition(b"\n")[0])
        command = ["resume", str(killed), "--no-live"]
    done = swarm("resume", str(killed), "--no-live", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert journal.read_bytes() == whole
    assert kills >= NUM_KILLS // 2
    checked = swarm("replay", str(killed), "--check", cwd=tmp_path)
    assert checked.returncode == 0
    assert checked.stdout.splitlines()[-1] in whole.decode().splitlines()[-1]
