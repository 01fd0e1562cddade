"""A run part by part: how often solved, what was earned, what the world measures; an exam is a part of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.errors import SwarmError
from swarm.view.measured import measured

EXPERIMENT = """name: talk
episodes: 30
world: {id: signal-v0, options: {attributes: 1, values: 3, letters: 2, length: 1, split: any}}
agents: {count: 2, engine: {kind: random}}
topology: {kind: none}
runtime: {pool: local}
"""


@pytest.fixture
def run_dir(swarm: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.yaml").write_text(EXPERIMENT)
    assert swarm("run", "talk.yaml", "--no-live", "--out", "run") == 0
    return tmp_path / "run"


def test_parts_cover_all_episodes_in_order_and_their_means_are_those_of_the_run(run_dir: Path) -> None:
    parts = measured(run_dir, 4)
    assert [part.name for part in parts] == ["0-7", "8-15", "16-23", "24-29"]
    assert [part.episodes for part in parts] == [8, 8, 8, 6]
    (whole,) = measured(run_dir, 1)
    assert whole.solved == pytest.approx(sum(part.solved * part.episodes for part in parts) / 30)
    assert 0 < whole.solved < 1
    assert whole.reward == whole.solved  # both of a pair earn 1 when their object was rebuilt
    assert whole.figures["understood"] == whole.solved


def test_worlds_measure_feedback_too(
    swarm: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    world = "{id: codebook-v0, options: {sentences: 0, notes: 2, one_offs: 1}}"
    settings = "episodes: 2\nagents: {count: 1, engine: {kind: random}}\nruntime: {pool: local}\n"
    (tmp_path / "ask.yaml").write_text(f"name: ask\nworld: {world}\n{settings}")
    assert swarm("run", "ask.yaml", "--no-live", "--out", "run") == 0
    (whole,) = measured(tmp_path / "run", 1)
    assert "one-off opened" in whole.figures


def test_more_parts_than_episodes_are_episodes(run_dir: Path) -> None:
    assert len(measured(run_dir, 1000)) == 30


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SwarmError):
        measured(tmp_path, 5)


def test_the_command_prints_a_line_for_each_part(
    run_dir: Path, swarm: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert swarm("measure", str(run_dir), "--parts", "3") == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert "topographic similarity" in head
    assert [line.split()[:2] for line in lines] == [["0-9", "10"], ["10-19", "10"], ["20-29", "10"]]
