"""SIGTERM and SIGHUP stop a command as Ctrl-C does. These failed at a7f87d3: the process died where it stood."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from swarm.process import signals
from swarm.process.signals import Stopped, kept, stop_by_signals, stopped_by

BOTH = (signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(signals, "_received", [])
    before = {number: signal.getsignal(number) for number in BOTH}
    for number in BOTH:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_is_a_keyboard_interrupt_that_names_itself(number):
    stop_by_signals()
    with pytest.raises(KeyboardInterrupt) as caught:
        os.kill(os.getpid(), number)
    assert isinstance(caught.value, Stopped)
    assert stopped_by() == number


def test_kernel_and_shell_both_telling_that_the_terminal_is_gone_interrupts_once(monkeypatch):
    stop_by_signals()
    with pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)  # while files are being closed
    monkeypatch.setattr(signals, "_SAME_S", 0.0)
    with pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGHUP)


def test_what_nohup_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_by_signals()
    os.kill(os.getpid(), signal.SIGHUP)


def test_what_a_library_does_to_handlers_is_undone():
    stop_by_signals()
    with kept():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)
