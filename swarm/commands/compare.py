"""`swarm compare FILE`: all arms over the same puzzles, seeds and budget."""

from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.failure import continued_later
from swarm.commands.options import ExperimentFile, OutFolder, Overrides, Trust, named_experiment

EXAMPLE = "swarm compare experiments/puzzle.yaml --set compare.episodes=20"


@continued_later()
def compare(
    file: ExperimentFile,
    overrides: Overrides = None,
    arm: Annotated[list[str] | None, typer.Option(metavar="ARM", help="Run only this arm. May be repeated.")] = None,
    seed: Annotated[list[int] | None, typer.Option(metavar="N", help="Run only this seed. May be repeated.")] = None,
    out: OutFolder = None,
    trust: Trust = False,
) -> None:
    """Compare the swarm with single agents and null controls at equal compute.

    Writes a table with paired bootstrap intervals, plots, and a self-contained report.html.
    """
    file, config = named_experiment(file, overrides)

    sweeps = config.compare is not None and bool(config.compare.sweep)
    folder = out or Path("runs") / f"{config.name}-{'sweep' if sweeps else 'compare'}"
    if sweeps:
        from swarm.compare.sweep import run_sweep

        run_sweep(config, file, folder, arm or [], seed or [], typer.echo)
    else:
        from swarm.compare.runs import compare_arms

        compare_arms(config, file, folder, arm or [], seed or [], typer.echo)
    typer.echo(f"comparison    {folder}")
    typer.echo(f"report        {folder / ('sweep.png' if sweeps else 'report.html')}")
