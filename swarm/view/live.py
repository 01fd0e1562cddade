"""The loop of a live view, its pace and its manners in a terminal; runs and trainings share it.

A full screen on a terminal, plain lines elsewhere. Pauses are stretched so that a view takes a few per cent of one core
at most.
"""

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live

CPU_SHARE = 0.02
LONGEST_PAUSE_S = 2.0
PATIENCE_S = 5.0
"""How long work that nobody holds the lock of, and that tells nothing new, may yet be one of another machine."""

Draw = Callable[..., RenderableType]
"""Draws a picture of so many columns and rows; `now_s` is given while it is followed, in unix seconds."""


class Poller(Protocol):
    """Keeps a picture current from files that grow."""

    def poll(self) -> bool:
        """Take in what is new; return whether there was anything."""

    def is_over(self, patience_s: float) -> bool:
        """Return whether nothing more will come."""


def can_draw(console: Console) -> bool:
    """Return whether a console is a terminal that shows panels."""
    utf = (console.encoding or "").lower()[:3] == "utf"
    return console.is_terminal and not console.is_dumb_terminal and utf


def show_screen(poller: Poller, draw: Draw, console: Console, pause_s: float, follow: bool) -> None:
    """Draw a full screen until nothing more will come, and then once below what stood there before."""
    if follow:
        with Live(console=console, screen=True, auto_refresh=False, redirect_stderr=False) as live:
            drawn_s, size = 0.0, console.size
            for changed in polling(poller, pause_s):
                now_s = time.time()
                if changed or now_s - drawn_s >= 1 or console.size != size:
                    drawn_s, size = now_s, console.size
                    live.update(draw(size.width, size.height, now_s=now_s), refresh=True)
    console.print(draw(console.width, max(24, console.height - 1)))


def polling(poller: Poller, pause_s: float) -> Iterator[bool]:
    """Yield after each poll whether there was news, until nothing more will come.

    The pause grows with the processor time of a round (poll plus drawing), so that watching stays cheap.
    """
    first = True
    while True:
        began_s = time.process_time()
        yield poller.poll() or first
        first = False
        if poller.is_over(PATIENCE_S):
            return
        time.sleep(min(LONGEST_PAUSE_S, max(pause_s, (time.process_time() - began_s) / CPU_SHARE)))
