"""Memory of a host process goes back to the system when it is freed."""

import subprocess
import sys

SCRIPT = """
import os
import torch
from swarm.actors.allocator import return_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")

def churn():
    for size in (40, 30, 20):  # once freed, a block of 40 MB would make the C library keep the smaller ones
        blocks = [torch.ones(size << 18) for _ in range(2)] + [torch.ones(1000)]
        del blocks[:2]

settled = return_freed_memory() if {settle} else None
before = resident()
keep = []
for _ in range(3):
    churn()
    keep.append(torch.ones(1000))
print(settled, (resident() - before) >> 20, os.environ.get("MKL_DISABLE_FAST_MM"))
"""


def churned(settle: bool) -> list[str]:
    command = [sys.executable, "-c", SCRIPT.replace("{settle}", str(settle))]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split()


def test_freed_blocks_leave_the_process() -> None:
    settled, kept, mkl = churned(True)
    assert settled == "True"
    assert int(kept) < 4
    assert mkl == "1"
