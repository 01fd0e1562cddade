"""A world in a child interpreter: the same journal, and whatever it does ends an episode and no more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fakes.rogue_world import RogueWorld

from swarm.config.experiment import ExperimentConfig
from swarm.record.journal import read_records
from swarm.run.runner import start_run
from swarm.view.replay import replay_run
from worlds import check_world
from worlds.contained import Contained, open_checked
from worlds.protocol import WorldError
from worlds.results import CallError

pytestmark = pytest.mark.process


def _journal(folder: Path, contained: bool, world: dict[str, Any], limit_s: float = 60.0, **sections: Any) -> Path:
    config = ExperimentConfig.model_validate(
        {
            "episodes": 3,
            "concurrency": 2,
            "world": {**world, "contained": contained},
            "agents": {"count": 2, "engine": {"kind": "random"}},
            "faults": {"call_timeout_s": limit_s},
            "budget": {"ticks": 4},
            "runtime": {"pool": "local", "durability": "group"},
            **sections,
        }
    )
    start_run(config, folder / "experiment.yaml", folder / f"contained-{contained}")
    return folder / f"contained-{contained}" / "journal.jsonl"


@pytest.mark.parametrize(
    ("world", "sections"),
    [
        ({"id": RogueWorld.id}, {}),
        ({"id": "split-numbers-v0"}, {"coordinator": {"kind": "rules"}}),
        ({"id": "graph-v0", "options": {"rooms": 6}}, {}),
    ],
)
def test_the_journal_is_the_same_contained_or_not(
    tmp_path: Path, world: dict[str, Any], sections: dict[str, Any]
) -> None:
    journals = [_journal(tmp_path, contained, world, **sections) for contained in (False, True)]
    assert journals[0].read_bytes() == journals[1].read_bytes()
    assert replay_run(journals[1].parent, check=True).finished


TROUBLES = {
    "swallow": "step took longer than 1 s",
    "hang in C": "step took longer than 1 s",
    "leave": "step raised SystemExit: 3",
    "end the process": "step ended its process with exit code 3",
    "eat memory": "step raised MemoryError:",
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_whatever_a_contained_world_does_ends_its_episode_and_no_other(tmp_path: Path, trouble: str) -> None:
    """Failed at a7f87d3: there was nothing that could cut it; "leave" ended the command in silence."""
    world = {"id": RogueWorld.id, "options": {"trouble": trouble, "episode": 0}}
    records = read_records(_journal(tmp_path, True, world, limit_s=1.0))
    reasons = {record["episode"]: record["reason"] for record in records if record["kind"] == "episode_end"}
    assert reasons == {0: f"world fault: world rogue-v0: {TROUBLES[trouble]}", 1: "truncated", 2: "truncated"}


def test_a_world_that_refuses_its_options_says_so_from_the_child() -> None:
    with pytest.raises(WorldError) as here:
        open_checked("graph-v0", 2, {"rooms": -1})
    with pytest.raises(WorldError) as there:
        open_checked("graph-v0", 2, {"rooms": -1}, contained_mb=2048)
    assert str(here.value) == str(there.value)


def test_check_plays_in_a_child() -> None:
    assert check_world("echo-v0", seeds=(0,), max_steps=5, contained=True) == []


def test_any_function_can_be_contained() -> None:
    double = Contained("builtins:sorted", 1024)
    assert double([[3, 1, 2]]) == b"[1, 2, 3]"
    with pytest.raises(CallError, match="raised TypeError"):
        double([3])
    double.close()
    assert double([[2, 1]]) == b"[1, 2]"
    double.close()


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("busy", [False, True])
def test_no_child_outlives_a_killed_process(busy: bool) -> None:
    """A child that computes cannot see that its line is closed."""
    script = (
        "import sys, threading, time; sys.path = [p for p in sys.argv[1].split(':')] + sys.path\n"
        "from worlds.contained import Contained\n"
        "child = Contained('time:sleep', 1024); child([0])\n"
        "print(child._child[0].pid, flush=True)\n"
        f"child([100]) if {busy} else time.sleep(100)\n"
    )
    path = ":".join(folder for folder in sys.path if folder)
    parent = subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert _running(child)
    time.sleep(0.2)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 5
    while _running(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _running(child)
    parent.stdout.close()


def test_a_child_imports_nothing_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong queue')")
    monkeypatch.chdir(tmp_path)
    child = Contained("queue:Queue.__name__.upper", 1024)
    assert child([]) == b'"QUEUE"'
    child.close()


def test_a_child_that_ended_between_two_calls_is_nobodys_fault() -> None:
    world, other = (open_checked(RogueWorld.id, 2, contained_mb=1500) for _ in range(2))
    for one in (world, other):
        one.reset(3, {"episode": 1})
        one.step({"a0": "x"})
    process = world._ask._child._child[0]  # type: ignore[attr-defined]
    process.kill()
    process.wait()
    assert world.step({"a1": "y"}).observations["a0"] == "step 2"
    assert (world.render(), other.render()) == ("x y", "x")
