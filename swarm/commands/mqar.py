"""`swarm mqar FILE`: recall of synthetic pairs with and without memory, under null controls."""

from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.failure import continued_later
from swarm.commands.options import Overrides, WorkFolder, a_path, named_file

EXAMPLE = "swarm mqar experiments/mqar.yaml --set seeds=[1]"


@continued_later()
def mqar(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="MQAR YAML, see experiments/mqar.yaml.", parser=a_path)],
    overrides: Overrides = None,
    out: WorkFolder = None,
) -> None:
    """Train small µLMs to recall synthetic pairs, with and without memory; what is done already is not done again."""
    from swarm.lab.mqar.config import MqarConfig
    from swarm.lab.mqar.experiment import run_mqar, summary

    file, config = named_file(file, MqarConfig, overrides)
    folder = out or Path("runs") / f"mqar-{config.name}"
    for line in summary(run_mqar(config, folder, typer.echo)):
        typer.echo(line)
    typer.echo(f"results       {folder / 'results.json'}")
