"""`swarm resume RUN`: continue a run that was interrupted or killed."""

from swarm.commands.options import Approve, Live, RunFolder

EXAMPLE = "swarm resume runs/puzzle-s1"


def resume(run_folder: RunFolder, live: Live = True, approve: Approve = False) -> None:
    """Continue an interrupted run; its journal ends as if it had never been disturbed."""
    from functools import partial

    from swarm.commands.run_folder import existing_run, recorded_config
    from swarm.commands.watcher import carry_out

    run_dir = existing_run(run_folder)
    config = recorded_config(run_dir)

    from swarm.run.runner import resume_run

    carry_out(partial(resume_run, run_dir), live, approve, config)
