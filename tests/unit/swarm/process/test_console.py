"""Streams and sizes are usable whatever a process was given.

All of these failed at a7f87d3, where commands did as tests/e2e/test_terminal.py says.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.panel import Panel
from rich.progress import Progress

from swarm.process import console


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Return a function that makes a pipe the settled standard output and returns its reading end."""
    pipes: list[int] = []
    streams: list[Any] = []

    def install(encoding: str = "utf-8", is_blocking: bool = True) -> int:
        reading, writing = os.pipe()
        os.set_blocking(writing, is_blocking)
        pipes.append(reading)
        stream = io.TextIOWrapper(os.fdopen(writing, "wb"), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "__stdout__", stream)
        console.settle()
        streams.append(sys.stdout)
        return reading

    yield install
    for stream, pipe in zip(streams, pipes, strict=True):
        stream.close()
        os.close(pipe)


def read(pipe: int) -> str:
    sys.stdout.flush()
    return os.read(pipe, 65536).decode("ascii")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_text_can_be_written(output, encoding):
    pipe = output(encoding)
    gc.collect()  # what stood there before must not close the file when it goes
    for text in ("µLM │ →", "a name of bytes \udcff"):
        sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    written = os.read(pipe, 1000).decode(encoding).splitlines()
    assert written[1] == r"a name of bytes \udcff"
    assert written[0] == {"ascii": r"\xb5LM \u2502 \u2192", "latin-1": r"µLM \u2502 \u2192"}.get(encoding, "µLM │ →")


def test_typer_writes_no_utf8_past_an_ascii_stream(output):
    import typer

    pipe = output("ascii")
    typer.echo("µ")
    assert read(pipe) == "\\xb5\n"


def test_boxes_are_ascii_where_the_stream_is(output):
    pipe = output("ascii")
    console.stdout_console().print(Panel("a box"))
    assert read(pipe).startswith("+--")


def test_work_goes_on_when_its_reader_is_gone(output):
    pipe = output()
    os.dup2(os.open(os.devnull, os.O_RDONLY), pipe)  # nobody reads any more
    for _ in range(3):
        sys.stdout.write("progress\n")
        sys.stdout.flush()
    console.stdout_console().print("a table")


def test_a_slow_reader_is_waited_for(output):
    """Failed at a7f87d3: BlockingIOError, where another program has left the pipe or terminal non-blocking."""
    pipe = output(is_blocking=False)
    read_bytes = 0

    def follow() -> None:
        nonlocal read_bytes
        while read_bytes < 300_000:
            time.sleep(0.01)
            read_bytes += len(os.read(pipe, 65536))

    reader = threading.Thread(target=follow)
    reader.start()
    for _ in range(300):
        sys.stdout.write("x" * 999 + "\n")
    sys.stdout.flush()
    reader.join(10)
    assert read_bytes == 300_000


def test_a_command_that_only_prints_may_end_when_nobody_reads(output):
    pipe = output()
    os.dup2(os.open(os.devnull, os.O_RDONLY), pipe)
    console.end_unread()
    with pytest.raises(console.UnreadError):
        console.stdout_console().print("a line")
    sys.stdout.write("the interpreter's last words\n")
    sys.stdout.flush()


def test_a_full_disk_is_told_once(output):
    output()
    os.dup2(os.open("/dev/full", os.O_WRONLY), sys.stdout.fileno())
    sys.stdout.write("a result\n")
    with pytest.raises(OSError, match="No space left"):
        sys.stdout.flush()
    sys.stdout.flush()


@pytest.mark.parametrize("value", ["0", "-3", "wide", "²", "", "1000000", "9" * 40])
@pytest.mark.parametrize("name", ["COLUMNS", "LINES", "TERMINAL_WIDTH"])
def test_a_size_that_no_terminal_has_is_forgotten(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    console.settle()
    assert name not in os.environ


def test_a_size_that_a_terminal_may_have_stays(monkeypatch, output):
    monkeypatch.setenv("COLUMNS", "132")
    output()
    assert console.stdout_console().width == 132


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"])
def test_nothing_moves_the_cursor_of_a_pipe(monkeypatch, output, variable):
    monkeypatch.setenv(variable, "1")
    pipe = output("ascii")
    drawn = console.stdout_console()
    assert not drawn.is_terminal
    assert not drawn.is_interactive
    with Progress(console=drawn) as progress:
        progress.add_task("working", total=3)
    drawn.print("[red]red[/]")
    text = read(pipe)
    assert text.startswith("working")
    assert ("\x1b[31m" in text) is (variable == "FORCE_COLOR")
    assert "\x1b[?" not in text
    assert "\x1b[1A" not in text


def test_a_dumb_terminal_gets_no_bars_and_no_colours(monkeypatch, output):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    output()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    drawn = console.stdout_console()
    assert drawn.is_terminal
    assert not drawn.is_interactive
    assert drawn.color_system is None


def test_colours_can_be_declined(monkeypatch, output):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    pipe = output()
    console.stdout_console().print("[red]plain[/]")
    assert read(pipe) == "plain\n"
