"""`swarm resume RUN`: continue a run that was interrupted or killed."""

from __future__ import annotations

from swarm.commands.options import Live, RunFolder

__all__ = ["EXAMPLE", "resume"]

EXAMPLE = "swarm resume runs/puzzle-s1"


def resume(run_folder: RunFolder, live: Live = True) -> None:
    """Continue an interrupted run; its journal ends as if it had never been disturbed."""
    from swarm.commands.run_folder import existing_run
    from swarm.commands.watcher import carry_out

    run_dir = existing_run(run_folder)

    from swarm.runner import resume_run

    carry_out(lambda announce: resume_run(run_dir, announce), live)
