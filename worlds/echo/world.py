"""`echo-v0`: a world in which nothing is searched, for measuring the machinery around it.

Owns that one world and nothing else.
"""

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from worlds.protocol import Info, StepResult, World, WorldError, WorldOptions, tool


class EchoOptions(WorldOptions):
    """Options of echo-v0."""

    max_steps: int = Field(100, ge=1)
    """Steps after which the episode is truncated."""


class EchoWorld(World):
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

    def __init__(self, num_agents: int, options: WorldOptions) -> None:
        if not isinstance(options, EchoOptions):
            raise WorldError("echo-v0 takes EchoOptions")
        super().__init__(num_agents, options)
        self.steps = 0
        self.said = 0

    def _line(self) -> str:
        return f"say {self.steps}"

    def _observe(self) -> dict[str, str]:
        return dict.fromkeys(self.agents, self._line())

    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> tuple[dict[str, str], dict[str, Info]]:
        """Start counting at zero."""
        self.steps, self.said, self.solved = 0, 0, False
        self.agents = list(self.possible_agents)
        return self._observe(), {agent: Info() for agent in self.agents}

    def step(self, actions: Mapping[str, str]) -> StepResult:
        """Count the agents that repeat their observation; any other action is illegal."""
        acting = self.ordered(actions)
        line = self._line()
        self.steps += 1
        infos: dict[str, Info] = {}
        for agent in acting:
            if actions[agent].strip() == line:
                self.said += 1
                infos[agent] = Info(feedback="ok", valid=True)
            else:
                infos[agent] = Info(feedback=f"illegal: not {line}", valid=False)
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
        return [tool("say", "Say the number of the step.", "say {number}", number={"type": "integer"})]

    def render(self) -> str:
        """Return the counters for people."""
        return f"step {self.steps}, {self.said} things said"

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return the only legal action."""
        return self._line()

    def action_pattern(self, agent: str) -> str | None:
        """Return the only legal action."""
        return self._line()
