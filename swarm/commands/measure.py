"""`swarm measure RUN`: what a run came to, part by part, with what its world measures."""

from typing import Annotated

import typer

from swarm.commands.options import RunFolder, Trust

EXAMPLE = "swarm measure runs/my-run-s1 --parts 4"


def measure(
    run_folder: RunFolder,
    parts: Annotated[int, typer.Option(min=1, metavar="N", help="Parts of equal length.")] = 5,
    trust: Trust = False,
) -> None:
    """Print how often the episodes of each part of a run were solved, and what its world measures of them.

    A run that learns changes from part to part; its exam is a part of its own. No model is loaded.
    """
    from swarm.commands.run_folder import existing_run
    from swarm.process.progress import progress
    from swarm.view.measured import measured

    run_dir = existing_run(run_folder)
    with progress(f"measuring {run_dir}"):
        found = measured(run_dir, parts)
    names = list(dict.fromkeys(name for part in found for name in part.figures))
    typer.echo("  ".join(["episodes    ended", "solved", "reward", *names]))
    for part in found:
        figures = [
            f"{part.figures[name]:>{len(name)}.3f}" if name in part.figures else " " * len(name) for name in names
        ]
        typer.echo(
            "  ".join([f"{part.name:<10} {part.episodes:>6}", f"{part.solved:6.3f}", f"{part.reward:6.3f}", *figures])
        )
