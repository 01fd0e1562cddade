"""`swarm watch FOLDER`: the dashboard of a run or of trainings, while they happen or afterwards."""

import os
import shlex
import signal
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.options import a_path
from swarm.commands.watcher import PARENT_VARIABLE

EXAMPLE = "swarm watch runs/puzzle-s1"


def watch(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Of a run, a training or a lab, such as runs/puzzle-s1.", parser=a_path),
    ],
    plain: Annotated[bool, typer.Option("--plain", help="Log plain lines, on a terminal too.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for the end, or show what is there.")
    ] = True,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE.png",
            help="Of a training: draw its curves into this file at the end.",
            parser=a_path,
        ),
    ] = None,
) -> None:
    """Show a run or a training on the live dashboard, while it happens or afterwards; reads its records only.

    Where nobody goes on with it, it says so, with exit code 1.
    """
    from swarm.commands.run_folder import existing_run, holds_run
    from swarm.errors import SwarmError, WorkFailedError
    from swarm.files import is_locked
    from swarm.process.console import end_unread

    if not holds_run(folder):
        from swarm.view.training import find_records, work_folder_of

        place = folder.parent if folder.is_file() else folder
        if (whole := work_folder_of(place)) and (find_records(place) or is_locked(whole)):
            end_unread()
            _watch_training(place, plain, follow, plot)
            return
    run_dir = existing_run(folder)
    if plot is not None:
        raise SwarmError(f"--plot draws trainings; `swarm report {shlex.quote(str(run_dir))}` draws a run")
    if parent := os.environ.get(PARENT_VARIABLE):
        threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()

    from swarm.view.dashboard import watch as show

    end_unread()
    if show(run_dir, follow=follow, plain=plain):
        raise WorkFailedError(f"nobody runs {run_dir} now; continue it with: swarm resume {shlex.quote(str(run_dir))}")


def _watch_training(folder: Path, plain: bool, follow: bool, plot: Path | None) -> None:
    from swarm.errors import SwarmError, WorkFailedError
    from swarm.view.training import watch as show

    state = show(folder, follow=follow, plain=plain)
    if state is None:
        raise SwarmError(f"no training has recorded anything in {folder} yet")
    if plot is not None:
        from swarm.figures import to_png
        from swarm.files import write_whole
        from swarm.view.plots import plot_training

        write_whole(plot, to_png(plot_training(state.records)))
        typer.echo(f"plot          {plot}")
    if follow and state.abandoned:
        raise WorkFailedError(f"nobody trains {folder} now; continue it with: {state.again}")


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
