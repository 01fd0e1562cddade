"""`echo-v0`: a world in which nothing is searched, for measuring the machinery around it.

Owns that one world and nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from worlds.protocol import Info, StepResult, World, WorldError, WorldOptions

__all__ = ["EchoOptions", "EchoWorld"]


class EchoOptions(WorldOptions):
    """Options of echo-v0. max_steps: steps until the episode is truncated."""

    max_steps: int = Field(100, ge=1)


class EchoWorld(World):
    """Every agent is told to say the number of the step; whatever it says is accepted. Nothing can be solved."""

    id: ClassVar[str] = "echo-v0"
    Options: ClassVar[type[WorldOptions]] = EchoOptions
    options: EchoOptions

    def __init__(self, num_agents: int, options: WorldOptions) -> None:
        if not isinstance(options, EchoOptions):
            raise WorldError("echo-v0 takes EchoOptions")
        super().__init__(num_agents, options)
        self.steps = 0
        self.said = 0

    def _observe(self) -> dict[str, str]:
        text = f"say {self.steps}"
        return dict.fromkeys(self.agents, text)

    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> tuple[dict[str, str], dict[str, Info]]:
        """Start counting at zero."""
        self.steps, self.said, self.solved = 0, 0, False
        self.agents = list(self.possible_agents)
        return self._observe(), {agent: Info() for agent in self.agents}

    def step(self, actions: Mapping[str, str]) -> StepResult:
        """Accept what is said; an empty action is answered as illegal."""
        acting = self.ordered(actions)
        self.steps += 1
        infos: dict[str, Info] = {}
        for agent in acting:
            if actions[agent].strip():
                self.said += 1
                infos[agent] = Info(feedback="ok", valid=True)
            else:
                infos[agent] = Info(feedback="illegal: nothing said", valid=False)
        live = list(self.agents)
        over = self.steps >= self.options.max_steps
        result = StepResult(
            self._observe(),
            dict.fromkeys(acting, 0.0),
            dict.fromkeys(live, False),
            dict.fromkeys(live, over),
            infos,
        )
        if over:
            self.agents = []
        return result

    def state(self) -> dict[str, Any]:
        """Return both counters."""
        return {"steps": self.steps, "said": self.said}

    def goal(self) -> str:
        """Return that there is none."""
        return "say the number of the step"

    def tools(self) -> list[dict[str, Any]]:
        """Return the one tool."""
        return [
            {
                "name": "say",
                "description": "Say anything.",
                "parameters": {
                    "type": "object",
                    "properties": {"text": {"type": "string"}},
                    "required": ["text"],
                    "additionalProperties": False,
                },
                "text": "{text}",
            }
        ]

    def render(self) -> str:
        """Return the counters for people."""
        return f"step {self.steps}, {self.said} things said"

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return a random number."""
        return str(rng.randrange(100))
