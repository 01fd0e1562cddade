"""`swarm steer RUN TEXT`: say something to a live run from another terminal."""

from typing import Annotated

import typer

from swarm.commands.options import RunFolder

EXAMPLE = 'swarm steer runs/puzzle-s1 "24-[6]" --agent a0'


def steer(
    run_folder: RunFolder,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to say, 500 characters at most.")],
    agent: Annotated[
        list[str] | None,
        typer.Option(metavar="AGENT", help="Direct this agent in the next tick. May be repeated."),
    ] = None,
    episode: Annotated[
        int | None, typer.Option(metavar="N", help="For this episode alone. Default: all that are running.")
    ] = None,
) -> None:
    """Say something to a run that is going on: a hint for its coordinator, or with --agent a directive.

    A hint counts for the rest of the episode. What is said is charged and recorded like all else, and replayed.
    """
    from swarm.commands.run_folder import existing_run, recorded_config
    from swarm.errors import SwarmError
    from swarm.files import is_locked
    from swarm.record.outcomes import read_run
    from swarm.run.steering import post
    from swarm.text import checked_text, command

    run_dir = existing_run(run_folder)
    said, agents = checked_text(text), list(dict.fromkeys(agent or []))
    run = read_run(run_dir)
    if run.end_reason is not None:
        raise SwarmError(f"the run in {run_dir} is over; see it with: {command('replay', run_dir)}")
    if not is_locked(run_dir):
        raise SwarmError(f"nobody runs {run_dir} now; continue it with: {command('resume', run_dir)}")
    running = [puzzle.episode for puzzle in run.running]
    config = recorded_config(run_dir)
    if config is None:
        raise SwarmError(f"{run_dir / 'experiment.yaml'} cannot be read; is this the folder of a run?")
    if episode is not None and episode not in running:
        there = f"running: {' '.join(map(str, running))}" if running else "none is running"
        raise SwarmError(f"episode {episode} is not running; {there}")
    if agents:
        known = [f"a{number}" for number in range(config.agents.count)]
        if unknown := [name for name in agents if name not in known]:
            raise SwarmError(f"no agent {unknown[0]!r} in this run; there are a0 to {known[-1]}")
        if config.agents.turns == "one_at_a_time":
            raise SwarmError("one worker plays all agents of this run in turn; a directive for one tick may miss it")
    else:
        traits, cut_off = config.coordinator.traits, config.topology.kind == "none"
        if not traits.reads_hints or (cut_off and traits.needs_reports):
            kind = config.coordinator.kind
            why = "has no coordinator that could read" if cut_off else f"has coordinator {kind!r}, which cannot read"
            raise SwarmError(f"this run {why} a hint; direct agents yourself, such as --agent a0")
    post(run_dir, said, agents, episode)
    typer.echo(f"{' '.join(agents)}, in the next tick: {said}" if agents else f"the coordinator, from now on: {said}")
