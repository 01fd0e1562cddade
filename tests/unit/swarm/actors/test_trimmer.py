"""Memory of a host process goes back to the system in pauses."""

import ctypes
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from swarm.actors.trimmer import PauseTrimmer

SCRIPT = """
import os
import torch
from swarm.actors.trimmer import give_back

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


def test_the_buffers_of_mkl_are_within_reach() -> None:
    if not torch.backends.mkl.is_available():
        pytest.skip("this build of torch has no MKL")
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    assert library.mkl_serv_free_buffers is not None


def test_a_pause_is_trimmed_once() -> None:
    trimmed: list[float] = []
    trimmer = PauseTrimmer(0.2, lambda: trimmed.append(time.monotonic()))
    for count in (1, 2):
        with trimmer.at_work():
            pass
        done = time.monotonic()
        time.sleep(1.0)
        assert len(trimmed) == count
        assert trimmed[-1] - done > 0.15


def test_nothing_is_trimmed_during_work_nor_right_after_it() -> None:
    trimmed: list[float] = []
    trimmer = PauseTrimmer(0.3, lambda: trimmed.append(time.monotonic()))
    with trimmer.at_work():
        pass
    for _ in range(2):  # each longer than a pause, and no pause between them
        with trimmer.at_work():
            time.sleep(0.6)
            assert trimmed == []
    done = time.monotonic()
    time.sleep(1.0)
    assert len(trimmed) == 1
    assert trimmed[0] - done > 0.25


def test_work_that_raises_ends_as_work() -> None:
    called = threading.Event()
    trimmer = PauseTrimmer(0.05, called.set)
    try:
        with trimmer.at_work():
            raise ValueError
    except ValueError:
        pass
    assert called.wait(5)
