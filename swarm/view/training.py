"""The live view of trainings: polls the records that they append and shows them until nobody trains any more.

It reads `metrics.jsonl` of a folder, or of all trainings of a lab's, and nothing else. Of several trainings it shows
the one in progress.
"""

import time
from functools import partial
from pathlib import Path

from rich.console import Console, RenderableType

from swarm.actors.ray_train import METRICS
from swarm.errors import SwarmError
from swarm.files import LOCK, LineTail, is_locked
from swarm.process.console import stdout_console
from swarm.train.progress import read_record
from swarm.view.live import can_draw, polling, show_screen
from swarm.view.training_state import TrainingState, status
from swarm.view.training_view import in_one_line, render

PAUSE_S = 0.25


def work_folder_of(folder: Path) -> Path | None:
    """Return the folder that a training's or a lab's command locks: this one, or a lab's, two above a training's."""
    return next((place for place in (folder, *folder.resolve().parents[:2]) if (place / LOCK).exists()), None)


def find_records(folder: Path) -> list[Path]:
    """Return the files of records in a training's or a lab's folder."""
    return [path for depth in ("", "*/", "*/*/") for path in sorted(folder.glob(depth + METRICS))]


class TrainingPoller:
    """Keeps the states of the trainings of a folder current.

    Attributes:
        shown: the one in progress; None before the first record.
    """

    def __init__(self, folder: Path) -> None:
        self.shown: TrainingState | None = None
        self._folder, self._alive_s = folder, time.monotonic()
        self._there: dict[Path, tuple[LineTail, TrainingState]] = {}
        self._locked = work_folder_of(folder) or folder

    @property
    def states(self) -> list[TrainingState]:
        """All trainings that have recorded something."""
        return [state for _, state in self._there.values()]

    def poll(self) -> bool:
        """Take in what is new; return whether there was anything.

        Raises:
            SwarmError: a file cannot be read.
        """
        changed = False
        try:
            for path in find_records(self._folder):
                tail, state = self._there.setdefault(path, (LineTail(path), TrainingState(path.resolve().parent.name)))
                before, state.changed_s = tail.offset, path.stat().st_mtime
                for record in filter(None, map(read_record, tail.poll())):
                    state.fold(record)
                changed |= tail.offset != before
        except OSError as error:
            raise SwarmError(f"cannot read {error.filename}: {error.strerror}") from error
        if changed:
            self._alive_s = time.monotonic()
        self._choose()
        return changed

    def _choose(self) -> None:
        states, now_s = self.states, time.time()
        for state in states:
            state.silent_s = 0.0 if state.is_trained else max(0.0, now_s - state.changed_s)
        if self.shown is None or self.shown.is_trained or self.shown.is_silent:
            unfinished = [state for state in states if not state.is_trained]
            self.shown = max(unfinished or states, key=lambda state: state.changed_s, default=None)
        if self.shown is not None:
            self.shown.finished = sum(state.is_trained for state in states)
            self.shown.of = len(states) + (self.shown.others if self._is_whole else 0)

    @property
    def _is_whole(self) -> bool:
        """Whether the folder is all of the work, not one training of a lab."""
        return self._locked == self._folder

    @property
    def _is_trained(self) -> bool:
        """Whether no training is left."""
        return self.shown is not None and self.shown.finished == self.shown.of

    def is_over(self, patience_s: float) -> bool:
        """Return whether nothing more will come: all is trained, or nobody trains."""
        if is_locked(self._locked):
            self._alive_s = time.monotonic()
            return self._is_trained and not self._is_whole
        if not self._is_trained and time.monotonic() - self._alive_s < patience_s:
            return False
        self.poll()  # who has let go of the folder has written all
        if self.shown is not None:
            self.shown.abandoned, self.shown.silent_s = not self._is_trained, 0.0
        return True

    def draw(self, width: int, height: int, *, now_s: float | None = None) -> RenderableType:
        """Return the picture; see `swarm.view.training_view.render`."""
        return render(self.shown, width, height)


def watch(
    folder: Path, *, follow: bool = True, console: Console | None = None, plain: bool = False
) -> TrainingState | None:
    """Show the trainings of a folder until nobody trains.

    Args:
        folder: a training's or a lab's.
        follow: wait for the end; otherwise show what is there.
        console: where to draw; default the standard output.
        plain: lines instead of a screen, on a terminal too.

    Returns:
        The training that was shown last; None where nothing is recorded.

    Raises:
        SwarmError: a file cannot be read.
    """
    console, poller = console or stdout_console(), TrainingPoller(folder)
    poller.poll()
    if not follow:
        poller.is_over(patience_s=0.0)
    if can_draw(console) and not plain:
        show_screen(poller, poller.draw, console, PAUSE_S, follow)
    else:
        _show_lines(poller, console, follow)
    return poller.shown


def _show_lines(poller: TrainingPoller, console: Console, follow: bool) -> None:
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    told: set[str] = set()
    for _ in polling(poller, PAUSE_S) if follow else (True,):
        for state in poller.states:
            news, state.news = state.news, []
            for line in filter(None, map(in_one_line, news)):
                say(f"{state.title}: {line}")
        if poller.shown is not None:
            alarms = poller.shown.alarms()
            for alarm in alarms:
                if alarm.name not in told:
                    say(f"! {poller.shown.title}: {alarm.text}")
            told = {alarm.name for alarm in alarms}
    if (shown := poller.shown) is not None:
        step = shown.records[-1]["step"] if shown.records else 0
        whole = f" of {shown.steps:,}" if shown.steps else ""
        others = f", {shown.finished} of {shown.of} trainings done" if shown.of > 1 else ""
        say(f"{shown.title}: {status(shown)[0]}, step {step:,}{whole}{others}")
