"""Learning runs whose every process is killed at random moments, learning steps included, on one host and on two."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SMOKE = Path(__file__).parents[2] / "experiments" / "learn_smoke.yaml"
SWARM = [sys.executable, "-m", "swarm.cli"]
NUM_KILLS = 10
"""For each case; runs that were over before do not count."""

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def swarm(*arguments: str, cwd: Path, hash_seed: int = 0) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": str(hash_seed)}
    return subprocess.Popen(
        [*SWARM, *arguments], cwd=cwd, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[str]]:
    """Return the journal of a run in one process, and the names of its deltas."""
    folder = tmp_path_factory.mktemp("whole")
    assert swarm("run", str(SMOKE), "--no-live", "--out", str(folder / "run"), cwd=folder).wait(600) == 0
    return (folder / "run" / "journal.jsonl").read_bytes(), deltas(folder / "run")


def deltas(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "memory" / "deltas").iterdir())


@pytest.mark.parametrize(("hosts", "hash_seed"), [(1, 1), (2, 2), (0, 3)], ids=["one", "two", "local"])
def test_journal_and_deltas_are_those_of_an_undisturbed_run(
    tmp_path: Path, undisturbed: tuple[bytes, list[str]], hosts: int, hash_seed: int
) -> None:
    whole, names = undisturbed
    run_dir, rng, kills = tmp_path / "run", random.Random(hosts), 0
    where = ["--set", f"runtime.hosts={hosts}", "--set", "runtime.pool=ray"] if hosts else []
    command = ["run", str(SMOKE), "--no-live", "--out", str(run_dir), *where]
    journal = run_dir / "journal.jsonl"
    for point in sorted(rng.randrange(len(whole)) for _ in range(NUM_KILLS)):
        process = swarm(*command, cwd=tmp_path, hash_seed=hash_seed)
        while process.poll() is None and not (journal.is_file() and journal.stat().st_size >= point):
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3 * rng.random())  # which leads into learning steps
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
            kills += 1
        assert not journal.is_file() or whole.startswith(journal.read_bytes().rpartition(b"\n")[0])
    assert swarm(*command, cwd=tmp_path, hash_seed=hash_seed).wait(600) == 0
    assert (run_dir / "journal.jsonl").read_bytes() == whole
    assert deltas(run_dir) == names
    assert kills >= 3
