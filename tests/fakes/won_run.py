"""Writes a run folder of solved puzzles, for tests of what is learned from runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swarm.record.journal import JournalWriter

AGENTS = ("a0", "a1", "a2", "a3")
TILES = {"a0": "3 7 11", "a1": "2 4 9", "a2": "3 7 11", "a3": "2 4 9"}


def write_run(
    folder: Path, solved: list[bool], split: str = "train", world: str = "split-numbers-v0", **coordinator: Any
) -> Path:
    """Write a run in which a0 posts 100, then a1 is told to make 45 and 116 is declined."""
    folder.mkdir()
    config = {"world": {"id": world, "options": {"split": split}}, "coordinator": {"kind": "rules", **coordinator}}
    with JournalWriter(folder / "journal.jsonl", "group") as journal:
        journal.append("header", {"format": 1, "config": config, "checkpoints": {}})
        for episode, won in enumerate(solved):
            reports = {agent: f"half {TILES[agent]}" for agent in AGENTS}
            opening = {"episode": episode, "goal": f"target {145 + episode}", "reports": reports}
            journal.append("episode", {**opening, "observations": dict.fromkeys(reversed(AGENTS), "")})
            posted = {"agent": "a0", "report": "half 3 7 11 made 100"}
            broken = {"agent": "a2", "report": "half 3 7 11 made 9", "fault": "timeout"}
            first = {"episode": episode, "tick": 0, "coordinator": None, "directives": {}, "agents": [posted, broken]}
            told = {"a1": f"100+[{45 + episode}]", "a0": "try hard"}
            mind = {"declined": {"a1": [f"[{245 + episode}]-100"]}}
            second = {"episode": episode, "tick": 1, "coordinator": mind, "directives": told, "agents": []}
            third = {"episode": episode, "tick": 2, "coordinator": {}, "directives": told, "agents": []}
            for tick in (first, second, third):
                journal.append("tick", tick)
            journal.append("episode_end", {"episode": episode, "solved": won})
    return folder
