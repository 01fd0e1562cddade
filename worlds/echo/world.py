"""`echo-v0`: a world in which nothing is searched, for measuring the machinery around it.

Owns that one world and nothing else.
"""

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from worlds.ordered import OrderedWorld
from worlds.protocol import Info, WorldOptions, tool


class EchoOptions(WorldOptions):
    """Options of echo-v0."""

    max_steps: int = Field(100, ge=1)
    """Steps after which the episode is truncated."""


class EchoWorld(OrderedWorld):
    """Every agent is told what to say and repeats it. Nothing can be solved.

    observation  `say 3`, in the fourth step.
    actions      `say 3`: the observation.
    report       none.
    directive    none.
    reward       none.
    ends         truncated after `max_steps`.
    options      max_steps (100).
    """

    id: ClassVar[str] = "echo-v0"
    Options: ClassVar[type[WorldOptions]] = EchoOptions
    options: EchoOptions

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """Forget what was said."""
        self.said = 0

    def observe(self, agent: str) -> str:
        """Return what everybody is told to say."""
        return f"say {self.steps}"

    def act(self, agent: str, action: str) -> tuple[Info, float]:
        """Count an agent that repeats its observation; any other action is illegal."""
        line = self.observe(agent)
        valid = action == line
        self.said += valid
        return Info(feedback="ok" if valid else f"illegal: not {line}", valid=valid), 0.0

    def state(self) -> dict[str, Any]:
        """Return both counters."""
        return {"steps": self.steps, "said": self.said}

    def goal(self) -> str:
        """Return that there is none."""
        return "say the number of the step"

    def tools(self) -> list[dict[str, Any]]:
        """Return the one tool."""
        return [tool("say", "Say the number of the step.", "say {number}", number={"type": "integer"})]

    def render(self) -> str:
        """Return the counters for people."""
        return f"step {self.steps}, {self.said} things said"

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return the only legal action."""
        return self.observe(agent)

    def action_pattern(self, agent: str) -> str | None:
        """Return the only legal action."""
        return self.observe(agent)
