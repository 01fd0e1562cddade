"""Memory of a host process goes back to the system in pauses."""

import subprocess
import sys
import threading
import time

from swarm.actors.allocator import PauseTrimmer

SCRIPT = """
import os
import torch
from swarm.actors.allocator import give_back

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")

def churn():
    for size in (40, 30, 20):  # once freed, a block of 40 MB makes the C library keep the smaller ones
        blocks = [torch.ones(size << 18) for _ in range(2)] + [torch.ones(1000)]
        del blocks[:2]

before = resident()
keep = []
for _ in range(3):
    churn()
    keep.append(torch.ones(1000))
kept = resident() - before
give_back()
print(kept >> 20, (resident() - before) >> 20)
"""


def test_freed_blocks_leave_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    kept, left = map(int, done.stdout.split())
    assert kept > 20
    assert left < 4


def test_a_pause_is_trimmed_once_and_work_never() -> None:
    trimmed: list[float] = []
    called = threading.Event()

    def trim() -> None:
        trimmed.append(time.monotonic())
        called.set()

    trimmer = PauseTrimmer(0.2, trim)
    with trimmer.at_work():
        time.sleep(0.5)
        assert trimmed == []
        done = time.monotonic()
    assert called.wait(5)
    assert trimmed[0] - done > 0.15
    time.sleep(0.5)
    assert len(trimmed) == 1
    called.clear()
    with trimmer.at_work():
        pass
    assert called.wait(5)
    assert len(trimmed) == 2


def test_work_that_raises_ends_as_work() -> None:
    called = threading.Event()
    trimmer = PauseTrimmer(0.05, called.set)
    try:
        with trimmer.at_work():
            raise ValueError
    except ValueError:
        pass
    assert called.wait(5)
