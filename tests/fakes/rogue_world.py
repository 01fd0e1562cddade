"""A world that does in the second step of one episode what its options say, and nothing wrong else."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from worlds.ordered import OrderedWorld
from worlds.protocol import Info, StepResult, WorldOptions
from worlds.registry import register


def _swallow() -> None:
    while True:
        with suppress(BaseException):  # that is the point
            time.sleep(0.01)


TROUBLES: dict[str, Callable[[], Any]] = {
    "": lambda: None,
    "loop": lambda: [None for _ in iter(int, 1)],
    "swallow": _swallow,
    "hang in C": lambda: ctypes.PyDLL(None).sleep(1000),
    "leave": lambda: sys.exit(3),
    "end the process": lambda: os._exit(3),
    "eat memory": lambda: bytearray(2**40),
}


class RogueOptions(WorldOptions):
    trouble: str = ""
    episode: int = 0
    max_steps: int = 3


@register
class RogueWorld(OrderedWorld):
    """Say anything."""

    id = "rogue-v0"
    Options = RogueOptions
    options: RogueOptions

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        self.seed, self.episode, self.said = seed, options.get("episode"), list[str]()

    def step(self, actions: Mapping[str, str]) -> StepResult:
        if self.steps == 1 and self.episode == self.options.episode:
            TROUBLES[self.options.trouble]()
        return super().step(actions)

    def observe(self, agent: str) -> str:
        return f"step {self.steps}"

    def act(self, agent: str, action: str) -> tuple[Info, float]:
        self.said.append(action)
        return Info(feedback="noted", valid=True, report=f"{agent} said {action}"), 0.5

    def state(self) -> dict[str, Any]:
        return {"seed": self.seed, "said": self.said, "steps": self.steps}

    def goal(self) -> str:
        return "say anything"

    def tools(self) -> list[dict[str, Any]]:
        schema = {"type": "object", "properties": {}}
        return [{"name": "say", "description": "Say it.", "parameters": schema, "text": "it"}]

    def render(self) -> str:
        return " ".join(self.said)

    def sample_action(self, agent: str, directive: str, rng: Any) -> str:
        return f"{rng.randrange(1000)} {rng.gauss(0, 1):.3f}"
