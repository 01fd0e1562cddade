"""`swarm run FILE`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from swarm.commands.options import Approve, ExperimentFile, Live, OutFolder, Overrides, Seed

if TYPE_CHECKING:
    from swarm.coordinator.protocol import Terminal
    from swarm.run.runner import Announce, RunOutcome

EXAMPLE = "swarm run experiments/puzzle.yaml --seed 7 --set agents.count=4"


def run(
    file: ExperimentFile,
    overrides: Overrides = None,
    seed: Seed = None,
    out: OutFolder = None,
    live: Live = True,
    approve: Approve = False,
) -> None:
    """Run an experiment to its end, live on a dashboard and recorded in a run folder.

    Ctrl-C closes the journal. The same command with --out, or `swarm resume RUN`, continues exactly there. `swarm
    steer` speaks to a run from elsewhere.
    """
    from functools import partial

    from swarm.commands.watcher import carry_out
    from swarm.config.load import load_experiment
    from swarm.config.shipped import find_file

    file = find_file(file)
    config = load_experiment(file, overrides or [], seed)

    from swarm.run.runner import start_run

    goes_on = out is not None and (out / "journal.jsonl").is_file()

    def start(announce: Announce, **person: Terminal) -> RunOutcome:
        def begin(run_dir: Path) -> None:
            if goes_on:
                typer.echo(f"{run_dir} holds an unfinished run of this experiment: it goes on")
            announce(run_dir)

        return start_run(config, file, out, begin, **person)

    if approve or config.coordinator.traits.needs_terminal:
        from swarm.coordinator.human import at_terminal

        carry_out(partial(start, terminal=at_terminal()), live, attended=True, approve=approve)
    else:
        carry_out(start, live)
