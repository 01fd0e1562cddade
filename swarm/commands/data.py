"""`swarm data`: sets of questions for training and measuring memories."""

from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.failure import continued_later
from swarm.commands.options import Overrides, WorkFolder, a_path, named_file

EXAMPLE = "swarm data exact-match experiments/exact_match.yaml"


@continued_later("does it anew")
def exact_match(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML, see experiments/exact_match.yaml.", parser=a_path)
    ],
    overrides: Overrides = None,
    out: WorkFolder = None,
) -> None:
    """Make questions with one right answer: told, asked in the same and in other words, and never told."""
    from swarm.lab.facts.config import ExactMatchConfig
    from swarm.lab.facts.exact_match import write_exact_match
    from swarm.process.progress import progress

    file, config = named_file(file, ExactMatchConfig, overrides)
    folder = out or Path("runs") / f"data-{config.name}"
    with progress("making questions"):
        manifest = write_exact_match(config, file.parent, folder)
    for split, about in manifest["splits"].items():
        typer.echo(f"{split:<6} {about['records']:>6} questions  {folder / f'{split}.jsonl'}")
