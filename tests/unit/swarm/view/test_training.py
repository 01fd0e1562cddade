"""The view of trainings shows what they record, fits the terminal, and says when nobody trains any more."""

from __future__ import annotations

import io
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from swarm.actors.ray_train import METRICS, appending
from swarm.files import FolderLock
from swarm.train.progress import training_shown
from swarm.view.training import TrainingPoller, watch
from swarm.view.training_view import render

FULL: dict[str, Any] = {
    **{f"loss_{name}": 1.5 for name in ("next", "infill", "far", "recall", "consistency", "coherence")},
    **{f"share_{name}": 0.25 for name in ("next", "infill", "consistency", "coherence")},
    **{f"level_{name}": 3 for name in ("span", "distance")},
    "bits_held_out": 2.25,
    "reads_slots": 0.125,
    "ltm_hit_rate": 0.5,
    "consolidated": 2,
    "rejected": 1,
    "rss_mb": 512.0,
    "padding_share": 0.07,
    "end_rate": 1.0,
    "sample": "Once\nupon a time",
}


def train(folder: Path, steps: int = 400, last: int = 400, others: int = 0, **metrics: Any) -> None:
    """Record a training as its command does, up to the step `last`."""
    with training_shown(folder / METRICS, steps, f"{folder.name}, seed 1", lambda line: None, others):
        append = appending(folder / METRICS)
        append({"notice": "going on from step 0"})
        for number, step in enumerate(range(50, last + 1, 50), 1):
            pace = {"tokens": 64 * step, "tokens_per_s": 640.0, "eta_s": (steps - step) / 10, "seconds": 5.0 * number}
            append({"step": step, "loss": 4 - step / 200, "lr": 0.001, "grad_norm": 1.0, **pace, **metrics})


@pytest.fixture(autouse=True)
def command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["swarm", "train", "x.yaml"])
    monkeypatch.setattr("swarm.view.live.PATIENCE_S", 0.0)


def polled(folder: Path) -> TrainingPoller:
    poller = TrainingPoller(folder)
    poller.poll()
    return poller


def drawn(poller: TrainingPoller, width: int, height: int) -> str:
    console = Console(width=width, height=height, record=True, force_terminal=True, file=io.StringIO())
    console.print(poller.draw(width, height))
    return console.export_text()


def lines_of(folder: Path, follow: bool = True) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    watch(folder, follow=follow, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("size", [(80, 24), (140, 40), (60, 15), (60, 60), (200, 60), (80, 12)])
@pytest.mark.parametrize("metrics", [{}, FULL, {**FULL, "reads_slots": 0, "end_rate": 0.1}])
def test_panels_fit_the_terminal_and_are_not_cut(
    tmp_path: Path, size: tuple[int, int], metrics: dict[str, Any]
) -> None:
    train(tmp_path, steps=5000, last=1000, **metrics)
    text = drawn(polled(tmp_path), *size)
    assert len(text.splitlines()) <= size[1]
    assert max(map(len, text.splitlines())) <= size[0]
    assert text.count("╭") == text.count("╰") == text.count("╮") == text.count("╯") > 0


def test_every_metric_of_a_record_is_shown_where_there_is_room(tmp_path: Path) -> None:
    train(tmp_path / "all", steps=5000, last=1000, **FULL)
    text = drawn(polled(tmp_path / "all"), 140, 50)
    for wanted in (
        "all, seed 1",
        "1,000/5,000  ETA 6:",
        "64.0k tokens, 640 tokens/s",
        *(f"{name} " for name in FULL if name.startswith("loss_")),
        "bits_held_out",
        "-5/1k steps",
        "25.0%",
        "span",
        "reads_slots",
        "0.125",
        "hits",
        "50.0%",
        "RSS, MB",
        "512",
        "7.0%",
        "sample: Once upon a time",
        "going on from step 0",
    ):
        assert wanted in text
    assert re.search(r"rejected +█+ +20 │", text), "the sum over 20 lines"
    assert "█▇" in text


def test_alarms_stand_in_the_panel_of_news_and_in_plain_lines_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.view.training.polling", lambda poller, pause_s: (poller.poll() for _ in range(3)))
    train(tmp_path, reads_slots=0, steps=5000, last=1000)
    assert "! the memory never fires: reads_slots is 0" in drawn(polled(tmp_path), 80, 24)
    alarms = [line for line in lines_of(tmp_path) if line.startswith("! ")]
    assert alarms == [f"! {tmp_path.name}, seed 1: the memory never fires: reads_slots is 0 for 500 steps"]


def test_a_training_that_is_silent_for_too_long_is_an_alarm(tmp_path: Path) -> None:
    train(tmp_path, last=200)
    with FolderLock(tmp_path, "train"):
        assert "training  0:20" in drawn(polled(tmp_path), 80, 24)
        then_s = time.time() - 90
        os.utime(tmp_path / METRICS, (then_s, then_s))
        text = drawn(polled(tmp_path), 80, 24)
    assert "silent  0:20" in text
    assert "! no record for 90 s, where one is expected every 12 s" in text


def test_plain_lines_tell_every_record_and_the_end(tmp_path: Path) -> None:
    train(tmp_path, last=400, loss_far=1.25, level_span=2)
    lines = lines_of(tmp_path)
    title = f"{tmp_path.name}, seed 1"
    assert lines[0] == f"{title}: going on from step 0"
    assert lines[1] == f"{title}: step 50, loss 3.75, loss_far 1.25, level_span 2, 640 tokens/s, ETA 0:35"
    assert len(lines) == 1 + 8 + 1
    assert lines[-1] == f"{title}: trained, step 400 of 400"


def test_a_training_that_grows_is_followed_to_its_end(tmp_path: Path) -> None:
    with FolderLock(tmp_path, "train"):
        poller = polled(tmp_path)
        assert "waiting for the first record" in drawn(poller, 80, 24)
        train(tmp_path, last=200)
        assert poller.poll()
        assert not poller.poll()
        assert not poller.is_over(patience_s=0.0)
        appending(tmp_path / METRICS)({"step": 400, "loss": 1.0})
        poller.poll()
        assert not poller.is_over(patience_s=0.0), "its result is not written yet"
    assert poller.is_over(patience_s=60.0)
    assert poller.shown is not None
    assert (poller.shown.is_trained, poller.shown.abandoned) == (True, False)


def test_a_training_of_before_that_tells_no_length_is_trained_when_nothing_is_left(tmp_path: Path) -> None:
    append = appending(tmp_path / METRICS)
    append({"step": 50, "loss": 1.0, "eta_s": 7.5})
    assert "nobody trains it" in lines_of(tmp_path)[-1]
    append({"step": 100, "loss": 1.0, "eta_s": 0.0})
    assert lines_of(tmp_path)[-1] == f"{tmp_path.name}: trained, step 100"


def test_of_a_lab_the_training_in_progress_is_shown_and_all_are_counted(tmp_path: Path) -> None:
    with FolderLock(tmp_path, "lab"):
        train(tmp_path / "s1" / "baseline", others=3)
        poller = polled(tmp_path)
        train(tmp_path / "s1" / "with_ltm", last=200, others=2)
        later_s = time.time() + 60
        os.utime(tmp_path / "s1" / "baseline" / METRICS, (later_s, later_s))
        poller.poll()
        text = drawn(poller, 80, 24)
        assert "with_ltm, seed 1" in text
        assert "200/400" in text
        assert "1/4" in text
        one = TrainingPoller(tmp_path / "s1" / "baseline")
        one.poll()
        assert one.is_over(patience_s=60.0), "the lab goes on, this training does not"
        assert not poller.is_over(patience_s=0.0)
    assert poller.is_over(patience_s=0.0)
    assert "continue it with: swarm train x.yaml" in drawn(poller, 80, 24)


def test_a_lab_that_was_killed_between_two_trainings_is_not_done(tmp_path: Path) -> None:
    with FolderLock(tmp_path, "lab"):
        train(tmp_path / "s1" / "baseline", others=1)
    state = watch(tmp_path, console=Console(file=io.StringIO()))
    assert state is not None
    assert state.abandoned
    train(tmp_path / "s1" / "with_ltm")
    assert lines_of(tmp_path)[-1] == "with_ltm, seed 1: trained, step 400 of 400, 2 of 2 trainings done"


def test_text_of_models_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    train(tmp_path, sample="\x1b[2Jx\u202e[bold]y")
    text = "\n".join([drawn(polled(tmp_path), 80, 24), *lines_of(tmp_path)])
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "·[2Jx·[bold]y" in text


def test_a_torn_line_and_unknown_records_are_no_error(tmp_path: Path) -> None:
    train(tmp_path, last=100)
    with (tmp_path / METRICS).open("a") as file:
        file.write(
            '[1]\n{"stage": "books"}\n{"step": 150, "lo\n' + json.dumps({"step": 200, "loss": float("nan")}) + "\n"
        )
    text = drawn(polled(tmp_path), 80, 24)
    assert "200/400" in text
    assert "! loss is nan" in text
    assert render(None, 80, 24)
