"""What may be used of a machine, read from file trees of containers, and how full memory is told."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

import pytest
import torch

from swarm.errors import SwarmError
from swarm.process import machine
from swarm.process.machine import (
    OomWatch,
    cores,
    cpus,
    is_out_of_memory,
    memory_bytes,
    oom_kills,
    resident_bytes,
    shortage,
    told_when_full,
)

MB = 10**6
OWN = "system.slice/swarm.service"


def tree(root: Path, groups: str, **files: str) -> Path:
    """Write a file tree: the lines of /proc/self/cgroup, and files below /sys/fs/cgroup (`__` is a slash)."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        file = root / "sys" / "fs" / "cgroup" / name.replace("__", "/").replace("OWN", OWN)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


V2 = {"memory.max": str(700 * MB), "cpu.max": "50000 100000"}
V1_CPU = {"cfs_quota_us": "50000", "cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        pytest.param("0::/\n", V2, id="version 2, a container"),
        pytest.param(f"0::/{OWN}\n", {f"OWN__{name}": text for name, text in V2.items()}, id="version 2, a service"),
        pytest.param(
            f"0::/{OWN}\n",
            {"OWN__memory.max": "max", "OWN__cpu.max": "max 100000"}
            | {f"system.slice__{name}": text for name, text in V2.items()},
            id="version 2, limits further out",
        ),
        pytest.param("0::/../../kubepods/pod1\n", V2, id="version 2, a path of the host"),
        pytest.param(
            "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
            {"memory__memory.limit_in_bytes": str(700 * MB)}
            | {f"cpu,cpuacct__cpu.{name}": text for name, text in V1_CPU.items()},
            id="version 1, a container",
        ),
        pytest.param(
            "12:cpuacct,cpu:/batch/job\n4:memory:/batch/job\n0::/\n",
            {
                "memory__memory.limit_in_bytes": "9223372036854771712",
                "memory__batch__memory.limit_in_bytes": str(700 * MB),
                "memory__batch__job__memory.limit_in_bytes": str(900 * MB),
            }
            | {f"cpu__batch__job__cpu.{name}": text for name, text in V1_CPU.items()},
            id="version 1, a batch system",
        ),
    ],
)
def test_limits_of_containers_are_read(tmp_path: Path, groups: str, files: dict[str, str]) -> None:
    """Failed at a7f87d3: nobody read a quota of CPUs, and memory only where the container's root has its limit."""
    root = tree(tmp_path, groups, **files)
    assert memory_bytes(root) == 700 * MB
    assert cpus(root) == 0.5
    assert cores(root) == 1


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("", {}),
        ("garbage\n\n::\n", {}),
        ("0::/\n", {"memory.max": "max", "cpu.max": "max 100000"}),
        ("0::/\n", {"memory.max": "", "cpu.max": "x y z"}),
        (
            "4:memory:/\n3:cpu:/\n",
            {"memory__memory.limit_in_bytes": "9223372036854771712", "cpu__cpu.cfs_quota_us": "-1"},
        ),
        ("0::/\n", {"memory.max": "12 monkeys", "cpu.max": "50000 0"}),
    ],
)
def test_without_a_limit_it_is_the_whole_machine(tmp_path: Path, groups: str, files: dict[str, str]) -> None:
    root = tree(tmp_path, groups, **files)
    assert memory_bytes(root) == memory_bytes(tmp_path / "nowhere") > 100 * MB
    assert cpus(root) == len(os.sched_getaffinity(0)) == cores(root)


def test_the_memory_of_this_process_is_that_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "statm").write_text("900 100 30 1 0 80 0\n")
    assert resident_bytes(tmp_path) == 100 * resource.getpagesize()
    peak = resident_bytes(tmp_path / "elsewhere")
    assert 2**20 < peak < 2**40
    assert resident_bytes() <= peak * 1.1


def test_affinity_bounds_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)))
    assert cpus(tree(tmp_path, "0::/\n", **{"cpu.max": "600000 100000"})) == 3.0


def test_a_limit_of_the_shell_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at a7f87d3: `ulimit -v` and `-d`, which batch systems set, were not looked at."""
    limits = {resource.RLIMIT_AS: (800 * MB, -1), resource.RLIMIT_DATA: (resource.RLIM_INFINITY, -1)}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[kind])
    assert memory_bytes(tmp_path) == 800 * MB


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        (f"0::/{OWN}\n", {"OWN__memory.events": "low 0\noom 4\noom_kill 3", "memory.events": "oom_kill 9"}),
        ("4:memory:/\n", {"memory__memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3"}),
        ("0::/\n", {"memory.max": "max"}),  # the root of the machine counts for itself
    ],
)
def test_kills_for_memory_are_counted(tmp_path: Path, groups: str, files: dict[str, str]) -> None:
    root = tree(tmp_path, groups, **files)
    (root / "proc" / "vmstat").write_text("nr_free_pages 5\noom_kill 3\n")
    assert oom_kills(root) == 3
    assert oom_kills(tmp_path / "nowhere") == 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
        OSError(12, "Cannot allocate memory"),
        ValueError("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 9 GiB for an array"),
        RuntimeError("ray::HostActor.__init__() (pid=9)\n  File x\nMemoryError: in another process"),
    ],
)
def test_full_memory_is_recognized_whoever_says_it(error: Exception) -> None:
    assert is_out_of_memory(error)
    with pytest.raises(SwarmError, match=r"^loading ran out of memory: take less; `swarm doctor` says"):  # noqa: SIM117
        with told_when_full("loading", "take less"):
            raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), r"^this process ran out of memory: close .* \(MemoryError\); `swarm doctor` says how much"),
        (ImportError("libc10.so: failed to map segment from shared object"), "ran out of memory: .*libc10.so"),
        (RuntimeError("can't start new thread"), "no more threads may be started here: raise `ulimit -u`"),
    ],
)
def test_a_machine_that_is_too_small_is_no_bug(error: Exception, said: str) -> None:
    """Failed at a7f87d3: "this is a bug", exit 70, whichever part of a command met it."""
    assert re.search(said, shortage(error) or "")
    assert shortage(KeyError("x")) is None


def test_other_errors_stay_what_they_are() -> None:
    killed = (
        "(1) The process is killed by SIGKILL by OOM killer due to high memory usage. (2) ray stop --force is called."
    )
    assert not is_out_of_memory(RuntimeError(killed))  # Ray guesses so of every process that is gone
    with pytest.raises(KeyError), told_when_full("loading", "take less"):
        raise KeyError("x")


def test_a_death_is_for_memory_where_the_kernel_has_killed_since(monkeypatch: pytest.MonkeyPatch) -> None:
    kills = [0, 0, 1, 1]
    monkeypatch.setattr(machine, "oom_kills", lambda: kills.pop(0))
    watch = OomWatch()
    assert [watch.is_full(RuntimeError("killed")) for _ in range(3)] == [False, True, False]


@pytest.mark.parametrize(("allowed", "threads"), [(0.5, "1"), (1.7, "1"), (64.0, None)])
def test_libraries_take_no_more_threads_than_may_run(
    monkeypatch: pytest.MonkeyPatch, allowed: float, threads: str | None
) -> None:
    """Failed at a7f87d3: torch took a thread for each core of the host, whatever the container's quota."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(machine, "cpus", lambda root=None: allowed)
    monkeypatch.setattr(machine, "cores", lambda: max(1, int(allowed)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    machine.limit_threads()
    assert os.environ.get("OMP_NUM_THREADS") == threads


def test_the_processor_is_named_as_the_system_names_it(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Abacus  9000\nmodel name\t: another\n")
    assert machine.cpu_model(tmp_path) == "Abacus 9000"
    assert machine.cpu_model(tmp_path / "none")
