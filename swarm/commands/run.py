"""`swarm run FILE`: the main job."""

from swarm.commands.options import Approve, ExperimentFile, Live, OutFolder, Overrides, Seed, Trust, named_experiment

EXAMPLE = "swarm run experiments/puzzle.yaml --seed 7 --set agents.count=4"


def run(
    file: ExperimentFile,
    overrides: Overrides = None,
    seed: Seed = None,
    out: OutFolder = None,
    live: Live = True,
    approve: Approve = False,
    trust: Trust = False,
) -> None:
    """Run an experiment to its end, live on a dashboard and recorded in a run folder.

    Ctrl-C closes the journal. The same command with --out, or `swarm resume RUN`, continues exactly there. `swarm
    steer` speaks to a run from elsewhere.
    """
    from functools import partial

    from swarm.commands.watcher import carry_out

    file, config = named_experiment(file, overrides, seed)

    from swarm.run.runner import start_run

    goes_on = out is not None and (out / "journal.jsonl").is_file()
    carry_out(partial(start_run, config, file, out), live, approve, config, goes_on)
