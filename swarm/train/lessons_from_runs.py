"""Training texts from runs that were won: what a coordinator could choose from, and what it chose.

Owns how a journal becomes (prompt, completion) pairs in the layout of play, whoever directed: rules, a model or a
person. Only episodes that were solved count, and of those no puzzle that is kept for evaluation. Every tenth solved
episode is put aside for scoring. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from swarm.coordinator.minds import playbook
from swarm.errors import SwarmError
from swarm.prompt import STOP
from swarm.record.journal import JOURNAL_NAME, Record, read_records
from swarm.train.lessons import Text
from worlds.protocol import Playbook, Report, Situation
from worlds.registry import world_class

__all__ = ["run_examples"]

SCORED = 10
"""Every so many solved episodes, one is for scoring."""


def run_examples(folders: Sequence[Path]) -> tuple[list[Text], list[Text]]:
    """Return what is trained on and what is scored on, in the order of the runs.

    Raises:
        SwarmError: a folder holds no run, or one of a world without menus or of puzzles that are kept for evaluation;
            or there is too little to learn from.
    """
    trained: list[Text] = []
    scored: list[Text] = []
    solved = 0
    for folder in folders:
        for examples in _won(folder):
            solved += 1
            (scored if solved % SCORED == 0 else trained).extend(examples)
    if not trained or not scored:
        raise SwarmError(
            f"{', '.join(map(str, folders))}: {solved} solved episodes with directives from a menu are too few to "
            f"train and to score on; run more of them (at least {SCORED})"
        )
    return trained, scored


def _won(folder: Path) -> Iterator[list[Text]]:
    """Yield the examples of each solved episode that has some."""
    journal = folder / JOURNAL_NAME
    if not journal.is_file():
        raise SwarmError(f"{folder} is no run folder: it has no {JOURNAL_NAME}")
    records = read_records(journal)
    config = next(records)["config"]
    book = _playbook(config, folder)
    live: dict[int, _Episode] = {}
    for record in records:
        kind = record["kind"]
        if kind == "episode":
            live[record["episode"]] = _Episode(record)
        elif kind == "tick":
            live[record["episode"]].add(record, book)
        elif kind == "episode_end":
            ended = live.pop(record["episode"])
            if record["solved"] and ended.examples:
                yield ended.examples


def _playbook(config: Record, folder: Path) -> Playbook:
    section = config["world"]
    world = world_class(section["id"])
    book = playbook(world.id)
    if book.menu is None:
        raise SwarmError(f"{folder}: coordinators of {world.id} choose from no menu, so there is nothing to learn")
    options = world.Options.model_validate(section["options"])
    learnable = world.for_training(options)
    if learnable is not None and learnable != options:
        wanted = learnable.model_dump(mode="json")
        there = options.model_dump(mode="json")
        settings = " ".join(f"--set world.options.{key}={v}" for key, v in wanted.items() if there[key] != v)
        raise SwarmError(f"{folder} may hold puzzles that are kept for evaluation; make the run with {settings}")
    return playbook(world.id, config["coordinator"].get("menu"))


class _Episode:
    """What a coordinator knew, tick by tick, and the examples so far."""

    def __init__(self, record: Record) -> None:
        self.goal: str = record["goal"]
        self.agents = tuple(sorted(record["observations"], key=lambda agent: (len(agent), agent)))
        self.reports = [
            Report(-1, agent, record["reports"][agent]) for agent in self.agents if agent in record["reports"]
        ]
        self.directives: list[tuple[int, str, str]] = []
        self.declined: list[tuple[str, str]] = []
        self.examples: list[Text] = []

    def add(self, record: Record, book: Playbook) -> None:
        """Take in a tick; what was chosen from a menu in it becomes an example."""
        tick, told = record["tick"], record["directives"]
        if told:
            known = (self.goal, self.agents, tuple(self.reports), tuple(self.directives), tuple(self.declined))
            for briefing in book.briefings(Situation(*known)):
                given = {told[agent] for agent in briefing.agents if agent in told}
                if chosen := [word for word, text in briefing.options.items() if text in given]:
                    self.examples.append(("run", briefing.prompt, f" {' '.join(chosen)}{STOP}"))
        self.directives += [(tick, agent, told[agent]) for agent in self.agents if agent in told]
        for agent, texts in sorted((record["coordinator"] or {}).get("declined", {}).items()):
            self.declined += [(agent, text) for text in texts]
        for entry in record["agents"]:
            if entry.get("report") and entry.get("fault") is None:
                self.reports.append(Report(tick, entry["agent"], entry["report"]))
