"""What this process may use of the machine: CPUs and memory, with the limits of containers, batch systems and `ulimit`.

The one place that reads them; whoever sizes itself (threads, workers, Ray, estimates of memory) asks here. And how
memory that ran out is recognized, and told.
"""

import contextlib
import os
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from swarm.errors import SwarmError, first_line

ROOT = Path("/")

_UNLIMITED = 1 << 60
"""Limits from here on are none: cgroup v1 writes 2^63 less a page."""

_FULL = (
    "outofmemory",
    "out of memory",
    "memoryerror:",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "low on memory",
    "memory usage threshold",
    "failed to map segment",
)
"""What torch, CUDA, numpy, the operating system and Ray say of it, in lower case."""


def cpus(root: Path = ROOT) -> float:
    """Return how many CPUs this process may use, which may be a fraction.

    Args:
        root: of the file tree that holds `proc/self/cgroup` and `sys/fs/cgroup`; tests bring their own.
    """
    there = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for folder in _groups(root, "cpu"):
        quota, period, *_ = [*_read(folder / "cpu.max").split(), "", ""]  # version 2
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):  # none is "max", or -1
            there = min(there, int(quota) / int(period))
    return there


def cores(root: Path = ROOT) -> int:
    """Return how many threads can compute at once, at least 1: one more would be held up for most of its time."""
    return max(1, int(cpus(root)))


def memory_bytes(root: Path = ROOT) -> float:
    """Return the memory that this process may use.

    Args:
        root: see `cpus`.
    """
    there = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    for folder in _groups(root, "memory"):
        texts = (_read(folder / name) for name in ("memory.max", "memory.limit_in_bytes"))
        limits += [int(text) for text in texts if text.isdecimal()]
    return min([there, *(float(limit) for limit in limits if 0 < limit < _UNLIMITED)])


def resident_bytes(root: Path = ROOT) -> int:
    """Return the memory that this process holds; where the system does not tell, the most that it has held.

    Args:
        root: see `cpus`.
    """
    pages = _read(root / "proc" / "self" / "statm").split()
    if len(pages) > 1:
        return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def oom_kills(root: Path = ROOT) -> int:
    """Return how many processes the kernel has killed for memory, of this container where it is one.

    Args:
        root: see `cpus`.
    """
    for folder in _groups(root, "memory"):  # the innermost counts all that lie in it, whoever set the limit
        for name in ("memory.events", "memory.oom_control"):
            if (count := _counted(_read(folder / name))) is not None:
                return count
    return _counted(_read(root / "proc" / "vmstat")) or 0


def cpu_model(root: Path = ROOT) -> str:
    """Return what the processor calls itself, as far as the system tells: bits of a computation may depend on it.

    Args:
        root: see `cpus`.
    """
    for line in _read(root / "proc" / "cpuinfo", "utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("model name", "cpu model"):
            return " ".join(value.split())
    return platform.processor() or platform.machine()


def limit_threads() -> None:
    """Tell libraries that compute how many threads to take, where fewer CPUs are allowed than they would count."""
    if cpus() < len(getattr(os, "sched_getaffinity", lambda _: ())(0)):
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is full, the machine's or a GPU's."""
    said = f"{type(error).__name__}: {error}".lower()
    return isinstance(error, MemoryError) or any(word in said for word in _FULL)


def shortage(error: BaseException) -> str | None:
    """Return what to say of an error that comes of a machine that is too small, None of another one."""
    if is_out_of_memory(error):
        remedy = "close other programs, or take fewer hosts, a smaller batch or a smaller model"
        return str(memory_full("this process", f"{remedy} ({first_line(error)[:100]})"))
    if "start new thread" in str(error):
        return "no more threads may be started here: raise `ulimit -u`, or the container's limit of processes"
    return None


def memory_full(who: str, remedy: str) -> SwarmError:
    """Return the error that says who ran out of memory and what helps."""
    return SwarmError(f"{who} ran out of memory: {remedy}; `swarm doctor` says how much may be used here")


@contextlib.contextmanager
def told_when_full(who: str, remedy: str) -> Iterator[None]:
    """Turn errors that say that memory is full into one clear line.

    Raises:
        SwarmError: memory is full.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise memory_full(who, remedy) from error
        raise


class OomWatch:
    """Tells what died for want of memory: by its error, or because the kernel has killed since the last look."""

    def __init__(self) -> None:
        self._kills = oom_kills()

    def is_full(self, error: BaseException) -> bool:
        """Return whether what died with this error died for want of memory."""
        before, self._kills = self._kills, oom_kills()
        return self._kills > before or is_out_of_memory(error)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Return the folders of the control groups that limit this process, from its own to the outermost.

    Inside a container the path of the own group may be the host's, which is not there: then only the mount's root is.
    """
    mount = root / "sys" / "fs" / "cgroup"
    for line in _read(root / "proc" / "self" / "cgroup").splitlines():
        _, names, path, *_ = [*line.split(":", 2), "", ""]
        # Version 2 has one tree, without names, beside those of version 1 in `unified`.
        if names and controller not in names.split(","):
            continue
        for base in [mount / names, mount / controller] if names else [mount, mount / "unified"]:
            if not base.is_dir():
                continue
            inside = [part for part in path.split("/") if part]
            for depth in range(len(inside) if ".." not in inside else 0, -1, -1):
                if (folder := base.joinpath(*inside[:depth])).is_dir():
                    yield folder
            break


def _read(file: Path, encoding: str = "ascii") -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text(encoding=encoding).strip()
    return ""


def _counted(text: str) -> int | None:
    """Return the number behind `oom_kill`."""
    found = dict(line.split()[:2] for line in text.splitlines() if len(line.split()) > 1)
    return int(found["oom_kill"]) if found.get("oom_kill", "").isdecimal() else None
