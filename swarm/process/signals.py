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


_received: list[int] = []


class Stopped(KeyboardInterrupt):
    """A signal ends this command; `stopped_by` says which, whatever became of this on its way up."""


def stopped_by() -> int | None:
    """Return the number of the signal that ends this command, None where none has come."""
    return _received[0] if _received else None


def stop_by_signals() -> None:
    """Let SIGTERM and SIGHUP raise `Stopped` in the main thread; one that is ignored (`nohup`) stays so."""
    last_s = float("-inf")
    _received.clear()

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal last_s
        before_s, last_s = last_s, time.monotonic()
        if last_s - before_s > _SAME_S:
            _received.append(number)
            raise Stopped

    for number in _STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


@contextmanager
def kept() -> Iterator[None]:
    """Undo what a library written in C does to handlers while it starts."""
    is_main = threading.current_thread() is threading.main_thread()  # which alone has a say in handlers
    handlers = {number: signal.getsignal(number) for number in _STOPPING if is_main}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
