"""`swarm new`: a package with a world of one's own, and a policy that knows nothing yet."""

from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.options import ExperimentFile, Overrides, Trust, a_path

EXAMPLE = "swarm new world treasure-hunt"
POLICY_EXAMPLE = "swarm new policy experiments/signal.yaml --preset tiny --out signal-agent"


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


def policy(
    file: ExperimentFile,
    overrides: Overrides = None,
    trust: Trust = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write it here. Default: where the file's agents.engine.model is.",
            parser=a_path,
        ),
    ] = None,
    preset: Annotated[str, typer.Option(metavar="SIZE", help="tiny, 1m, 5m and so on.")] = "tiny",
    window: Annotated[int, typer.Option(min=8, metavar="TOKENS", help="How far attention reaches back.")] = 128,
    vocabulary: Annotated[int, typer.Option(min=259, metavar="N", help="Tokens at most.")] = 512,
    steps: Annotated[
        int, typer.Option(min=0, metavar="N", help="Steps in which it learns to play at random; 0: random weights.")
    ] = 600,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the weights.")] = 1,
) -> None:
    """Write a policy that knows a world's rules and no more, for agents that are to learn from its reward alone."""
    from swarm.config.load import load_experiment
    from swarm.config.shipped import find_file
    from swarm.errors import SwarmError
    from swarm.files import path_in
    from swarm.train.recipe import ModelSection
    from swarm.train.untrained import write_untrained

    file = find_file(file)
    config = load_experiment(file, overrides or [])
    named: str = getattr(config.agents.engine, "model", None) or ""
    if out is None and not named:
        raise SwarmError(f"agents.engine of kind {config.agents.engine.kind} names no folder; say where with --out")
    model = ModelSection(preset=preset, window=window, vocab_size=vocabulary)
    folder = path_in(file.parent, named) if out is None else out
    found = write_untrained(config, file.resolve().parent, model, seed, folder, steps)
    what = f"weights that play at random after {steps} steps" if steps else "random weights"
    typer.echo(f"{folder}: {found.num_parameters():,} {what}, {found.config.vocab_size} tokens")
