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
    learn: Annotated[
        bool,
        typer.Option("--learn", help="With --check: take every learning step again and compare what was learned."),
    ] = False,
    prompts: Annotated[bool, typer.Option("--prompts", help="Tell what agents and coordinator read, too.")] = False,
    trust: Trust = False,
) -> None:
    """Retell a run from its journal, no model loaded; with --check the last line is the journal's hash.

    --learn loads the agents' model and takes as long as learning did. On another CPU, or with another torch, weights
    are compared within 1e-4.
    """
    from swarm.commands.run_folder import existing_run
    from swarm.errors import WorkFailedError

    run_dir = existing_run(run_folder)

    from swarm.process.console import end_unread
    from swarm.record.journal import JournalError
    from swarm.view.replay import ReplayError, transcript

    try:
        if check or learn:
            _check(run_dir, learn)
        else:
            end_unread()
            for line in transcript(run_dir, prompts=prompts):
                typer.echo(line)
    except (JournalError, ReplayError) as error:
        raise WorkFailedError(str(error)) from error


def _check(run_dir: Path, learn: bool) -> None:
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
    if result.changes and not learn:
        typer.echo(f"changes       {result.changes:,} of what agents keep; --learn takes the learning steps again")
    if learn:
        _check_learning(run_dir, result.changes)
    typer.echo("run           " + ("finished" if result.finished else f"not finished: {command('resume', run_dir)}"))
    typer.echo(result.hash)


def _check_learning(run_dir: Path, changes: int) -> None:
    from swarm.learn.recompute import recompute
    from swarm.process.progress import duration, progress

    began_s = time.monotonic()
    with progress(f"learning again what {run_dir} learned", total=changes, unit="changes") as work:
        found = recompute(run_dir, on_change=lambda record: work.advance())
    took = duration(time.monotonic() - began_s)
    if not found.machine:
        typer.echo(f"deltas        {found.equal:,} changes recomputed, all equal, in {took}")
        return
    told = f"{found.equal:,} equal, {found.near:,} within 1e-4, bits differ: another machine ({found.machine})"
    typer.echo(f"deltas        {told}, in {took}")
    if found.skipped:
        typer.echo(f"              {found.skipped:,} cannot be compared here: the files that this takes were pruned")
