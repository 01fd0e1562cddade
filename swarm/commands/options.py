"""The arguments and options that several commands share, declared once so that they read alike, and reading FILE."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from swarm.config.experiment import ExperimentConfig

ModelT = TypeVar("ModelT", bound="BaseModel")


def a_path(text: str) -> Path:
    """Return the path that an argument means, `~` being the user's home.

    Raises:
        typer.BadParameter: it is empty, which `Path` would take for the current folder, or there is no such home.
    """
    if not text.strip():
        raise typer.BadParameter("it is empty; the current folder is '.'")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise typer.BadParameter(f"{text}: {error}; write the whole path") from error


ExperimentFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="Experiment YAML, or the name of a shipped one, such as puzzle.", parser=a_path
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one key of the file by its dotted name. May be repeated."
    ),
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Use this seed in place of the file's.")]
OutFolder = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Write here. Default: a new folder under runs/.", parser=a_path),
]
WorkFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Write here, and go on with what is there. Default: by name under runs/.",
        parser=a_path,
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/puzzle-s1.", parser=a_path)]
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


def _trust(wanted: bool) -> None:
    if wanted:
        from worlds.trust import trust

        trust()


Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        callback=_trust,
        help="Let code run that comes with the file, such as a scorer beside it. It may do whatever you may.",
    ),
]
"""Its callback does the work: a command only has to take it."""


def named_file(file: Path, model: type[ModelT], overrides: list[str] | None) -> tuple[Path, ModelT]:
    """Return the file that the user means, and what it says, with some keys overridden.

    Raises:
        SwarmError: there is no such file, or one line per mistake in it.
    """
    from swarm.config.load import load_yaml_model
    from swarm.config.shipped import find_file

    file = find_file(file)
    return file, load_yaml_model(file, model, overrides or [])


def named_experiment(file: Path, overrides: list[str] | None, seed: int | None = None) -> tuple[Path, ExperimentConfig]:
    """Return the experiment file that the user means, and the experiment; otherwise as `named_file`."""
    from swarm.config.load import load_experiment
    from swarm.config.shipped import find_file

    file = find_file(file)
    return file, load_experiment(file, overrides or [], seed)
