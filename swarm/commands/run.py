"""`swarm run FILE`: the main job."""

from __future__ import annotations

from swarm.commands.options import ExperimentFile, Live, OutFolder, Overrides, Seed

__all__ = ["EXAMPLE", "run"]

EXAMPLE = "swarm run experiments/puzzle.yaml --seed 7 --set agents.count=4"


def run(
    file: ExperimentFile,
    overrides: Overrides = None,
    seed: Seed = None,
    out: OutFolder = None,
    live: Live = True,
) -> None:
    """Run an experiment to its end, live on a dashboard and recorded in a run folder.

    Ctrl-C closes the journal; `swarm resume` continues exactly there.
    """
    from swarm.commands.watcher import carry_out
    from swarm.config_file import load_experiment

    config = load_experiment(file, overrides or [], seed)

    from swarm.runner import start_run

    carry_out(lambda announce: start_run(config, file, out, announce), live)
