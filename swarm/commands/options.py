"""The arguments and options that several commands share, declared once so that they read alike."""

from pathlib import Path
from typing import Annotated

import typer

ExperimentFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="Experiment YAML, or the name of a shipped one, such as puzzle.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one key of the file by its dotted name. May be repeated."
    ),
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Use this seed in place of the file's.")]
OutFolder = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write here. Default: a new folder under runs/.")
]
WorkFolder = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Write here, and go on with what is there. Default: by name under runs/."
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/puzzle-s1.")]
Live = Annotated[
    bool,
    typer.Option("--live/--no-live", help="Live dashboard on a terminal; --no-live logs plain lines."),
]
Approve = Annotated[
    bool,
    typer.Option(
        "--approve",
        help="See what the coordinator says before agents do, and approve, edit or replace it, or give it a hint. "
        "This, like coordinator.kind human, prints lines in place of the dashboard.",
    ),
]
