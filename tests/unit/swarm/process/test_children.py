"""Children find our packages, wherever they are, and everything that they would have found without us."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import swarm
from swarm.process.children import python_path


def test_a_child_of_a_checkout_finds_the_packages_that_this_process_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/theirs", "", "/theirs"]))
    given, *ours = python_path().split(os.pathsep)
    assert given == "/theirs"
    packages = Path(swarm.__file__).parents[1]
    assert ours == ([] if packages.name == "site-packages" else [str(packages)])
