"""The `World` protocol: text observation in, text action out.

Owns the contract every world keeps and that `worlds.check.check_world` verifies. It follows the semantics of
PettingZoo's ParallelEnv (Terry et al., arXiv:2009.14471) with strings for observations and actions:

- `reset` and `step` speak about all live agents at once; `agents` shrinks as agents finish.
- Termination (the task ended) and truncation (time ran out) are separate and never merged.
- An action that makes no sense is answered with feedback in `infos[agent]["feedback"]`, never with an exception.
- An agent that is missing from `actions` passes this step (budgets may stop some agents before others).
- Everything a world does follows from the seed given to `reset` and the actions given to `step`.

It refuses to know models, tokens, budgets, coordinators and Ray.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypedDict

from pydantic import BaseModel, ConfigDict

__all__ = ["Info", "StepResult", "World", "WorldError", "WorldOptions", "tool"]


class WorldError(ValueError):
    """A user's mistake about a world: unknown id, bad options, malformed puzzle file."""


class WorldOptions(BaseModel):
    """Base of the per-world options; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Info(TypedDict, total=False):
    """What a world says to one agent beside its observation.

    Attributes:
        feedback: one line on what the last action did (always present after `step`).
        valid: whether the last action was legal (always present after `step`).
        report: what this agent now tells others, as text; absent when there is nothing new.
        facts: observations to which this agent now knows the right action, each with that action, because it has just
            read it or was right; for memories that keep facts. Absent when there are none.
    """

    feedback: str
    valid: bool
    report: str
    facts: list[tuple[str, str]]


class StepResult(NamedTuple):
    """The five mappings that `World.step` returns, each keyed by agent id."""

    observations: dict[str, str]
    rewards: dict[str, float]
    terminations: dict[str, bool]
    truncations: dict[str, bool]
    infos: dict[str, Info]


class World(ABC):
    """One text world. Subclasses say in their docstring what the card of the world says.

    Args:
        num_agents: how many agents act in this world, at least 1.
        options: validated options, an instance of the class's `Options`.

    Attributes:
        id: versioned name such as ``numbers-v0``; a change that alters results gets a new version.
        possible_agents: all agent ids in their fixed order, ``a0`` .. ``a{n-1}``.
        agents: the ids still live, in the same order; empty once the episode is over.
        solved: whether the shared goal was reached in this episode.
    """

    id: ClassVar[str]
    Options: ClassVar[type[WorldOptions]] = WorldOptions

    def __init__(self, num_agents: int, options: WorldOptions) -> None:
        if num_agents < 1:
            raise WorldError(f"{self.id} needs at least 1 agent, got {num_agents}")
        self.options = options
        self.possible_agents: list[str] = [f"a{i}" for i in range(num_agents)]
        self.agents: list[str] = []
        self.solved = False

    @abstractmethod
    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> tuple[dict[str, str], dict[str, Info]]:
        """Start an episode that depends on `seed` and `options` alone.

        Args:
            seed: any non-negative int.
            options: per-episode options; every world accepts ``{"episode": int}``, the index of the episode in
                its run, which worlds that read puzzles from a file use to pick the row.

        Returns:
            observations and infos of all agents; an info may already carry a `report`.
        """

    @abstractmethod
    def step(self, actions: Mapping[str, str]) -> StepResult:
        """Apply one action per acting agent, in the order of `possible_agents`; total on any text."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the whole state as JSON-able data with stable order; equal states give equal data."""

    @abstractmethod
    def goal(self) -> str:
        """Return the shared goal of the running episode as one line for coordinators and people."""

    @abstractmethod
    def tools(self) -> list[dict[str, Any]]:
        """Return the actions as JSON Schema tools: name, description, parameters, and `text`, the form a µLM emits."""

    @abstractmethod
    def render(self) -> str:
        """Return a few lines for people."""

    @abstractmethod
    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return a random legal action for `agent` that follows the form of `directive` where it has one.

        This is the random policy of the null control: it may use what the agent sees, not what the goal needs.
        """

    def action_pattern(self, agent: str) -> str | None:
        """Return a regular expression that every well-formed action of `agent` matches, or None if there is none."""
        return None

    @classmethod
    def card(cls) -> str:
        """Return the card docstring."""
        return (cls.__doc__ or "").strip()

    def ordered(self, agents: Sequence[str] | Mapping[str, Any]) -> list[str]:
        """Return the given live agents in the fixed order of `possible_agents`."""
        return [agent for agent in self.possible_agents if agent in agents and agent in self.agents]


def tool(name: str, description: str, text: str, **parameters: dict[str, Any]) -> dict[str, Any]:
    """Return one entry of `World.tools`: all parameters, given as JSON Schema, are required and there are no others."""
    return {
        "name": name,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": parameters,
            "required": list(parameters),
            "additionalProperties": False,
        },
        "text": text,
    }
