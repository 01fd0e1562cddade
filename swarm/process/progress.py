"""What people see while they wait: a bar with rate and remaining time on a terminal, a plain line every 15 s elsewhere.

- A wait that is given up at a limit says so, in its first plain line after 5 s.
- Nothing is shown of work that ends within two seconds, and nothing of this is ever on the standard output.
- Rates and remaining times come from units that were finished since the work was opened, not from earlier tries.
- Work may be opened inside other work, and beside it.
- Where another process draws on the same terminal, `show_as` keeps bars away.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from swarm.process.console import stderr_console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

EVERY_S = 15.0
"""From one plain line about a piece of work to the next."""
NOTICE_S = 5.0
"""To the first plain line about a wait that has a limit."""
PATIENCE_S = 2.0
_LOOK_S = 0.5

Manner = Literal["bars", "lines", "nothing"]
ItemT = TypeVar("ItemT")


@dataclass(eq=False)
class Work:
    """A piece of work that people wait for.

    Attributes:
        title: what is done.
        total: units of it, None where that is not known.
        unit: what is counted, in the plural; "" where nothing is.
        say: receives plain lines; None where smaller pieces, which write them, are enough without a terminal.
        poll: returns how much is done by now; None where `update` and `advance` say so.
        done: units that are done.
        note: what else is worth knowing, such as a loss.
        limit_s: after how long it is given up, None where it is not.
    """

    title: str
    total: float | None
    unit: str
    say: Callable[[str], None] | None
    poll: Callable[[], float] | None = None
    done: float = 0
    note: str = ""
    before: float = 0
    limit_s: float | None = None
    opened_s: float = field(default_factory=lambda: time.monotonic())

    def __post_init__(self) -> None:
        self.began_s = self.opened_s
        self.told_s = self.opened_s - (0 if self.limit_s is None else EVERY_S - NOTICE_S)

    def advance(self, count: float = 1) -> None:
        """Count units that were finished just now."""
        self.done += count

    def update(self, done: float, note: str = "", total: float | None = None) -> None:
        """Say how much is done; less than before begins another part of the work."""
        if done < self.done:
            self.restart(done)
        self.done, self.note, self.total = done, note, self.total if total is None else total

    def skip(self, count: float) -> None:
        """Count units that were done before."""
        self.done += count
        self.before += count

    def restart(self, done: float) -> None:
        """Count from here on: so much was done before, or was no fair sample of the work."""
        self.done = self.before = done
        self.began_s = time.monotonic()

    def left_s(self) -> float | None:
        """Return how long the rest takes at the pace so far, None where that is not known yet."""
        passed, new = time.monotonic() - self.began_s, self.done - self.before
        return None if self.total is None or new <= 0 else (self.total - self.done) * passed / new

    def pace(self) -> str:
        """Return what is done, at which rate, and what is left, in words."""
        passed, new, left_s = time.monotonic() - self.began_s, self.done - self.before, self.left_s()
        most = "" if self.limit_s is None else f"at most {self.limit_s:g} s"
        if not self.unit:
            return ", ".join(filter(None, (duration(passed), self.note, most)))
        whole = "" if self.total is None else f" of {_number(self.total)}"
        rate = f"{new / passed:,.2f}/s" if new > 0 and passed > 0 else f"{duration(passed)} so far"
        left = f"about {duration(left_s)} left" if left_s else ""
        return ", ".join(filter(None, (f"{_number(self.done)}{whole} {self.unit}", rate, left, self.note, most)))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def duration(seconds: float) -> str:
    """Return a span of time in words, as exact as a reader needs it."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 9.95 and seconds != int(seconds) else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def to_stderr(line: str) -> None:
    """Tell a line beside what a command prints."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, or none at all: nobody reads it
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


class _Display:
    """All open work of this process, and the thread that shows it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.open: list[Work] = []
        self.manner: Manner = "bars"
        self._stop: threading.Event | None = None
        self._bars: Progress | None = None
        self._tasks: dict[Work, TaskID] = {}

    def begin(self, work: Work) -> None:
        with self.lock:
            self.open.append(work)
            if self._stop is None:
                self._stop = threading.Event()
                threading.Thread(target=self._follow, args=(self._stop,), name="progress", daemon=True).start()

    def end(self, work: Work) -> None:
        with self.lock:
            self.open.remove(work)
            if self._bars is not None and work in self._tasks:
                self._bars.remove_task(self._tasks.pop(work))
            if self.open:
                return
            if self._stop is not None:
                self._stop.set()
            self._stop = None
            self.clear()

    def clear(self) -> None:
        """Take all bars away."""
        with self.lock:
            if self._bars is not None:
                self._bars.stop()
            self._bars, self._tasks = None, {}

    def _follow(self, stop: threading.Event) -> None:
        while not stop.wait(_LOOK_S):
            with self.lock:
                if not stop.is_set():
                    self.show(time.monotonic())

    def show(self, now_s: float) -> None:
        """Show what is open: a bar, or a line where the last one is long ago."""
        manner = self.manner if is_terminal() else "lines"
        for work in self.open if manner != "nothing" else ():
            drawn = manner == "bars"
            since_s, patience_s = (work.opened_s, PATIENCE_S) if drawn else (work.told_s, EVERY_S)
            if now_s - since_s < patience_s or not (drawn or work.say):
                continue
            if work.poll is not None:
                try:
                    work.done = work.poll()
                except Exception:  # whoever does the work finds out and says so
                    work.poll = None
            if drawn:
                self._draw(work)
            elif work.say is not None:
                work.told_s = now_s
                work.say(f"{work.title}: {work.pace()}")
        if self._bars is not None:
            self._bars.refresh()

    def _draw(self, work: Work) -> None:
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        if work not in self._tasks:
            self._tasks[work] = self._bars.add_task(work.title, total=work.total, work=work)
        self._bars.update(self._tasks[work], completed=work.done, total=work.total)


_display = _Display()


def is_terminal() -> bool:
    """Return whether bars can be drawn: whether the standard error is a terminal that moves its cursor."""
    try:
        return bool(stderr_console().is_interactive)
    except (AttributeError, ValueError):  # none, or closed
        return False


def _bars() -> "Progress":
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Pace(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(task.fields["work"].pace())

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        Pace(),
        console=stderr_console(),
        transient=True,
        auto_refresh=False,
        # Lines of this process go above the bars; but what is written into a file must not end up on the terminal.
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
    )


@contextlib.contextmanager
def progress(
    title: str,
    total: float | None = None,
    unit: str = "",
    *,
    done: float = 0,
    poll: Callable[[], float] | None = None,
    say: Callable[[str], None] | None = to_stderr,
    limit_s: float | None = None,
) -> Iterator[Work]:
    """Show a piece of work for as long as the `with` block lasts; arguments as of `Work`, `done` before it began."""
    work = Work(title, total, unit, say, poll, done, before=done, limit_s=limit_s)
    _display.begin(work)
    try:
        yield work
    finally:
        _display.end(work)


def counted(title: str, items: Iterable[ItemT], total: float, unit: str, **how: Any) -> Iterator[ItemT]:
    """Yield items one by one and count those that the caller is done with."""
    with progress(title, total, unit, **how) as work:
        for item in items:
            yield item
            work.advance()


def show_as(manner: Manner) -> None:
    """Choose how work is shown on a terminal from now on: as lines or not at all where another process draws there."""
    with _display.lock:
        _display.manner = manner
        if manner != "bars":
            _display.clear()
