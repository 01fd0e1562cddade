"""Runs of split-numbers-v0 that are won by scripted agents, for tests of what is learned from runs."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from fakes.scripted_run import ScriptedPool, play

from swarm.backends.protocol import TextModel, TextRequest, TextResult
from swarm.config.experiment import ExperimentConfig
from swarm.coordinator.kinds import BriefedCoordinator, book_for
from swarm.coordinator.protocol import Setup
from swarm.messages import ActReply, ActRequest, DirectReply, DirectRequest
from worlds.numbers.solver import complete, expressions

_READ = re.compile(r"half (?P<tiles>[0-9 ]+) (?:target|make) (?P<rest>[0-9 ]+)")


def _made(tiles: str) -> dict[int, tuple[str, ...]]:
    return expressions(tuple(map(int, tiles.split())))


class _Knowing:
    """A coordinator's model that chooses what its half can make."""

    max_length = 1000

    def count_prompts(self, requests: Sequence[TextRequest]) -> list[int]:
        return [5 for _ in requests]

    def generate(self, requests: Sequence[TextRequest], deadline_s: float | None = None) -> list[TextResult]:
        results = []
        for request in requests:
            read = _READ.match(request.prompt)
            made = _made(read["tiles"]) if read else {}
            picked = [word for word in (read["rest"].split() if read else ()) if int(word) in made]
            results.append(TextResult(" ".join(picked) or "-", 5, 2, "stop"))
        return results


class WinningPool(ScriptedPool):
    """Agents make what they are directed to make in puzzles that are to be won, and else something of their tiles."""

    def __init__(self, config: ExperimentConfig, wins: Sequence[bool]) -> None:
        super().__init__()
        self.config, self.wins = config, wins

    def answer(self, request: ActRequest) -> ActReply:
        observation, *directives = request.prompt.strip().split("\n")
        read = _READ.match(observation)
        made = _made(read["tiles"]) if read else {}
        wanted = re.search(r"\[([0-9]+)\]", directives[-1]) if directives else None
        if self.wins[request.key[0]] and wanted and int(wanted[1]) in made:
            text = complete(directives[-1].replace(wanted[0], "[{}]"), made[int(wanted[1])][0])
        else:
            text = random.Random(str(request.key)).choice([forms[0] for forms in made.values()])
        return ActReply(request.key, text, 20, 10)

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        section = self.config.coordinator
        book = book_for(section, self.config.world.id)
        setup = Setup(section, self.count_tokens, book, cast("TextModel", _Knowing()))
        return BriefedCoordinator(setup).direct(requests)


def write_run(folder: Path, wins: Sequence[bool], split: str = "train", **coordinator: Any) -> Path:
    """Play a run in which the puzzles of `wins` are solved and the others are not."""
    config = ExperimentConfig.model_validate(
        {
            "name": "won",
            "episodes": len(wins),
            "world": {"id": "split-numbers-v0", "options": {"split": split}},
            "agents": {"count": 4, "engine": {"kind": "echo"}},
            "coordinator": {"kind": "model", "engine": {"kind": "ulm", "model": "policies/coordinator"}, **coordinator},
            "budget": {"ticks": 40},
            "runtime": {"durability": "group"},
        }
    )
    play(folder, config, WinningPool(config, wins))
    return folder
