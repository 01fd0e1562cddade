"""Following the metrics of a training from outside."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from swarm.actors.ray_train import appending
from swarm.train.progress import following, progress_lines, read_metrics


def test_progress_names_step_loss_rate_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0, 130.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    lines: list[str] = []
    report = progress_lines(1000, lines.append, "baseline, seed 1: ")
    for step in (100, 200, 400):
        report({"step": step, "loss": 2.34567})
    assert lines == [
        "baseline, seed 1: step 100/1000  loss 2.3457  0.0 steps/s  estimating",
        "baseline, seed 1: step 200/1000  loss 2.3457  10.0 steps/s  1.3 min left",
        "baseline, seed 1: step 400/1000  loss 2.3457  10.0 steps/s  1.0 min left",
    ]


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
    with following(path, progress_lines(9, lines.append, "here: "), every_s=60):
        append = appending(path)
        for record in (
            {"notice": "going on"},
            {"step": 1, "loss": 2.0},
            {"notice": "damaged"},
            {"step": 2, "loss": 1.0},
        ):
            append(record)
    assert lines[:2] == ["here: going on", "here: damaged"]
    assert lines[2].startswith("here: step 2/9  loss 1.0000")


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
