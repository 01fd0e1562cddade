"""What people see while they wait: bars on a terminal, plain lines elsewhere, nothing where another process draws."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from swarm.process import progress as shown
from swarm.process.progress import EVERY_S, NOTICE_S, counted, duration, progress, show_as


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


class Clock:
    """A time that goes on when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def go(self, seconds: float) -> None:
        """Let time pass, and look at what is open as the thread of the display does."""
        self.now_s += seconds
        with shown._display.lock:
            shown._display.show(self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(shown, "time", clock)
    monkeypatch.setattr(shown, "_LOOK_S", 3600.0)  # the thread looks when the test says so
    yield clock
    show_as("bars")
    assert shown._display.open == []


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let the standard error be a terminal for the rest of a test; return it."""
    for name, value in {"TERM": "xterm", "COLUMNS": "160", "LINES": "40"}.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0 s"), (0.34, "0.3 s"), (41.2, "41 s"), (150.0, "2 min"), (5400.0, "90 min"), (7380.0, "2 h 03 min")],
)
def test_durations_are_as_exact_as_a_reader_needs(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_plain_line_comes_every_15_s_with_what_is_done_the_rate_and_what_is_left(clock: Clock) -> None:
    lines: list[str] = []
    with progress("comparing", 40, "puzzles", done=10, say=lines.append) as work:
        clock.go(EVERY_S - 1)
        assert lines == []
        work.update(15, "loss 2.1")
        clock.go(1)
        clock.go(1)  # too early for the next one
        work.advance(5)
        clock.go(EVERY_S - 1)
    assert lines == [
        "comparing: 15 of 40 puzzles, 0.33/s, about 75 s left, loss 2.1",
        "comparing: 20 of 40 puzzles, 0.33/s, about 60 s left, loss 2.1",
    ]


def test_work_that_has_no_units_says_how_long_it_takes(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Failed at a7f87d3: nothing was said while Ray started or a model was loaded."""
    with progress("starting Ray"):
        clock.go(EVERY_S)
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "starting Ray: 15 s\n")


def test_a_wait_with_a_limit_says_so_after_5_s(clock: Clock) -> None:
    lines: list[str] = []
    with (
        progress("waiting for Ray", limit_s=90, say=lines.append),
        progress("starting", 2, "hosts", limit_s=600, say=lines.append),
    ):
        clock.go(NOTICE_S - 1)
        assert lines == []
        clock.go(1)
        clock.go(EVERY_S - 1)
        clock.go(1)
    assert lines == [
        "waiting for Ray: 5 s, at most 90 s",
        "starting: 0 of 2 hosts, 5 s so far, at most 600 s",
        "waiting for Ray: 20 s, at most 90 s",
        "starting: 0 of 2 hosts, 20 s so far, at most 600 s",
    ]


def test_short_work_shows_nothing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    with progress("reading"):
        clock.go(1.5)
    assert terminal.getvalue() == ""


def test_a_terminal_gets_a_bar_for_each_piece_of_work_and_is_left_clean(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = on_a_terminal(monkeypatch)
    lines: list[str] = []
    with progress("all [bold]runs", 4, "runs") as outer:
        outer.advance()
        with progress("run 2", 20, "puzzles", say=lines.append) as inner:
            inner.advance(5)
            clock.go(10)
            drawn = terminal.getvalue()
            print("a result")  # goes to the standard output, which is no terminal
        clock.go(10)
    for part in ("all [bold]runs", "1 of 4 runs, 0.10/s, about 30 s left", "run 2", "5 of 20 puzzles, 0.50/s"):
        assert part in drawn
    assert lines == []
    assert capsys.readouterr().out == "a result\n"
    assert terminal.getvalue().rpartition("\x1b[2K")[2] == "\x1b[?25h\r"  # the last bar is gone, the cursor is back


def test_where_smaller_pieces_write_the_lines_the_whole_writes_none(clock: Clock) -> None:
    lines: list[str] = []
    with progress("all", 4, "runs", say=None), progress("run 2", say=lines.append):
        clock.go(EVERY_S)
    assert lines == ["run 2: 15 s"]


@pytest.mark.parametrize(("manner", "lines"), [("nothing", 0), ("lines", 1)])
def test_beside_a_dashboard_nothing_is_drawn(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, manner: shown.Manner, lines: int
) -> None:
    """Failed at a7f87d3: there was nothing that knew of the dashboard."""
    terminal = on_a_terminal(monkeypatch)
    with progress("starting Ray"):
        clock.go(5)
        assert "starting Ray" in terminal.getvalue()
        show_as(manner)  # the run's journal is there, and the watcher draws from now on
        before = len(terminal.getvalue())
        clock.go(EVERY_S)
    assert terminal.getvalue()[before:] == "starting Ray: 20 s\n" * lines


def test_what_is_polled_is_asked_for_when_it_is_shown_and_may_fail(clock: Clock) -> None:
    lines: list[str] = []
    answers: list[Callable[[], float]] = [lambda: 3]  # then it fails
    with progress("run", 9, "puzzles", poll=lambda: answers.pop(0)(), say=lines.append):
        clock.go(EVERY_S)
        clock.go(EVERY_S)
        clock.go(EVERY_S)
    assert [line.partition(",")[0] for line in lines] == ["run: 3 of 9 puzzles"] * 3


def test_rates_leave_out_what_was_done_before(clock: Clock) -> None:
    with progress("training", 100, "steps") as work:
        clock.go(500)  # a slow start
        work.restart(50)
        clock.go(10)
        assert work.left_s() is None
        work.update(60)
        assert work.left_s() == 40
        work.skip(20)  # done before, too
        assert (work.done, work.left_s()) == (80, 20)
        work.update(5, total=20)  # another part of it
        assert work.left_s() is None
        assert work.pace() == "5 of 20 steps, 0 s so far"


def test_items_are_counted_when_the_caller_is_done_with_them(clock: Clock) -> None:
    done = [shown._display.open[0].done for _ in counted("hosts", ["a", "b"], 2, "hosts")]
    assert done == [0, 1]


def test_a_closed_standard_error_disturbs_no_work(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress("starting Ray"):
            clock.go(EVERY_S)


def test_no_thread_outlives_the_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shown, "_LOOK_S", 0.01)
    monkeypatch.setattr(shown, "EVERY_S", 0.0)
    said = threading.Event()
    with progress("waiting", say=lambda line: said.set()):
        assert said.wait(5)
        thread = next(thread for thread in threading.enumerate() if thread.name == "progress")
    thread.join(5)
    assert not thread.is_alive()
