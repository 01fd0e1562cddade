"""Finds run folders: the check that a RUN argument is one, and the newest ones to suggest when it is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from swarm.errors import SwarmError

if TYPE_CHECKING:
    from swarm.config.experiment import ExperimentConfig

_JOURNAL = "journal.jsonl"


def newest_runs(limit: int = 5, under: Path = Path("runs")) -> list[Path]:
    """Return up to `limit` run folders of `under`, the one written last first."""
    journals = []
    for journal in under.glob(f"*/{_JOURNAL}"):
        try:
            journals.append((journal.stat().st_mtime, journal.parent))
        except OSError:  # removed between the listing and the look
            continue
    return [folder for _, folder in sorted(journals, reverse=True)[:limit]]


def existing_run(run_dir: Path) -> Path:
    """Return `run_dir` if it holds a journal; the journal file itself is accepted for its folder.

    Raises:
        SwarmError: it does not; the line names the newest runs.
    """
    if run_dir.name == _JOURNAL and run_dir.is_file():
        return run_dir.parent
    if (run_dir / _JOURNAL).is_file():
        return run_dir
    if not run_dir.exists():
        problem = f"no run folder {run_dir}"
    else:
        problem = f"{run_dir} is no run folder: it holds no {_JOURNAL}"
    runs = newest_runs()
    hint = f"newest runs: {', '.join(map(str, runs))}" if runs else "there are no runs under runs/ yet"
    raise SwarmError(f"{problem}; {hint}")


def recorded_config(run_dir: Path) -> ExperimentConfig | None:
    """Return the experiment that a run folder keeps, or None if it cannot be read."""
    from swarm.config.experiment import ExperimentConfig
    from swarm.record.folder import read_experiment

    try:
        return ExperimentConfig.model_validate(read_experiment(run_dir))
    except (SwarmError, ValueError):
        return None
