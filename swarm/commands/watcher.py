"""Shows a run while it happens, in a second process whose only input is the journal.

Owns that process and the summary that follows it. The dashboard ends with the run, and the run neither waits
for it nor ends with it. It refuses to know what is drawn (`swarm.view.dashboard`) and how a run works
(`swarm.run.runner`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from swarm.commands.failure import WorkFailedError
from swarm.errors import SwarmError

if TYPE_CHECKING:
    from swarm.run.runner import RunOutcome

PARENT_VARIABLE = "SWARM_WATCH_PARENT"
"""Names the process whose end also ends the watcher, so that a killed run leaves none behind."""

_CATCH_UP_S = 10.0
_QUIT_S = 3.0


class Watcher:
    """One `swarm watch` process at most.

    Args:
        live: draw the dashboard; otherwise log plain lines.
        attended: a person is asked on this terminal, whom lines of another process would interrupt; what is to be
            told is told with the questions.
    """

    def __init__(self, live: bool, attended: bool = False) -> None:
        self.live = live and sys.stdout.isatty()
        self.attended = attended
        self.run_dir: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, run_dir: Path) -> None:
        """Start watching `run_dir`, whose journal exists by now."""
        self.run_dir = run_dir
        if self.attended:
            typer.echo(f"run folder {run_dir}; for a dashboard, in another terminal: swarm watch {run_dir}")
            return
        sys.stdout.flush()
        command = [sys.executable, "-m", "swarm.cli", "watch", str(run_dir)]
        command += [] if self.live else ["--plain"]
        environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
        try:
            # A group of its own: the terminal's Ctrl-C is for the run, which then ends its watcher by `stop`.
            self._process = subprocess.Popen(  # noqa: S603
                command, env=environment, stdin=subprocess.DEVNULL, process_group=0
            )
        except OSError as error:
            typer.echo(f"no live view: {error}", err=True)

    def wait(self) -> None:
        """Let the watcher show the end of the journal, then return."""
        self._end(_CATCH_UP_S)

    def stop(self) -> None:
        """End the watcher now, giving it time to restore the terminal."""
        self._end(0.0)

    def _end(self, patience_s: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # SIGTERM, not SIGINT: a watcher that is still importing ends by it without a traceback.
        steps = ((patience_s, signal.SIGTERM), (_QUIT_S, signal.SIGKILL))
        for timeout_s, number in steps:
            try:
                process.wait(timeout_s)
                return
            except subprocess.TimeoutExpired:
                process.send_signal(number)
        process.wait()


def carry_out(
    start: Callable[[Callable[[Path], None]], RunOutcome], live: bool, attended: bool = False, approve: bool = False
) -> None:
    """Run to the end under a watcher, print the summary, and leave with the run's exit code.

    Args:
        start: runs or resumes; it calls its argument with the run folder as soon as the journal exists.
        live: draw the dashboard if this is a terminal.
        attended: a person takes part on this terminal, so there is no watcher.
        approve: the person approves directives, and would want to do so after a stop, too.

    Raises:
        WorkFailedError: the run had begun and could not go on.
        KeyboardInterrupt: the user stopped it; the resume command is printed by then.
        typer.Exit: the run's exit code, unless it is 0.
    """
    watcher = Watcher(live, attended)
    began_s = time.monotonic()
    try:
        outcome = start(watcher.start)
    except BaseException as error:
        watcher.stop()
        if watcher.run_dir is None:
            raise
        again = f"{watcher.run_dir}{' --approve' if approve else ''}"
        typer.echo(f"stopped; continue with: swarm resume {again}", err=True)
        if isinstance(error, SwarmError):
            raise WorkFailedError(str(error)) from error
        raise
    watcher.wait()
    for name, value in _summary(outcome, time.monotonic() - began_s):
        typer.echo(f"{name:<13} {value}")
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _summary(outcome: RunOutcome, wall_s: float) -> list[tuple[str, str]]:
    run_dir = outcome.run_dir
    return [
        ("solved", f"{outcome.solved} of {outcome.episodes}"),
        ("ended", outcome.reason if outcome.played else f"{outcome.reason}, before: nothing was left to run"),
        ("tokens", f"{outcome.tokens:,}"),
        ("faults", str(outcome.faults)),
        ("wall time", f"{wall_s:.1f} s"),
        ("run folder", str(run_dir)),
        ("journal hash", outcome.journal_hash),
        ("next", f"swarm replay {run_dir} --check"),
        ("", f"swarm report {run_dir}"),
    ]
