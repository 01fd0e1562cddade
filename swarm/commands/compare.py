"""`swarm compare FILE`: all arms over the same puzzles, seeds and budget."""

from typing import Annotated

import typer

from swarm.commands.options import ExperimentFile, OutFolder, Overrides

EXAMPLE = "swarm compare experiments/puzzle.yaml --set compare.episodes=20"


def compare(
    file: ExperimentFile,
    overrides: Overrides = None,
    arm: Annotated[list[str] | None, typer.Option(metavar="ARM", help="Run only this arm. May be repeated.")] = None,
    seed: Annotated[list[int] | None, typer.Option(metavar="N", help="Run only this seed. May be repeated.")] = None,
    out: OutFolder = None,
) -> None:
    """Compare the swarm with single agents and null controls at equal compute.

    Writes a table with paired bootstrap intervals, plots, and a self-contained report.html.
    """
    from swarm.config.load import load_experiment
    from swarm.config.shipped import find_file

    file = find_file(file)
    config = load_experiment(file, overrides or [])

    sweeps = config.compare is not None and bool(config.compare.sweep)
    if sweeps:
        from swarm.compare.sweep import run_sweep as run
    else:
        from swarm.compare.runs import run_comparison as run

    try:
        folder = run(config, file, out, arm or [], seed or [], echo=typer.echo)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command continues where it was", err=True)
        raise
    typer.echo(f"comparison    {folder}")
    typer.echo(f"report        {folder / ('sweep.png' if sweeps else 'report.html')}")
