"""`swarm new world NAME`: a package with a world of one's own, complete and small, to start from."""

from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.options import a_path

EXAMPLE = "swarm new world treasure-hunt"


def world(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case words, such as treasure-hunt.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Write it here: a new or an empty folder. Default: ./NAME.", parser=a_path
        ),
    ] = None,
) -> None:
    """Write a package with a world, its playbook and lessons, an experiment, a training file and a test."""
    import shlex

    from swarm.commands.world_package import write_world_package

    folder = write_world_package(name, out if out is not None else Path(name))
    place = shlex.quote(str(folder))
    typer.echo(f"{folder} holds a world that works. Next:")
    typer.echo(f"  pip install -e {place}")
    typer.echo(f"  swarm worlds {name}-v0 --check")
    typer.echo(f"  cd {place} && swarm train train.yaml && swarm compare experiment.yaml")
