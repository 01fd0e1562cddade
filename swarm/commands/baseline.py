"""`swarm baseline FILE`: the single-agent arm of an experiment."""

from swarm.commands.options import ExperimentFile, Live, OutFolder, Overrides, Seed, Trust, named_experiment

EXAMPLE = "swarm baseline experiments/puzzle.yaml --seed 7"


def baseline(
    file: ExperimentFile,
    overrides: Overrides = None,
    seed: Seed = None,
    out: OutFolder = None,
    live: Live = True,
    trust: Trust = False,
) -> None:
    """Run the same puzzles with one agent that sees everything, on the same budget."""
    from functools import partial

    from swarm.commands.watcher import carry_out

    file, config = named_experiment(file, overrides, seed)

    from swarm.compare.arms import solo_config
    from swarm.run.runner import start_run

    carry_out(partial(start_run, solo_config(config), file, out), live)
