"""`swarm train FILE`: train a µLM from a training recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.options import Overrides

__all__ = ["EXAMPLE", "train"]

EXAMPLE = "swarm train experiments/train_puzzle_agent.yaml --set seed=2"


def train(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Recipe, see experiments/train_*.yaml.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write the checkpoint here.")] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Ray Train workers. Default: the file's.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last saved step of this output folder.")
    ] = False,
) -> None:
    """Train a µLM through Ray Train; prints progress, rate and ETA, and ends with the checkpoint's folder."""
    from swarm.config.shipped import find_file
    from swarm.train.policy import train_from_file

    folder = train_from_file(find_file(file), list(overrides or []), out, workers, resume)
    typer.echo(f"checkpoint    {folder}")
