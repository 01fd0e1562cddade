"""Finds the training workers that a test may kill."""

from __future__ import annotations

import os
import subprocess

__all__ = ["workers"]


def workers() -> list[int]:
    """Process ids of the training workers that descend from this process, and of no other."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()]
    parent = {int(row[0]): int(row[1]) for row in rows}

    def is_ours(pid: int) -> bool:
        while pid > 1:
            if pid == os.getpid():
                return True
            pid = parent.get(pid, 0)
        return False

    return [int(row[0]) for row in rows if len(row) == 3 and "RayTrainWorker" in row[2] and is_ours(int(row[0]))]
