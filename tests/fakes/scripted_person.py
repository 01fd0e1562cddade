"""People who type what a test says, and a pool that counts words, for the tests of a person in the loop."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarm.config.coordinator import CoordinatorConfig
from swarm.coordinator.human import Approver, HumanCoordinator, Terminal
from swarm.coordinator.protocol import Setup
from swarm.messages import DirectReply, DirectRequest
from swarm.record.journal import read_records
from worlds.protocol import Report

RANDOM = {"engine": {"kind": "random"}}
"""Agents that need no model; their tokens are bytes."""


@dataclass
class Script:
    """A person who types given lines, and then no more."""

    lines: Iterable[str] = ()
    shown: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)

    def terminal(self) -> Terminal:
        lines = iter(self.lines)

        def ask(prompt: str) -> str:
            self.prompts.append(prompt)
            for line in lines:
                return line
            raise EOFError

        return Terminal(ask, self.shown.append)

    @property
    def text(self) -> str:
        return "\n".join(self.shown)


class Steady:
    """A person whose answer follows from the episode and the tick that are shown."""

    def __init__(self, answer: Callable[[int, int], list[str]]) -> None:
        self.answer = answer
        self.todo: list[str] = []
        self.shown: list[str] = []
        self.asked: list[tuple[int, int]] = []

    def terminal(self) -> Terminal:
        def say(line: str) -> None:
            self.shown.append(line)
            if found := re.fullmatch(r"episode (\d+) tick (\d+)", line):
                self.asked.append((int(found[1]), int(found[2])))
                self.todo = self.answer(*self.asked[-1])

        def ask(prompt: str) -> str:
            return self.todo.pop(0)

        return Terminal(ask, say)


class Words:
    """A pool in which a word is a token and the coordinator says what a function says."""

    def __init__(self, direct: Callable[[DirectRequest], DirectReply] = lambda r: DirectReply(r.key)) -> None:
        self.answer = direct
        self.asked: list[DirectRequest] = []

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        self.asked += requests
        return [self.answer(request) for request in requests]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


def request(**changes: Any) -> DirectRequest:
    reports = (Report(0, "a0", "half 1 2"), Report(0, "a1", "half 7 9"), Report(1, "a0", "half 1 2 made 3"))
    values = {"goal": "target 12", "agents": ("a0", "a1", "a2"), "reports": reports, "seed": 3}
    return DirectRequest(**{**values, "unread": 1, **changes}, key=(4, 2, "coordinator"))


def direct(lines: Iterable[str], pool: Words | None = None, **changes: Any) -> tuple[DirectReply, Script]:
    script = Script(lines)
    setup = Setup(CoordinatorConfig(kind="human"), (pool or Words()).count_tokens, terminal=script.terminal())
    (reply,) = HumanCoordinator(setup).direct([request(**changes)])
    return reply, script


def approve(
    lines: Iterable[str],
    says: Callable[[DirectRequest], DirectReply] = lambda r: DirectReply(r.key, {"a0": "go", "a1": "wait"}, 7, 2, 1),
    reads_hints: bool = False,
    **changes: Any,
) -> tuple[DirectReply, Script, Words]:
    script, pool = Script(lines), Words(says)
    (reply,) = Approver(script.terminal(), None, reads_hints).direct([request(**changes)], pool)  # type: ignore[arg-type]
    return reply, script, pool


def records(run_dir: Path, kind: str = "tick") -> list[dict[str, Any]]:
    return [record for record in read_records(run_dir / "journal.jsonl") if record["kind"] == kind]
