"""The live dashboard: polls a run folder's journal and telemetry and shows them until the run ends.

It reads `journal.jsonl` and `telemetry.jsonl` and nothing else, and only the bytes that are new. It refuses to touch
the run. The loop is that of `swarm.view.live`.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from swarm.errors import SwarmError
from swarm.files import LineTail, is_locked
from swarm.process.console import stdout_console
from swarm.record.journal import JOURNAL_NAME, JournalReader
from swarm.record.telemetry import TELEMETRY_NAME, parse_telemetry
from swarm.text import one_line
from swarm.view.dashboard_state import DashboardState
from swarm.view.dashboard_view import render, status
from swarm.view.live import can_draw, polling, show_screen
from swarm.view.panels import duration, plural

HEARTBEAT_S = 10.0


class RunPoller:
    """Keeps a `DashboardState` current from the files of a run folder."""

    def __init__(self, run_dir: Path) -> None:
        self.state = DashboardState()
        self._run_dir, self._alive_s = run_dir, time.monotonic()
        self._journal = JournalReader(run_dir / JOURNAL_NAME, verify=False)
        self._telemetry = LineTail(run_dir / TELEMETRY_NAME)

    def poll(self) -> bool:
        """Take in what is new; return whether there was anything.

        Raises:
            SwarmError: a file cannot be read or a journal line is no record.
        """
        before = self._journal.tail.offset, self._telemetry.offset
        try:
            for record in self._journal.poll():
                self.state.fold(record)
            for fact in filter(None, map(parse_telemetry, self._telemetry.poll())):
                self.state.fold_telemetry(fact)
        except KeyError as error:
            raise SwarmError(
                f"{self._journal.path}, line {self._journal.tail.num_lines}: there is no episode or agent {error}; "
                "`swarm replay RUN --check` says more"
            ) from error
        except OSError as error:
            raise SwarmError(f"cannot read {error.filename}: {error.strerror}") from error
        changed = before != (self._journal.tail.offset, self._telemetry.offset)
        if changed:
            self._alive_s = time.monotonic()
        return changed

    def is_over(self, patience_s: float) -> bool:
        """Return whether nothing more will come: the run has ended, or nobody runs it."""
        if is_locked(self._run_dir):
            self._alive_s = time.monotonic()
        elif time.monotonic() - self._alive_s >= patience_s:
            self.poll()  # who has let go of the folder has written all
            self.state.abandoned = self.state.end is None
        return self.state.abandoned or self.state.end is not None


def watch(
    run_dir: Path,
    *,
    follow: bool = True,
    refresh_hz: float = 4.0,
    console: Console | None = None,
    plain: bool = False,
) -> bool:
    """Show a run until it ends; a finished one is shown once. Return whether it was followed and nobody runs it now.

    Args:
        run_dir: the run folder; with `follow` its journal may still be missing.
        follow: wait for the end of the run; otherwise show what is there.
        refresh_hz: most looks at the files per second.
        console: where to draw; default the standard output.
        plain: lines instead of a screen, on a terminal too.

    Raises:
        SwarmError: there is no journal, or it is damaged.
    """
    console = console or stdout_console()
    poller = RunPoller(run_dir)
    poller.poll()
    if not follow:
        poller.is_over(patience_s=0.0)
    if not follow and not poller.state.config:
        raise SwarmError(f"no journal with a whole record in {run_dir}; name the folder of a run")
    pause_s, follow_on = 1 / refresh_hz, follow and poller.state.end is None
    if can_draw(console) and not plain:
        show_screen(poller, partial(render, poller.state), console, pause_s, follow_on)
    else:
        _show_lines(poller, console, pause_s, follow_on)
    return follow and poller.state.abandoned


def _show_lines(poller: RunPoller, console: Console, pause_s: float, follow: bool) -> None:
    state, said, told, learned, beat_s = poller.state, 0, 0, 0, time.monotonic()
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    for _ in polling(poller, pause_s) if follow else (True,):
        for number, ended in enumerate(state.ended, state.num_ended - len(state.ended) + 1):
            if number > said:
                outcome = "solved" if ended["solved"] else f"not solved ({one_line(ended['reason'])})"
                took = f"{plural(ended['ticks'], 'tick')}, {ended['tokens']:,} tokens"
                say(f"[{number}/{state.total_episodes}] episode {ended['episode']} {outcome} in {took}{_pace(state)}")
                beat_s = time.monotonic()
        for number, event in enumerate(state.events, state.num_events - len(state.events) + 1):
            if number > told:
                say(f"! {one_line(event)}")
        said, told = state.num_ended, state.num_events
        learned = _say_learned(state, learned, say)
        if time.monotonic() - beat_s >= HEARTBEAT_S and state.shown is not None and follow:
            beat_s = time.monotonic()
            if state.learned is not None and state.learned.computing is not None:
                say(status(state)[0])
                continue
            say(f"episode {state.shown.index} tick {state.shown.tick}, {state.tokens:,} tokens{_pace(state)}")
    exam = state.learned.exam if state.learned is not None else (0, 0)
    solved = f"{state.num_solved - exam[1]} of {state.num_ended - exam[0]} solved"
    in_exam = f" and {exam[1]} of {exam[0]} in the exam" if exam[0] else ""
    say(f"{status(state)[0]}: {solved}{in_exam}, {state.tokens:,} tokens{_pace(state)}")


def _say_learned(state: DashboardState, told: int, say: Callable[[str], None]) -> int:
    """Tell the changes of what agents keep that were not told yet; return how many have been."""
    if (learned := state.learned) is None:
        return told
    for number, change in enumerate(learned.changes, learned.num_changes - len(learned.changes) + 1):
        if number > told:
            say(one_line(change))
    return learned.num_changes


def _pace(state: DashboardState) -> str:
    rates, eta_s = state.rates(), state.eta_s()
    speed = f", {rates[0]:,.0f} tokens/s" if rates else ""
    return speed + (f", ETA {duration(eta_s)}" if eta_s else "")
