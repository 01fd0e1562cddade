"""Records of nobody's run, whole but for what the journal adds, for tests of the journal itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarm.record.journal import JournalWriter, read_records
from swarm.record.records import FORMAT, End, EpisodeEnd, EpisodeStart, Header, Record, Tick

CHAIN = ("seq", "prev", "hash")


def header(**config: Any) -> Header:
    return {"kind": "header", "format": FORMAT, "config": config, "checkpoints": {}}


def episode() -> EpisodeStart:
    agents: Any = [{"agent": "a0", "observation": "look", "report": "ready"}]
    return {
        "kind": "episode", "episode": 0, "world": "w-v0", "seed": 1, "goal": "g", "agents": agents,
        "level": 0, "level_by": "default", "state": "0"
    }  # fmt: skip


def tick(number: int = 0, text: str = "") -> Tick:
    entry: Any = {
        "agent": "a0", "action": text, "feedback": text, "valid": True, "reward": 0.5, "prompt_tokens": 2,
        "generated_tokens": 3,
    }  # fmt: skip
    return {
        "kind": "tick", "episode": 0, "tick": number, "coordinator": None, "directives": [("a0", text)],
        "agents": [entry], "memory": {}, "spent": {"tokens": 5, "calls": 1, "actions": 1}, "state": "0",
        "terminated": False, "truncated": False,
    }  # fmt: skip


def episode_end() -> EpisodeEnd:
    return {
        "kind": "episode_end", "episode": 0, "solved": True, "reason": "solved", "ticks": 1, "tokens": 5, "calls": 1,
        "actions": 1,
    }  # fmt: skip


def end() -> End:
    return {"kind": "end", "reason": "finished", "episodes": 1, "solved": 1, "tokens": 5, "faults": 0}


def rewrite(run_dir: Path, change: Callable[[Any], Any]) -> None:
    """Apply `change` to every record and chain the journal anew, as a forger with all the tools would.

    A list that it returns stands in the place of the record.
    """
    records = list(read_records(run_dir / "journal.jsonl"))
    (run_dir / "journal.jsonl").unlink()
    with JournalWriter(run_dir / "journal.jsonl", "group") as journal:
        for record in records:
            changed = change(record)
            for each in changed if isinstance(changed, list) else [record]:
                journal.append(bare(each))


def bare(record: Record) -> Any:
    return {key: value for key, value in record.items() if key not in CHAIN}
