"""`swarm report RUN`: a page about one run."""

import typer

from swarm.commands.options import RunFolder

EXAMPLE = "swarm report runs/puzzle-s1"


def report(run_folder: RunFolder) -> None:
    """Write a self-contained report.html with plots from a run's journal."""
    from swarm.commands.run_folder import existing_run

    run_dir = existing_run(run_folder)

    from swarm.progress import progress
    from swarm.view.report import write_report

    with progress(f"writing the report of {run_dir}"):
        page = write_report(run_dir)
    typer.echo(f"report        {page}")
