"""Following the metrics of a training from outside."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from swarm.actors.ray_train import appending
from swarm.train.progress import following, read_metrics, totals, training_shown


def test_the_first_metrics_give_an_estimate_and_the_last_ones_the_totals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Failed at a7f87d3: how long a training takes stood in no line before it was half done, its totals in none."""
    lines: list[str] = []
    path = tmp_path / "metrics.jsonl"
    with training_shown(path, 1000, "baseline, seed 1", lines.append, others=2):
        append = appending(path)
        append({"notice": "going on from step 50"})
        append({"step": 100, "tokens": 9000, "loss": 2.34567, "eta_s": 90.0, "seconds": 10.0})
        append({"step": 1000, "tokens": 90_000, "loss": 1.5, "eta_s": 0.0, "seconds": 95.5})
    assert lines[0] == "baseline, seed 1: going on from step 50"
    assert totals(path) == "1,000 steps, 90,000 tokens in 96 s"
    lines.clear()
    with training_shown(tmp_path / "b.jsonl", 1000, "b", lines.append, others=2):
        appending(tmp_path / "b.jsonl")({"step": 100, "tokens": 9, "loss": 2.0, "eta_s": 90.0, "seconds": 10.0})
    assert lines == [
        "b: about 90 s for the 900 steps that are left, as the first ones went; 5 min with the 2 that follow"
    ]
    assert totals(tmp_path / "none.jsonl") == ""


def test_the_file_says_what_began_and_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["swarm", "lab", "my lab.yaml", "--set", "seeds=[1]"])
    path = tmp_path / "s1" / "baseline" / "metrics.jsonl"  # the folder is made later, too
    with training_shown(path, 9, "baseline, seed 1", print, others=3):
        pass
    again = "swarm lab 'my lab.yaml' --set 'seeds=[1]'"
    wanted = {"began": "baseline, seed 1", "steps": 9, "others": 3, "command": again}
    assert [json.loads(line) for line in path.read_text().splitlines()] == [wanted]
    assert read_metrics(path) == []


def test_following_reports_whole_new_lines_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "é": "é"}\n')
    seen: list[dict[str, Any]] = []
    arrived = threading.Event()

    def report(line: dict[str, Any]) -> None:
        seen.append(line)
        arrived.set()

    def append(text: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)

    with following(path, report, every_s=0.005):
        append('{"step": 2')  # a line that is being written
        assert not arrived.wait(0.05)
        append(', "é": "é"}\n')
        assert arrived.wait(5)
        arrived.clear()
        append('{"step": 3}\n')
        assert arrived.wait(5)
        threads = [thread for thread in threading.enumerate() if "follow" in thread.name]
        assert threads
    assert [line["step"] for line in seen] == [2, 3]
    assert not any(thread.is_alive() for thread in threads)


def test_following_waits_for_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    arrived = threading.Event()
    with following(path, lambda line: arrived.set(), every_s=0.005):
        assert not arrived.wait(0.03)
        path.write_text('{"step": 1}\n')
        assert arrived.wait(5)


def test_notices_are_told_however_fast_metrics_follow(tmp_path: Path) -> None:
    lines: list[str] = []
    path = tmp_path / "metrics.jsonl"
    with training_shown(path, 9, "here", lines.append):
        append = appending(path)
        for record in (
            {"notice": "going on"},
            {"step": 1, "loss": 2.0},
            {"notice": "damaged"},
            {"step": 2, "loss": 1.0},
        ):
            append(record)
    assert lines == ["here: going on", "here: damaged"]


def test_steps_that_are_taken_again_count_once_and_a_torn_line_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append = appending(path)
    for step in (1, 2, 3):
        append({"step": step, "loss": float(step)})
    with path.open("a") as file:
        file.write('{"step": 4')  # killed
    append = appending(path)
    append({"notice": "going on from step 2"})
    append({"step": 3, "loss": 7.0})
    assert read_metrics(path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 7.0}]
    assert read_metrics(tmp_path / "none.jsonl") == []
