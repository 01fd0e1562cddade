"""What tests at an endpoint on the real command line share: an experiment there, and a way to start commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.endpoint import Endpoint

EXPERIMENT = """
name: far
world: {id: numbers-v0}
agents: {count: 4, engine: {kind: openai, model: tiny, url: "URL", connections: 1}, max_new_tokens: 8}
budget: {ticks: 3}
runtime: {pool: local}
"""


@pytest.fixture
def start(endpoint: Endpoint, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts a command, environment as keywords, beside x.yaml, an experiment at `endpoint`."""
    (tmp_path / "x.yaml").write_text(EXPERIMENT.replace("URL", endpoint.url))

    def call(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "swarm.cli", *arguments]
        found = {**os.environ, **environment}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=tmp_path, env=found, stdout=pipe, stderr=pipe, text=True)

    return call
