"""A package that nobody here knows: its world is trained, steered, compared, killed, resumed and replayed.

Nothing in our tree is touched: the package is installed into a folder of its own, as pip would install any other.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swarm.record.journal import read_records

ROOT = Path(__file__).parents[2]
NAME = "lost-key"
RANDOM = ("--set", "agents.engine.kind=random", "--set", "agents.engine.model=null")


class Workshop:
    """A folder with a package, and the command line run beside it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.package = place / NAME
        self.environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(place / "site"), str(ROOT)]),
        }

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.place,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=280,
        )

    def swarm(self, *arguments: str) -> str:
        done = self.python("-m", "swarm.cli", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *arguments: str) -> str:
        done = self.python("-m", "swarm.cli", *arguments)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    def install(self) -> None:
        offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "-q"]
        done = self.python("-m", "pip", "install", *offline, "--upgrade", "--target", "site", str(self.package))
        assert done.returncode == 0, done.stderr


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A package as `swarm new world` writes it, not yet installed."""
    found = Workshop(tmp_path)
    assert f"swarm worlds {NAME}-v0 --check" in found.swarm("new", "world", NAME)
    return found


@pytest.mark.slow
@pytest.mark.ray
def test_an_outside_world_goes_from_a_new_package_to_a_finished_comparison(workshop: Workshop) -> None:
    place, began = workshop.place, time.time()
    workshop.install()
    assert workshop.swarm("worlds", f"{NAME}-v0", "--check") == f"{NAME}-v0 keeps the contract\n"

    scores = workshop.swarm("train", f"{NAME}/train.yaml")
    assert float(re.findall(r"score of told: .*'greedy': ([0-9.]+)", scores)[0]) >= 0.95

    experiment = f"{NAME}/experiment.yaml"
    run = ["run", experiment, "--no-live", "--set", "episodes=30"]
    workshop.swarm(*run, "--out", "rules")
    solved = [record["solved"] for record in read_records(place / "rules/journal.jsonl") if "solved" in record]
    assert sum(solved) >= 24

    engine = ("kind=model", "engine.kind=ulm", f"engine.model=policies/{NAME}", "max_new_tokens=4")
    model = [f"coordinator.{key}" for key in engine]
    workshop.swarm(*run, *(word for key in model for word in ("--set", key)), "--out", "ulm")
    ticks = [record for record in read_records(place / "ulm/journal.jsonl") if record["kind"] == "tick"]
    assert sum(tick["coordinator"]["calls"] for tick in ticks) > 0
    assert any(tick["directives"] for tick in ticks)

    kill_and_resume(workshop, run, (place / "rules/journal.jsonl").read_bytes())
    assert workshop.swarm("replay", "rules", "--check")

    few = ["--set", "compare.episodes=6", "--set", "compare.seeds=[1]"]
    compared = workshop.swarm("compare", experiment, *few, "--out", "compared")
    assert all(arm in compared for arm in ("no_messages", "swarm", "shuffled", "random", "ulm_coordinator"))
    assert (place / "compared/report.html").is_file()

    ours = [path for folder in ("swarm", "ulm", "worlds", "experiments") for path in (ROOT / folder).rglob("*")]
    touched = [path for path in ours if "__pycache__" not in path.parts and path.stat().st_mtime > began]
    assert [path for path in touched if path.is_file()] == []


def kill_and_resume(workshop: Workshop, run: list[str], whole: bytes) -> None:
    """Kill a run with SIGKILL in its middle; resumed, it has the journal of the undisturbed one."""
    journal = workshop.place / "killed/journal.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "swarm.cli", *run, "--out", "killed"],
        cwd=workshop.place,
        env=workshop.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and journal.stat().st_size > len(whole) // 3:
            break
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert len(journal.read_bytes()) < len(whole)
    workshop.swarm("resume", "killed", "--no-live")
    assert journal.read_bytes() == whole


@pytest.mark.slow
def test_a_world_without_playbook_and_lessons_runs_and_says_what_it_lacks(workshop: Workshop) -> None:
    world = workshop.package / "lost_key/world.py"
    text = re.sub(r'    (playbook|lessons) = ".*"', r"    \1 = None", world.read_text())
    world.write_text(text)
    (workshop.package / "lost_key/playbook.py").unlink()
    (workshop.package / "lost_key/lessons.py").unlink()
    workshop.install()
    assert "keeps the contract" in workshop.swarm("worlds", f"{NAME}-v0", "--check")
    experiment = f"{NAME}/experiment.yaml"
    workshop.swarm("run", experiment, "--no-live", *RANDOM, "--set", "coordinator.kind=none", "--out", "alone")
    workshop.swarm("replay", "alone", "--check")
    assert f"world {NAME}-v0 has no playbook" in workshop.refused("run", experiment, "--no-live", *RANDOM)
    assert f"world {NAME}-v0 has no lessons" in workshop.refused("train", f"{NAME}/train.yaml")
    assert not (workshop.place / "runs").exists()


@pytest.mark.slow
def test_a_broken_package_is_one_line_that_names_it(workshop: Workshop) -> None:
    (workshop.package / "lost_key/playbook.py").write_text("import no_such_module\n")
    workshop.install()
    line = workshop.refused("run", f"{NAME}/experiment.yaml", "--no-live", *RANDOM)
    assert f"world '{NAME}-v0' comes from the package {NAME} 0.1.0 (lost_key.world:LostKey)" in line
    assert "lost_key.playbook:LostKeyPlaybook failed to load" in line
    assert "No module named 'no_such_module'" in line
