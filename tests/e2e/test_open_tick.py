"""A run at an endpoint that is killed in the middle of a tick: what it had been answered is not paid again."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.endpoint import Endpoint, Handler, hangs, says

pytestmark = pytest.mark.process


def test_answers_of_a_tick_that_a_kill_cut_are_used_after_it(
    endpoint: Endpoint, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Failed at e48e5b3: the answers of the open tick were lost, and paid again."""
    answered: Counter[str] = Counter()

    def answer(handler: Handler) -> None:
        answered[str(handler.asked.payload)] += 1
        says(f"1+{handler.asked.payload['seed'] % 9}")(handler)

    endpoint.reply = answer
    assert start("run", "x.yaml", "--out", "whole", "--no-live").wait(60) == 0
    trial = str(endpoint.asked[0 if endpoint.asked[0].payload else 1].payload)  # each start asks once for real
    paid = answered.copy()
    answered.clear()

    endpoint.reply = hangs
    endpoint.replies += [answer] * 7  # the trial, a tick, and a part of the next
    run = start("run", "x.yaml", "--out", "run", "--no-live")
    kept, until_s = tmp_path / "run" / "open_tick.jsonl", time.monotonic() + 60
    while not (kept.is_file() and kept.read_bytes().count(b"\n") == 2) and time.monotonic() < until_s:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait(10)
    assert kept.read_bytes().count(b"\n") == 2

    endpoint.reply = answer
    assert start("resume", "run", "--no-live").wait(60) == 0
    assert not kept.exists()
    assert answered - Counter([trial]) == paid
    journals = [(tmp_path / name / "journal.jsonl").read_bytes() for name in ("whole", "run")]
    assert journals[0] == journals[1]
