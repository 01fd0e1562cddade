"""Metrics that are sent to Weights & Biases: what is sent, and that nothing is left in a buffer."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.tiny_lab import lab
from fakes.training import alone

from swarm.errors import SwarmError
from swarm.lab.ltm import trainer as lm_trainer


class Run:
    """Stands for a run of wandb."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.lines: list[tuple[dict[str, Any], int]] = []
        self.finished = False

    def init(self, **settings: Any) -> Run:
        self.settings = settings
        return self

    def log(self, line: dict[str, Any], step: int) -> None:
        assert not self.finished
        self.lines.append((line, step))

    def finish(self, exit_code: int = 0) -> None:
        self.finished, self.exit_code = True, exit_code


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    made = Run()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=made.init))
    return made


def test_lines_are_sent_with_their_step_and_the_run_is_finished(run: Run, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []
    with lm_trainer._tracking(lab(), "with_ltm", 3, tmp_path, alone(records)) as worker:
        worker.report({"notice": "going on from step 5"})
        worker.report({"step": 7, "loss": 1.5})
    assert records == [{"notice": "going on from step 5"}, {"step": 7, "loss": 1.5}]
    assert run.lines == [({"step": 7, "loss": 1.5}, 7)]
    assert run.finished
    assert (run.settings["project"], run.settings["name"]) == ("tiny", "with_ltm-s3")
    assert run.settings["dir"] == str(tmp_path)
    assert run.settings["config"]["seed"] == 3


def test_a_training_that_fails_still_finishes_its_run(run: Run, tmp_path: Path) -> None:
    def fail() -> None:
        with lm_trainer._tracking(lab(), "baseline", 1, tmp_path, alone()):
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        fail()
    assert run.finished
    assert run.exit_code == 1


def test_tracking_without_its_package_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SwarmError, match=r"tracking: wandb needs its package: pip install 'ulm-swarm\[tracking\]'"):
        lm_trainer.require_training(lab(train={"tracking": "wandb"}))
