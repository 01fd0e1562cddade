"""`swarm lab FILE`: does memory help? Prepare a corpus, train a pair of models, evaluate and plot."""

from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.failure import continued_later
from swarm.commands.options import Overrides, WorkFolder, a_path, named_file

EXAMPLE = "swarm lab experiments/memory.yaml --stage eval --stage plot"


@continued_later()
def lab(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Lab YAML, see experiments/memory.yaml.", parser=a_path)],
    overrides: Overrides = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE", help="Run only this stage: prepare, train, eval or plot. May be repeated."),
    ] = None,
    with_ltm: Annotated[
        bool | None, typer.Option("--with-ltm/--without-ltm", help="Train the arm with memory. Default: the file's.")
    ] = None,
    out: WorkFolder = None,
) -> None:
    """Train a µLM with and without long-term memory and compare them; what is done already is not done again."""
    from swarm.errors import SwarmError
    from swarm.lab.ltm.config import LabConfig
    from swarm.lab.ltm.stages import STAGES, run_lab

    changes = [*(overrides or []), *([] if with_ltm is None else [f"with_ltm={str(with_ltm).lower()}"])]
    file, config = named_file(file, LabConfig, changes)
    if unknown := [name for name in stage or [] if name not in STAGES]:
        raise SwarmError(f"unknown stage {unknown[0]!r}; available: {', '.join(STAGES)}")
    stages = [name for name in STAGES if not stage or name in stage]
    folder = out or Path("runs") / f"lab-{config.name}"
    run_lab(config, file.parent, folder, stages, typer.echo)
    typer.echo(f"lab           {folder}")
