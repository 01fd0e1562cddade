"""What a command may assume of its terminal, settled before it begins, and the consoles that all commands draw on.

Whoever starts us decides about streams and environment: a scheduler closes streams, a pager goes away, a locale knows
no µ, COLUMNS is 0. After `settle` there are three open streams, every text can be written to them, and the size is one
that a terminal may have. `stdout_console` and `stderr_console` are rich's, for tables and bars: they draw over lines
only where a person looks (`is_interactive`), and FORCE_COLOR brings colours to a pipe but nothing that moves a cursor.
"""

import codecs
import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_SIZES = ("COLUMNS", "LINES", "TERMINAL_WIDTH")
"""Variables that rich and typer read sizes from."""

_MAX_SIZE = 1000

_GONE = {errno.EPIPE, errno.EIO, errno.EBADF}
"""What writing says when there is no reader any more: of a pipe, of a terminal, of a stream that was no output."""


class UnreadError(Exception):
    """Nobody reads what a command prints that does nothing else."""


class _Stream(io.TextIOWrapper):
    """Standard output or error. Work goes on when its reader is gone; what would be written is dropped from then on.

    Attributes:
        ends: nobody reading is the end, by an `UnreadError`.
    """

    ends = False

    def write(self, text: str) -> int:
        """Write text that may hold anything."""
        if text == "":  # by which typer finds out what it can write to; it would drop an error
            return 0
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())  # what is buffered goes there, too: the interpreter's last flush cannot complain
        os.close(null)
        if error.errno not in _GONE:
            raise error
        if self.ends:
            raise UnreadError from error


class _AsciiStream(_Stream):
    """A stream of a locale that knows ASCII only; without a `buffer`, so that typer writes no UTF-8 past it."""

    buffer = None  # type: ignore[assignment]


def settle() -> None:
    """Make streams and sizes usable, whatever this process was given; once is enough."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened, a journal, would get its number
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name) or open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        if type(stream) is io.TextIOWrapper:  # neither settled before nor somebody's own
            how: dict[str, Any] = {key: getattr(stream, key) for key in ("encoding", "line_buffering", "write_through")}
            os.set_blocking(stream.fileno(), True)  # as others left it, a slow reader would be an error
            kind = _AsciiStream if codecs.lookup(stream.encoding).name == "ascii" else _Stream
            settled = kind(stream.detach(), errors="backslashreplace", **how)
            setattr(sys, name, settled)
            setattr(sys, f"__{name}__", settled)
    for name in _SIZES:
        value = os.environ.get(name, "")
        if not (value.isascii() and value.isdecimal() and len(value) < 10 and 0 < int(value) <= _MAX_SIZE):
            os.environ.pop(name, None)


def end_unread() -> None:
    """Let this command end when nobody reads its standard output any more: it prints, and does nothing else."""
    if isinstance(sys.stdout, _Stream):
        sys.stdout.ends = True


def stdout_console() -> "Console":
    """Return the console for standard output."""
    return _console(stderr=False)


def stderr_console() -> "Console":
    """Return the console for standard error, where bars go beside what a command prints."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console

    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    is_dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return Console(
        stderr=stderr,
        force_terminal=is_terminal,
        force_interactive=is_terminal and not is_dumb,
        color_system="standard" if os.environ.get("FORCE_COLOR") and not is_terminal else "auto",
    )
