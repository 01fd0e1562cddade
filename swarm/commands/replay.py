"""`swarm replay RUN`: what happened, from the journal alone."""

import time
from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.options import RunFolder, Trust

EXAMPLE = "swarm replay runs/puzzle-s1 --check"


def replay(
    run_folder: RunFolder,
    check: Annotated[
        bool, typer.Option("--check", help="Recompute every world state and verify the hash chain.")
    ] = False,
    prompts: Annotated[bool, typer.Option("--prompts", help="Tell what agents and coordinator read, too.")] = False,
    trust: Trust = False,
) -> None:
    """Retell a run from its journal, no model loaded; with --check the last line is the journal's hash."""
    from swarm.commands.run_folder import existing_run
    from swarm.errors import WorkFailedError

    run_dir = existing_run(run_folder)

    from swarm.process.console import end_unread
    from swarm.record.journal import JournalError
    from swarm.view.replay import ReplayError, transcript

    try:
        if check:
            _check(run_dir)
        else:
            end_unread()
            for line in transcript(run_dir, prompts=prompts):
                typer.echo(line)
    except (JournalError, ReplayError) as error:
        raise WorkFailedError(str(error)) from error


def _check(run_dir: Path) -> None:
    from swarm.process.progress import duration, progress
    from swarm.text import command
    from swarm.view.replay import replay_run

    began_s = time.monotonic()
    with progress(f"replaying {run_dir}", unit="MB") as work:
        result = replay_run(run_dir, True, progress=lambda done, size: work.update(done / 1e6, total=size / 1e6))
    cut = f", {result.open_episodes} cut short" if result.open_episodes else ""
    typer.echo(f"records       {result.records:,}, hash chain whole")
    typer.echo(f"episodes      {result.episodes:,} ended, {result.solved:,} solved{cut}")
    typer.echo(f"world states  {result.ticks:,} ticks recomputed, all equal, in {duration(time.monotonic() - began_s)}")
    typer.echo("run           " + ("finished" if result.finished else f"not finished: {command('resume', run_dir)}"))
    typer.echo(result.hash)
