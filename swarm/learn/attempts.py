"""Attempts: one action each, and what came of it; the world's random policy makes them without a model."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from swarm.prompt import agent_prompt
from worlds.protocol import World


@dataclass(frozen=True, slots=True)
class Attempt:
    """One action, and what came of it.

    Attributes:
        agent: whose.
        group: what it is compared with: puzzle, agent and turn.
        prompt, observation, answer: what was read, the world's part of it, and what was done.
        feedback, valid: the world's answer.
        reward: how good it was: the agent's own reward for the action itself; with `team_reward`, its gain.
        gain: what it and all that followed in its episode brought, with the team's share.
        tokens: that were generated, the end of the line included.
        undirected: the prompt without the coordinator's directive, for what is taught; "" where there was none.
        inlined: parts of the answer that the world appended inline.
    """

    agent: str
    group: tuple[int, str, int]
    prompt: str
    observation: str
    answer: str
    feedback: str
    valid: bool
    reward: float
    gain: float
    tokens: int = 0
    undirected: str = ""
    inlined: tuple[tuple[int, int], ...] = ()

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts to which the answer is imitated."""
        return (self.prompt, self.undirected) if self.undirected else (self.prompt,)


def random_attempts(
    world: World, seed: int, options: Mapping[str, Any], count: int, rng: random.Random
) -> Iterator[Attempt]:
    """Yield random legal attempts of all agents at one puzzle, which begins again whenever it is over."""
    observations: dict[str, str] = {}
    for _ in range(count):
        if not observations or not world.agents:
            observations = dict(world.reset(seed, options)[0])
        actions = {agent: world.sample_action(agent, "", rng) for agent in world.agents}
        result = world.step(actions)
        for agent, action in actions.items():
            seen, info, reward = observations[agent], result.infos[agent], result.rewards[agent]
            prompt = agent_prompt(seen)
            yield Attempt(agent, (0, agent, -1), prompt, seen, action, info["feedback"], info["valid"], reward, reward)
        observations.update(result.observations)
