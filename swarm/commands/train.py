"""`swarm train FILE`: train a µLM or an adapter from a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.failure import continued_later
from swarm.commands.options import Overrides, Trust, a_path

EXAMPLE = "swarm train experiments/train_puzzle_agent.yaml --set name=second --set seed=2"


@continued_later()
def train(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Recipe, see experiments/train_*.yaml.", parser=a_path)],
    overrides: Overrides = None,
    trust: Trust = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write the result here: a new folder, or one with an earlier result.",
            parser=a_path,
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Ray Train workers. Default: the file's.")] = None,
) -> None:
    """Train what a recipe describes with Ray Train; the same command again goes on where it was."""
    from swarm.config.shipped import find_file
    from swarm.train.training import train_policy

    folder = train_policy(find_file(file), overrides or [], out=out, workers=workers, echo=typer.echo)
    typer.echo(f"checkpoint    {folder}")
