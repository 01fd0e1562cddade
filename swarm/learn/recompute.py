"""Where every weight came from: all learning steps of a run taken again, and compared with what its journal says.

- A `Learner` is fed with the records, as in a resumed run, and asked after each round for what changes; so there is one
  way to build a step. It writes its deltas to a temporary folder, never into the run's.
- On the machine that computed them, bits must be equal. On another CPU, or with another torch, weights are compared
  within a tolerance; that needs the recorded file, which then stands in for what was recomputed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.agents.delta import KIND, Deltas, delta_path
from swarm.agents.ltm_files import MEMORY_FOLDER
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError, WorkFailedError
from swarm.files import make_folder
from swarm.learn.learner import Learner
from swarm.process.machine import cpu_model
from swarm.process.progress import progress
from swarm.record.change import Change
from swarm.record.folder import base_dir_of, needing_base, read_experiment, read_manifest
from swarm.record.journal import JOURNAL_NAME, read_records
from swarm.record.records import ChangeRecord

if TYPE_CHECKING:
    from ulm.delta import Delta

TOLERANCE = 1e-4
"""How far a weight may differ where another CPU, or another torch, computed it."""


@dataclass(slots=True)
class Recomputed:
    """What was recomputed.

    Attributes:
        equal: changes that have the recorded bits.
        near: changes whose weights are within the tolerance.
        skipped: changes that only the machine that made them can compare, for a file that this takes was pruned.
        machine: how this machine differs from the one that recorded them; "" where it does not.
    """

    equal: int = 0
    near: int = 0
    skipped: int = 0
    machine: str = ""


def here() -> dict[str, str]:
    """Return what the bits of a learning step depend on beside its arguments."""
    return {"cpu": cpu_model(), "torch": metadata.version("torch")}


def recompute(
    run_dir: Path, keep: Collection[str] = (), on_change: Callable[[ChangeRecord], None] = lambda record: None
) -> Recomputed:
    """Compute every delta of a run anew and compare it with the journal.

    Args:
        run_dir: the run folder; nothing is written into it but the files of `keep`.
        keep: sha256 of deltas whose files, which were pruned, are to be there again.
        on_change: called for each change that agrees.

    Raises:
        WorkFailedError: a change does not follow from the records before it.
        SwarmError: the run does not learn, or its base is not here or changed.
    """
    config, base_dir = read_experiment(run_dir, ExperimentConfig), base_dir_of(run_dir)
    if config.learning is None:
        raise SwarmError(f"agents of {run_dir} do not learn: its experiment has no section `learning`")
    # Steps are computed by children of this process, wherever the run computed them.
    config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"pool": "local"})})
    found = Recomputed(machine=_other_machine(run_dir))
    with tempfile.TemporaryDirectory(prefix="swarm-") as folder, needing_base(run_dir, base_dir):
        comparison = _Comparison(run_dir / MEMORY_FOLDER, Path(folder), found)
        learner = Learner(config, base_dir, Path(folder), _undone_to(run_dir))
        changes: Iterator[Change] | None = None
        for record in read_records(run_dir / JOURNAL_NAME):
            if record["kind"] == "header":
                _refuse_other_base(record["checkpoints"], learner)
            elif record["kind"] == "change" and record["memory"] == KIND:
                if record["cause"] not in ("learn", "share"):
                    changes = None  # what a person took back may change what is left to do at this barrier
                else:
                    if changes is None and comparison.provide(learner.deltas):
                        changes = iter(learner.after_round(record["settings"]["round"]))
                    if changes is None:
                        found.skipped += 1
                    else:
                        comparison.compare(record, next(changes, None))
                        for name in {record["result"]} & set(keep):
                            comparison.keep(name)
                    on_change(record)
            elif changes is not None:
                next(changes, None)  # so that it ends: files that are not needed any more go
                changes = None
            learner.fold(record)
    return found


def _undone_to(run_dir: Path) -> set[str]:
    """Return the deltas that people went back to, perhaps rounds later."""
    records = read_records(run_dir / JOURNAL_NAME)
    return {record["result"] for record in records if record["kind"] == "change" and record["cause"] == "undo"}


def restore(run_dir: Path, missing: Collection[str]) -> None:
    """Compute the files of deltas anew that were pruned or lost.

    Raises:
        WorkFailedError: a change does not follow from the records before it.
        SwarmError: only the machine that made them can compute them to the bit.
    """
    with progress(f"computing {len(missing)} deltas anew"):
        recompute(run_dir, keep=missing)
    for name in sorted(missing):
        if not delta_path(run_dir / MEMORY_FOLDER, name).is_file():
            raise SwarmError(
                f"the file of delta {name[:12]} is gone, and only the machine that made it can compute it anew"
            )


def _other_machine(run_dir: Path) -> str:
    """Return how this machine differs from that of a run, "" where it does not."""
    manifest = read_manifest(run_dir)
    then = {"cpu": str(manifest.get("cpu", "unknown")), "torch": str(manifest.get("versions", {}).get("torch"))}
    return ", ".join(f"{what} {value}, here {now}" for what, now in here().items() if (value := then[what]) != now)


def _refuse_other_base(checkpoints: dict[str, str], learner: Learner) -> None:
    if learner.base_sha256 not in checkpoints.values():
        raise SwarmError(
            "the agents' checkpoint changed since the run began; restore it to recompute what they learned"
        )


@dataclass(slots=True)
class _Comparison:
    """Compares recomputed changes with recorded ones; `recorded` and `fresh` are folders of memories."""

    recorded: Path
    fresh: Path
    found: Recomputed

    def provide(self, deltas: Deltas) -> bool:
        """Return whether the files of all deltas that agents have now are there; recorded ones are taken."""
        for name in deltas.newest(1):
            old, new = delta_path(self.recorded, name), delta_path(self.fresh, name)
            if not new.is_file():
                if not old.is_file():
                    return False
                make_folder(new.parent)
                shutil.copyfile(old, new)
        return True

    def compare(self, record: ChangeRecord, change: Change | None) -> None:
        place = f"seq {record['seq']}, round {record['settings']['round'] + 1}, {record['agent'] or 'the team'}"
        if change is None:
            raise WorkFailedError(f"{place}: a {record['cause']} that does not follow from the records before it")
        again = change.as_record()
        told = {name: record.get(name) for name in again}
        wrong = [name for name, value in again.items() if told[name] != value]
        if not wrong:
            self.found.equal += 1
            return
        name = wrong[0]
        problem = (
            f"{place}: {name} differs: the journal has {_short(told[name])}, recomputed is {_short(again.get(name))}"
        )
        if not self.found.machine:
            raise WorkFailedError(problem)
        if record["evidence"]["digest"] != again["evidence"]["digest"]:  # this is the same on all machines
            raise WorkFailedError(problem)
        if record["result"] == again["result"]:
            self.found.near += 1
            return
        if not record["result"] or not again["result"]:
            raise WorkFailedError(problem)
        old, new = delta_path(self.recorded, record["result"]), delta_path(self.fresh, again["result"])
        if not old.is_file():
            self.found.skipped += 1
            return
        if (far := largest_difference(_read(old), _read(new))) > TOLERANCE:
            raise WorkFailedError(f"{problem}; weights differ by {far:.2g}, more than {TOLERANCE:g}")
        self.found.near += 1
        shutil.copyfile(old, delta_path(self.fresh, record["result"]))

    def keep(self, name: str) -> None:
        """Put the file of a delta that was recomputed into the run's folder."""
        target = delta_path(self.recorded, name)
        if not target.is_file():
            make_folder(target.parent)
            shutil.copyfile(delta_path(self.fresh, name), target)


def _read(path: Path) -> Delta:
    from ulm.delta import Delta

    return Delta.from_bytes(path.read_bytes())


def largest_difference(one: Delta, other: Delta) -> float:
    """Return how far what two deltas add to a weight differs at most; infinity for deltas of other shapes."""
    left, right = one.added(), other.added()
    if left.keys() != right.keys() or one.ids_E.tolist() != other.ids_E.tolist():
        return float("inf")
    pairs = [(left[name], right[name]) for name in left] + [(one.rows_EC, other.rows_EC)]
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    return max((float((a - b).abs().max()) for a, b in pairs if a.numel()), default=0.0)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}…"
