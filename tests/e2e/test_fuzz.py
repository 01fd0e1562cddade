"""The fuzzer of the command line finds nothing in a short while; by hand it runs for longer."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_no_command_ends_in_another_way_than_it_may() -> None:
    script = Path(__file__).with_name("fuzz_command_line.py")
    done = subprocess.run([sys.executable, script, "--seconds", "60"], capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout
