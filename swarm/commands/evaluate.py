"""`swarm eval FILE`: what an Engram remembers, against null controls and LoRA."""

from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.failure import continued_later
from swarm.commands.options import Overrides, WorkFolder, a_path, named_file

NAME = "eval"

EXAMPLE = "swarm eval experiments/engram.yaml --set learn.optimizer.steps=100"


@continued_later()
def evaluate(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Evaluation YAML, see experiments/engram.yaml.", parser=a_path)
    ],
    overrides: Overrides = None,
    out: WorkFolder = None,
) -> None:
    """Train and measure an Engram's tiers and LoRA on facts, text and questions; what is done is not done again."""
    import importlib.util

    from swarm.errors import SwarmError
    from swarm.lab.engram.config import EngramEvalConfig

    if importlib.util.find_spec("peft") is None:
        raise SwarmError("`swarm eval` needs peft: pip install 'ulm-swarm[hf]'")
    file, config = named_file(file, EngramEvalConfig, overrides)
    from swarm.lab.engram.evaluation import run_evaluation
    from swarm.lab.engram.results import summary

    folder = out or Path("runs") / f"engram-{config.name}"
    results = run_evaluation(config, file.parent, folder, typer.echo)
    for line in summary(results):
        typer.echo(line)
    typer.echo(f"results       {folder / 'results.json'}, and plots beside it")
