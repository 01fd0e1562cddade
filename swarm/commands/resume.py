"""`swarm resume RUN`: continue a run that was interrupted or killed."""

from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.options import Approve, Live, RunFolder, Trust, a_path

EXAMPLE = "swarm resume runs/puzzle-s1"


def resume(
    run_folder: RunFolder,
    live: Live = True,
    approve: Approve = False,
    trust: Trust = False,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base",
            metavar="DIR",
            help="Where the experiment's file and its models are now, if they were moved; the run remembers it.",
            parser=a_path,
        ),
    ] = None,
) -> None:
    """Continue an interrupted run; its journal ends as if it had never been disturbed."""
    from functools import partial

    from swarm.commands.run_folder import existing_run, recorded_config
    from swarm.commands.watcher import carry_out

    run_dir = existing_run(run_folder)
    config = recorded_config(run_dir)

    from swarm.run.runner import resume_run

    carry_out(partial(resume_run, run_dir, base=base), live, approve, config)
