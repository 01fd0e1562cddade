"""`swarm report RUN`: a page about one run."""

import typer

from swarm.commands.options import RunFolder

EXAMPLE = "swarm report runs/puzzle-s1"


def report(run_folder: RunFolder) -> None:
    """Write a self-contained report.html with plots from a run's journal."""
    from swarm.commands.run_folder import existing_run

    run_dir = existing_run(run_folder)

    from swarm.view.report import write_report

    typer.echo(f"report        {write_report(run_dir)}")
