"""`swarm watch RUN`: the dashboard of a running or finished run."""

import os
import shlex
import signal
import threading
import time
from typing import Annotated

import typer

from swarm.commands.options import RunFolder
from swarm.commands.watcher import PARENT_VARIABLE

EXAMPLE = "swarm watch runs/puzzle-s1"


def watch(
    run_folder: RunFolder,
    plain: Annotated[bool, typer.Option("--plain", help="Log plain lines, on a terminal too.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for the run's end, or show what is there.")
    ] = True,
) -> None:
    """Show a run on the live dashboard, while it happens or afterwards; reads its journal only.

    Where nobody runs it any more, it says so, with exit code 1.
    """
    from swarm.commands.run_folder import existing_run
    from swarm.errors import WorkFailedError

    run_dir = existing_run(run_folder)
    if parent := os.environ.get(PARENT_VARIABLE):
        threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()

    from swarm.process.console import end_unread
    from swarm.view.dashboard import watch as show

    end_unread()
    if show(run_dir, follow=follow, plain=plain):
        raise WorkFailedError(f"nobody runs {run_dir} now; continue it with: swarm resume {shlex.quote(str(run_dir))}")


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
