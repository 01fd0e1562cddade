"""Finds run folders: the check that a RUN argument is one, and the experiment that it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from swarm.errors import SwarmError

if TYPE_CHECKING:
    from swarm.config.experiment import ExperimentConfig

_JOURNAL = "journal.jsonl"


def holds_run(folder: Path) -> bool:
    """Return whether a folder holds a journal, or is one."""
    return folder.name == _JOURNAL or (folder / _JOURNAL).is_file()


def existing_run(run_dir: Path) -> Path:
    """Return `run_dir` if it holds a journal; the journal file itself is accepted for its folder.

    Raises:
        SwarmError: it does not; the line names the newest runs.
    """
    folder = run_dir.parent if run_dir.name == _JOURNAL else run_dir
    if (folder / _JOURNAL).is_file():
        return folder
    problem = f"{run_dir} is no run folder: it holds no {_JOURNAL}" if run_dir.exists() else f"no run folder {run_dir}"
    journals = sorted(Path("runs").glob(f"*/{_JOURNAL}"), key=lambda journal: journal.stat().st_mtime, reverse=True)
    newest = ", ".join(str(journal.parent) for journal in journals[:5])
    raise SwarmError(f"{problem}; {f'newest runs: {newest}' if newest else 'there are no runs under runs/ yet'}")


def recorded_config(run_dir: Path) -> ExperimentConfig | None:
    """Return the experiment that a run folder keeps, or None if it cannot be read."""
    from swarm.config.experiment import ExperimentConfig
    from swarm.record.folder import read_experiment

    try:
        return read_experiment(run_dir, ExperimentConfig)
    except SwarmError:
        return None
