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
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from swarm.errors import Outage, SwarmError, WorkFailedError
from swarm.process.children import python_path
from swarm.process.progress import show_as
from swarm.text import command, printable

if TYPE_CHECKING:
    from swarm.config.experiment import ExperimentConfig
    from swarm.run.runner import RunOutcome

PARENT_VARIABLE = "SWARM_WATCH_PARENT"
"""Names the process whose end also ends the watcher, so that a killed run leaves none behind."""

_RESTORE = "\x1b[?1049l\x1b[?25h"
"""Leaves the full screen and shows the cursor, where a view could not do so itself."""

_CATCH_UP_S = 10.0
_QUIT_S = 3.0


class Watcher:
    """One `swarm watch` process at most.

    Args:
        live: draw the dashboard; otherwise log plain lines.
        attended: a person is asked on this terminal, whom lines of another process would interrupt; what is to be
            told is told with the questions.
        goes_on: the run was there before; say so.
    """

    def __init__(self, live: bool, attended: bool = False, goes_on: bool = False) -> None:
        self.live = live and sys.stdout.isatty()
        self.attended, self.goes_on = attended, goes_on
        self.run_dir: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, run_dir: Path) -> None:
        """Start watching `run_dir`, whose journal exists by now."""
        self.run_dir = run_dir
        show_as("nothing" if self.live else "lines")
        if self.goes_on:
            typer.echo(f"{run_dir} holds an unfinished run of this experiment: it goes on")
        if self.attended:
            typer.echo(f"run folder {run_dir}; for a dashboard, in another terminal: {command('watch', run_dir)}")
            return
        sys.stdout.flush()
        # -P: the current folder may hold a queue.py, which is not Python's.
        watch = [sys.executable, "-P", "-m", "swarm.cli", "watch", str(run_dir), *([] if self.live else ["--plain"])]
        try:
            # A group of its own: the terminal's Ctrl-C is for the run, which then ends its watcher by `end`.
            self._process = subprocess.Popen(  # noqa: S603
                watch,
                env={**os.environ, PARENT_VARIABLE: str(os.getpid()), "PYTHONPATH": python_path()},
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
        except OSError as error:
            typer.echo(f"no live view: {error}; the run goes on", err=True)
        else:
            threading.Thread(target=self._mourn, args=(self._process,), daemon=True).start()

    def _mourn(self, process: subprocess.Popen[bytes]) -> None:
        """Say so when a view has died by itself, once it has; the run goes on."""
        code = process.wait()
        if code and process is self._process:
            if self.live:
                sys.stdout.write(_RESTORE)
            why = f"signal {-code}" if code < 0 else f"exit code {code}"
            again = command("watch", str(self.run_dir))
            typer.echo(f"the live view has died ({why}); the run goes on: {again}", err=True)

    def end(self, patience_s: float) -> None:
        """Let the watcher show the journal to its end for so long, then end it, with time to restore the terminal."""
        process, self._process = self._process, None
        show_as("bars")
        if process is None:
            return
        # SIGTERM, not SIGINT: a watcher that is still importing ends by it without a traceback.
        for timeout_s, number in ((patience_s, signal.SIGTERM), (_QUIT_S, signal.SIGKILL)):
            try:
                process.wait(timeout_s)
                return
            except subprocess.TimeoutExpired:
                process.send_signal(number)
        process.wait()


def carry_out(
    start: Callable[..., RunOutcome],
    live: bool,
    approve: bool = False,
    config: ExperimentConfig | None = None,
    goes_on: bool = False,
) -> None:
    """Run to the end under a watcher, print the summary, and leave with the run's exit code.

    Args:
        start: runs or resumes; it calls its argument with the run folder as soon as the journal exists. If a person
            takes part on this terminal, there is no watcher, and it is given the `terminal`.
        live: draw the dashboard if this is a terminal.
        approve: a person approves directives, and would want to do so after a stop, too.
        config: of the run, if it is known; its coordinator may be a person, too.
        goes_on: the folder holds an unfinished run; say so.

    Raises:
        Outage: models could not be asked any more; the line ends with the resume command.
        WorkFailedError: the run had begun and could not go on, or it failed.
        KeyboardInterrupt: the user stopped it; the resume command is printed by then.
    """
    attended = approve or (config is not None and config.coordinator.traits.needs_terminal)
    person = {}
    if attended:
        from swarm.coordinator.human import at_terminal

        person["terminal"] = at_terminal()
    watcher, began_s = Watcher(live, attended, goes_on), time.monotonic()
    try:
        outcome = start(watcher.start, **person)
    except BaseException as error:
        again = ""
        try:
            watcher.end(0.0)
        finally:  # also when the user is impatient
            if watcher.run_dir is not None:
                again = f"continue with: {command('resume', watcher.run_dir, *(['--approve'] if approve else []))}"
                if not isinstance(error, Outage):
                    typer.echo(f"stopped; {again}", err=True)
        if again and isinstance(error, Outage):
            raise Outage(f"{error}; {again}") from error
        if again and isinstance(error, SwarmError):
            raise WorkFailedError(str(error)) from error
        raise
    watcher.end(_CATCH_UP_S)
    exam, solved = outcome.exam_episodes, outcome.solved - outcome.exam_solved
    for name, value in {
        "solved": f"{solved} of {outcome.episodes - exam}",
        **({"in the exam": f"{outcome.exam_solved} of {exam}"} if exam else {}),
        "ended": outcome.reason if outcome.played else f"{outcome.reason}, before: nothing was left to run",
        "tokens": f"{outcome.tokens:,}",
        "faults": f"{outcome.faults}{f'; most often: {outcome.tally.worst}' if outcome.faults else ''}",
        "wall time": f"{time.monotonic() - began_s:.1f} s",
        "run folder": outcome.run_dir,
        "journal hash": outcome.journal_hash,
        "next": command("replay", outcome.run_dir, "--check"),
        "": command("report", outcome.run_dir),
    }.items():
        typer.echo(f"{name:<13} {value}")
    from swarm.record.telemetry import TELEMETRY_NAME, endpoint_lines

    for line in endpoint_lines(outcome.run_dir / TELEMETRY_NAME):
        typer.echo(f"{'endpoint':<13} {printable(line)}")
    if outcome.failure is not None:
        raise WorkFailedError(f"{outcome.failure}; most often: {outcome.tally.worst}")
