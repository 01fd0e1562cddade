"""A small container: another user without a home, half a CPU, 700 MB, nothing writable but one volume."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.process]

ROOT = Path(__file__).parents[2]

# As root in a mount namespace of its own. What the kernel is asked for is a limit of each process' data; the group's
# files are what doctor and threads are told by. An interpreter in a closed home is given a way in.
CONTAINER = r"""
set -e
volume=$1 prefix=$2; shift 2
mount -t tmpfs -o mode=1777 tmpfs "$volume"
mkdir "$volume/prefix" "$volume/group"
closed=$(dirname "$prefix")
while [ "$closed" != / ] && [ "$(stat -c %A "$closed" | cut -c10)" = x ]; do closed=$(dirname "$closed"); done
if [ "$closed" != / ]; then
    mount --bind "$prefix" "$volume/prefix"
    mount -t tmpfs -o mode=755 tmpfs "$closed"
    mkdir -p "$prefix"
    mount --move "$volume/prefix" "$prefix"
fi
echo 700000000 > "$volume/group/memory.max"
echo 50000 100000 > "$volume/group/cpu.max"
mount --bind "$volume/group" /sys/fs/cgroup
mount -t tmpfs -o size=64m,mode=1777 tmpfs /dev/shm
mount -o remount,bind,ro /
cd "$volume"
exec setpriv --reuid 54321 --regid 54321 --clear-groups --bounding-set=-all \
    prlimit --data=700000000 taskset -c 0 "$@"
"""

COMMANDS = r"""
set -e
swarm() { "$PYTHON" -m swarm.cli "$@"; }
touch /here 2> /dev/null && { echo "the root is writable" >&2; exit 9; }
swarm doctor > doctor.txt || true
swarm run smoke --no-live --out whole
setsid "$PYTHON" -m swarm.cli run smoke --no-live --out cut > /dev/null 2>&1 &
while [ "$(cat cut/journal.jsonl 2> /dev/null | wc -l)" -lt 4 ]; do sleep .05; done
kill -9 $!
swarm resume cut --no-live
cmp whole/journal.jsonl cut/journal.jsonl
cat doctor.txt
"""


def test_run_doctor_and_resume_work_in_a_small_container(tmp_path: Path) -> None:
    """Failed at a7f87d3: doctor told the host's cores and memory, and torch took as many threads."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "prlimit", "taskset"))):
        pytest.skip("needs root and util-linux")
    if subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    volume = tmp_path / "volume"
    volume.mkdir()
    for folder in (tmp_path, *tmp_path.parents[:3]):  # pytest keeps its folders to the user
        if folder.name.startswith(("pytest", "test")):
            folder.chmod(0o755)
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", CONTAINER, "-", str(volume), sys.base_prefix, "bash", "-c", COMMANDS],
        env={
            "PATH": os.environ["PATH"],
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(volume),
            "XDG_CACHE_HOME": str(volume),
        },
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("stopped; continue with") == 0
    (cpu,) = [line for line in done.stdout.splitlines() if line.startswith("ok       cpu ")]
    (memory,) = [line for line in done.stdout.splitlines() if line.startswith("missing  memory ")]
    assert "0.5 cores may be used" in cpu
    assert "0.7 GB may be used" in memory
