"""What agents learned, taken back: an undo is a change like any other, appended to a journal that nobody writes."""

from collections.abc import Mapping
from pathlib import Path

from swarm.agents.delta import KIND, Deltas, DeltaSection, delta_path
from swarm.agents.ltm import BEFORE
from swarm.agents.ltm_files import MEMORY_FOLDER, MemoryStore
from swarm.agents.memory import Place
from swarm.errors import SwarmError
from swarm.learn.recompute import restore
from swarm.record.change import Change
from swarm.record.journal import JOURNAL_NAME, JournalWriter, read_records
from swarm.record.records import ChangeRecord

_Newest = dict[tuple[str | None, str], ChangeRecord]


def undo(run_dir: Path, agent: str | None = None) -> list[Change]:
    """Take back the last accepted change of what an agent learned, or of all; return what was appended.

    Later rounds of the run start from there, and `swarm export` takes it. A file that was pruned is computed anew.

    Args:
        run_dir: the run folder; a run that has ended can be undone, too.
        agent: whose; None takes back the last change of each agent, or of the team.

    Raises:
        SwarmError: another process writes the run, or there is nothing to take back.
        WorkFailedError: the file that is needed was pruned, and cannot be computed here to the bit.
    """
    with JournalWriter.resume(run_dir / JOURNAL_NAME) as journal:
        deltas, newest = _read(run_dir)
        changes = [_undone(deltas, newest, who) for who in _whose(deltas, agent, run_dir)]
        _restore(run_dir, changes)
        for change in changes:
            journal.append(change.as_record())
    return changes


def undo_consolidation(run_dir: Path, agent: str | None = None) -> list[Change]:
    """Take back the last accepted consolidation of an agent's long-term memory, or of all; return what was appended.

    The agent then remembers what it did before, and nothing that it read since. One can be taken back, the last.

    Args:
        run_dir: the run folder.
        agent: whose; None takes back the last one of each agent.

    Raises:
        SwarmError: another process writes the run, or there is nothing to take back.
    """
    with JournalWriter.resume(run_dir / JOURNAL_NAME) as journal:
        last: dict[tuple[str, str], ChangeRecord] = {}
        for record in read_records(run_dir / JOURNAL_NAME):
            if record["kind"] == "change" and record["memory"] == "ltm" and record["accepted"]:
                last[record["settings"]["home"], record["agent"] or ""] = record
        there = MemoryStore(run_dir / MEMORY_FOLDER).last()
        changes = [
            Change("ltm", who, "undo", record["result"], record["parent"], settings={"of": "consolidate", "home": home})
            for (home, who), record in last.items()
            if agent in (None, who) and record["cause"] == "consolidate" and who + BEFORE in there
        ]
        if not changes:
            whose = "agents have" if agent is None else f"{agent} has"
            raise SwarmError(f"{whose} no consolidation in {run_dir} that could be undone")
        for change in changes:
            journal.append(change.as_record())
    return changes


def held(run_dir: Path) -> Deltas:
    """Return what agents of a run have learned, by its journal."""
    return _read(run_dir)[0]


def _read(run_dir: Path) -> tuple[Deltas, _Newest]:
    """Return what agents have, and by (agent, version) the change that brought it."""
    deltas, newest = Deltas(DeltaSection(), Place(run_dir / MEMORY_FOLDER)), _Newest()
    for record in read_records(run_dir / JOURNAL_NAME):
        if record["kind"] == "change" and record["memory"] == KIND and record["accepted"] and record["cause"] != "undo":
            newest[record["agent"], record["result"]] = record
        deltas.fold(record)
    return deltas, newest


def _whose(deltas: Deltas, agent: str | None, run_dir: Path) -> list[str | None]:
    """Return those whose last change is taken back.

    Raises:
        SwarmError: there is nothing to take back.
    """
    having = [who for who, versions in deltas.versions.items() if versions]
    if not having:
        raise SwarmError(f"agents of {run_dir} have learned nothing that could be undone")
    if agent is None or agent in having:
        return having if agent is None else [agent]
    if None in having:
        raise SwarmError(f"agents of {run_dir} have one delta, the team's: leave {agent} out to undo its last step")
    raise SwarmError(f"{agent} has learned nothing that could be undone; there are: {', '.join(map(str, having))}")


def _undone(deltas: Deltas, newest: Mapping[tuple[str | None, str], ChangeRecord], who: str | None) -> Change:
    versions = deltas.versions[who]
    last = newest[who, versions[-1]]
    settings = {
        "of": last["cause"],
        **{name: last["settings"][name] for name in ("round",) if name in last["settings"]},
    }
    return Change(KIND, who, "undo", versions[-1], versions[-2] if len(versions) > 1 else "", settings=settings)


def _restore(run_dir: Path, changes: list[Change]) -> None:
    """Compute files anew that were pruned."""
    folder = run_dir / MEMORY_FOLDER
    if missing := {c.result for c in changes if c.result and not delta_path(folder, c.result).is_file()}:
        restore(run_dir, missing)
