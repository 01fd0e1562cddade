"""Ends that are not Ctrl-C: SIGTERM and SIGHUP stop a command as Ctrl-C does, everything closed, and name themselves.

A handler raises `Stopped`, a KeyboardInterrupt, so what is written for Ctrl-C holds for all three.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOPPING = (signal.SIGTERM, signal.SIGHUP)
_SAME_S = 5.0
"""A second signal within this time is the same wish: kernel and shell both tell that the terminal is gone."""


class Stopped(KeyboardInterrupt):
    """A signal ends this command.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def stop_by_signals() -> None:
    """Let SIGTERM and SIGHUP raise `Stopped` in the main thread; one that is ignored (`nohup`) stays so."""
    last_s = float("-inf")

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal last_s
        before_s, last_s = last_s, time.monotonic()
        if last_s - before_s > _SAME_S:
            raise Stopped(number)

    for number in _STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


@contextmanager
def kept() -> Iterator[None]:
    """Undo what a library does to handlers while it starts; processes that it starts outlive a lost terminal.

    They end with us, after we have closed what is open.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone has a say in handlers
        yield
        return
    handlers = {number: signal.getsignal(number) for number in _STOPPING}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
