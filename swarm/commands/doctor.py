"""`swarm doctor`: what is installed, what is missing, and the command that gets it."""

import sys
from typing import Annotated

import typer

EXAMPLE = "swarm doctor --ray"


def doctor(
    ray: Annotated[bool, typer.Option("--ray", help="Also start Ray and stop it again; takes seconds.")] = False,
) -> None:
    """Check this machine: versions, device, extras, checkpoints, disk; exit code 1 if anything is broken."""
    from swarm.doctor import examine
    from swarm.process.progress import progress

    with progress("looking at this machine"):
        findings = list(examine(start_ray=ray))
    if sys.stdout.isatty():
        from rich.markup import escape
        from rich.table import Table

        from swarm.process.console import stdout_console

        colours = {"ok": "green", "missing": "yellow", "broken": "bold red"}
        table = Table("", "what", "found", "what to do", box=None, pad_edge=False)
        for finding in findings:
            cells = map(escape, (finding.name, finding.detail, finding.remedy))
            table.add_row(f"[{colours[finding.status]}]{finding.status}[/]", *cells)
        stdout_console().print(table)
    else:
        for finding in findings:
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            typer.echo(f"{finding.status:<8} {finding.name:<24} {finding.detail}{remedy}")
    if any(finding.status == "broken" for finding in findings):
        raise typer.Exit(1)
