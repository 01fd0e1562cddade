"""SmolLM2 learns a world by LoRA: a short round of `experiments/learn_smollm2.yaml`, and each step taken again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fakes.real_weights import needs_smollm2

from swarm.record.journal import read_records

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(900), needs_smollm2]

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "learn_smollm2.yaml"
LESS = (
    "episodes=4",
    "learning.every=4",
    "learning.steps=2",
    "learning.batch=4",
    "learning.delta.layers=2",
    "learning.explore.puzzles=8",
    "learning.test.tasks=0.5",
    "learning.exam.episodes=2",
)


def swarm(*arguments: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "swarm.cli", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_round_is_learned_tested_recomputed_and_exported(tmp_path: Path) -> None:
    run = tmp_path / "run"
    swarm("run", EXPERIMENT, "--no-live", "--out", run, *(word for one in LESS for word in ("--set", one)))
    (change,) = [record for record in read_records(run / "journal.jsonl") if record["kind"] == "change"]
    assert len(change["result"]) == 64
    assert change["evidence"]["counts"]["hindsight"] > 4
    assert {"kl", "text"} <= {part["name"] for part in change["tests"]}
    assert change["accepted"] == all(part["passed"] for part in change["tests"])
    first = next(record for record in read_records(run / "journal.jsonl") if record["kind"] == "tick")
    assert first["agents"][0]["prompt_tokens"] > 60  # a chat, not plain text
    lines = swarm("replay", run, "--check", "--learn")
    assert any(line.startswith("deltas        1 changes recomputed, all equal") for line in lines)
    if change["accepted"]:
        swarm("export", run, "--out", tmp_path / "adapter")
        assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
