"""An episode: what its opening says, and who is paid in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from swarm.config.experiment import ExperimentConfig
from swarm.record.journal import read_records
from swarm.run.episode import Episode
from swarm.run.runner import resume_run, start_run
from swarm.run.skills import Skills
from swarm.view.replay import replay_run
from worlds import Info, make, register, registry
from worlds.echo.world import EchoWorld


class Ladder(EchoWorld):
    """A world of three levels, which says the level that it was reset to."""

    id = "ladder-v0"
    levels = 3

    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> tuple[dict[str, str], dict[str, Info]]:
        self.level = (options or {}).get("level")
        return super().reset(seed, options)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "level": self.level}


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> ExperimentConfig:
    monkeypatch.setattr(registry, "_registered", {})
    register(Ladder)
    return ExperimentConfig.model_validate(
        {
            "episodes": 2,
            "world": {"id": "ladder-v0", "options": {"max_steps": 2}},
            "agents": {"count": 2, "engine": {"kind": "random"}},
            "runtime": {"pool": "local"},
        }
    )


def test_an_episode_starts_at_the_easiest_level_unless_somebody_chooses(config: ExperimentConfig) -> None:
    opening = Episode(0, config, make("ladder-v0", 2)).opening()
    assert (opening["level"], opening["level_by"]) == (0, "default")


def test_level_and_who_chose_it_reach_world_and_journal_and_are_resumed_and_replayed(
    config: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Skills, "level", lambda self, index: (2, "curriculum"))
        run_dir = start_run(config, tmp_path / "experiment.yaml", tmp_path / "run").run_dir
    journal = run_dir / "journal.jsonl"
    openings = [record for record in read_records(journal) if record["kind"] == "episode"]
    assert [(record["level"], record["level_by"]) for record in openings] == [(2, "curriculum")] * 2
    replay_run(run_dir, check=True)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))  # killed before its end
    assert resume_run(run_dir).reason == "finished"
    assert journal.read_bytes() == b"".join(lines)
