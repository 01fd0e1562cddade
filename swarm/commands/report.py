"""`swarm report RUN`: a page about one run."""

from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.options import RunFolder, a_path

EXAMPLE = "swarm report runs/puzzle-s1"


def report(
    run_folder: RunFolder,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Write report.html here. Default: the run's folder report/.", parser=a_path
        ),
    ] = None,
) -> None:
    """Write a self-contained report.html with plots from a run's journal."""
    from swarm.commands.run_folder import existing_run

    run_dir = existing_run(run_folder)

    from swarm.process.progress import progress
    from swarm.view.report import write_report

    with progress(f"writing the report of {run_dir}"):
        page = write_report(run_dir, out)
    typer.echo(f"report        {page}")
