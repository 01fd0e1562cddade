"""`OrderedWorld`: what worlds share that take the actions of one step one after the other, in agent order.

Owns the start and the end of an episode and the five mappings of a step. It knows nothing about what is searched.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from worlds.protocol import Info, StepResult, World


class OrderedWorld(World):
    """A world in which an observation follows from the state, and one action changes it at a time.

    An agent that passes is told so and earns nothing. Where the world's options have `max_steps`, the episode is
    truncated after so many steps.

    Attributes:
        steps: the steps of this episode.
    """

    steps: int

    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> tuple[dict[str, str], dict[str, Info]]:
        """Start an episode; see `begin`."""
        self.agents, self.solved, self.steps = list(self.possible_agents), False, 0
        self.begin(seed, options or {})
        reports = {agent: self.news(agent) for agent in self.agents}
        infos = {agent: Info(report=report) if report else Info() for agent, report in reports.items()}
        return {agent: self.observe(agent) for agent in self.agents}, infos

    def step(self, actions: Mapping[str, str]) -> StepResult:
        """Apply the actions in agent order: what an agent does may matter to those after it in the same step."""
        live = self.agents
        infos = {agent: Info(feedback="passed", valid=True) for agent in live}
        rewards = dict.fromkeys(live, 0.0)
        for agent in self.ordered(actions):
            infos[agent], rewards[agent] = self.act(agent, actions[agent].strip())
        self.steps += bool(live)
        ended = self.has_ended()
        out_of_time = not ended and self.steps >= getattr(self.options, "max_steps", math.inf)
        done = {agent: ended or self.is_done(agent) for agent in live}
        self.agents = [] if out_of_time else [agent for agent in live if not done[agent]]
        return StepResult(
            observations={agent: self.observe(agent) for agent in live},
            rewards=rewards,
            terminations=done,
            truncations={agent: out_of_time and not done[agent] for agent in live},
            infos=infos,
        )

    @abstractmethod
    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """Make the puzzle of an episode; `seed` and `options` as for `reset`."""

    @abstractmethod
    def observe(self, agent: str) -> str:
        """Return what an agent reads now."""

    @abstractmethod
    def act(self, agent: str, action: str) -> tuple[Info, float]:
        """Apply one action, without space around it; return feedback and reward, and set `solved` where it solves."""

    def news(self, agent: str) -> str | None:
        """Return what an agent has to report when an episode starts, None for nothing."""
        return None

    def is_done(self, agent: str) -> bool:
        """Return whether the task of one agent has ended, where agents have tasks of their own."""
        return False

    def has_ended(self) -> bool:
        """Return whether the task of all has ended after a step."""
        return self.solved
