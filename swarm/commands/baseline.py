"""`swarm baseline FILE`: the single-agent arm of an experiment."""

from swarm.commands.options import ExperimentFile, Live, OutFolder, Overrides, Seed

EXAMPLE = "swarm baseline experiments/puzzle.yaml --seed 7"


def baseline(
    file: ExperimentFile,
    overrides: Overrides = None,
    seed: Seed = None,
    out: OutFolder = None,
    live: Live = True,
) -> None:
    """Run the same puzzles with one agent that sees everything, on the same budget."""
    from swarm.commands.watcher import carry_out
    from swarm.config.load import load_experiment
    from swarm.config.shipped import find_file

    file = find_file(file)
    config = load_experiment(file, overrides or [], seed)

    from swarm.compare.arms import solo_config
    from swarm.run.runner import start_run

    solo = solo_config(config)
    carry_out(lambda announce: start_run(solo, file, out, announce), live)
