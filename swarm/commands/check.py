"""`swarm check FILE`: what a file would do, before it does it."""

from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.options import Overrides, Trust

EXAMPLE = "swarm check puzzle --set agents.count=4"


def check(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="YAML of an experiment, a training or the lab, or the name of a shipped one."
        ),
    ],
    overrides: Overrides = None,
    trust: Trust = False,
) -> None:
    """Tell what a file would do: models, memory, tokens, estimated time, and all that is missing (exit code 2).

    Starts nothing that lasts and writes nothing. The time comes from an earlier run in runs/, or from a few seconds of
    the work itself.
    """
    import shlex

    from swarm.check import check_file
    from swarm.config.shipped import find_file
    from swarm.errors import SwarmError

    plan = check_file(find_file(file), overrides or [])
    for what, detail in plan.lines:
        typer.echo(f"{what:<13} {detail}")
    if plan.missing:
        raise SwarmError("\n".join(plan.missing))
    changes = "".join(f" --set {shlex.quote(change)}" for change in overrides or [])
    typer.echo(f"{'ready':<13} swarm {plan.command} {shlex.quote(str(file))}{changes}")
