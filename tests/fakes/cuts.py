"""Kills at every place: the journal of a run is cut after each record, and resuming has to give the whole one again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from swarm.run.runner import resume_run


def resume_from_cuts(
    run_dir: Path, resume: Callable[[Path], object] = resume_run, first: int = 2, step: int = 1
) -> None:
    """Cut the journal of a run that has ended after `first` records, then after every `step` more, and resume it."""
    journal = run_dir / "journal.jsonl"
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(first, len(lines), step):
        journal.write_bytes(b"".join(lines[:cut]))
        resume(run_dir)
        assert journal.read_bytes() == whole, f"cut after line {cut}, {json.loads(lines[cut - 1])['kind']}"
