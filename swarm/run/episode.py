"""One episode while it runs: the world, what was said, what was spent.

Owns the state that a tick reads and changes, and `commit`, the one way to change it, used when a tick is played and
when a resumed run folds its journal back in. So a resumed run continues from exactly the state it would have had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swarm.agents.shared_facts import SwarmFacts
from swarm.config.experiment import ExperimentConfig
from swarm.messages import ActReply, Report
from swarm.record.journal import Record, state_hash
from swarm.run.budget import Spent
from swarm.run.steering import Orders
from swarm.seeds import derive_seed
from worlds.protocol import Info, StepResult, World

MAX_RETRIES = 3
"""Illegal actions in a row after which an agent rests for one tick."""

__all__ = ["Episode", "WorldFaultError", "tokens_of"]


class WorldFaultError(Exception):
    """A world that raised or returned something that is no result."""


class Episode:
    """A running episode.

    Args:
        index: its number in the run.
        config: the experiment.
        world: a world of its own, not yet reset.

    Raises:
        WorldFaultError: the world cannot be reset.
    """

    def __init__(self, index: int, config: ExperimentConfig, world: World) -> None:
        self.index = index
        self.config = config
        self.world = world
        self.seed = derive_seed(config.seed, "world", index)
        self.ticks = 0
        self.spent = Spent()
        self.reports: list[Report] = []
        self.unread = 0
        self.passed_over: list[tuple[str, str]] = []
        self.latest: dict[str, str] = {}
        self.directed: list[tuple[int, str, str]] = []
        self.directives: dict[str, str] = {}
        self.hints: list[str] = []
        self.steered = 0
        """The last line of what a person left for the run that this episode has heard."""
        self.history: dict[str, list[tuple[str, str]]] = {}
        self.illegal_streak: dict[str, int] = {}
        self.solution = ""
        self.memories: dict[str, bytes] = {}
        self.facts = SwarmFacts(config.agents.engram) if config.agents.has_engram else None
        try:
            observations, infos = world.reset(self.seed, options={"episode": index})
            self.observations = {agent: _text(observations[agent]) for agent in world.possible_agents}
            self.goal = _text(world.goal())
            self.first_state = state_hash(world.state())
        except Exception as error:
            raise WorldFaultError(f"world {world.id} raised {type(error).__name__} in reset: {error}") from error
        for agent in world.possible_agents:
            self._hear(-1, agent, infos.get(agent, Info()))
        self.first_reports = {report.agent: report.text for report in self.reports}

    def opening(self) -> Record:
        """Return the body of the `episode` record."""
        return {
            "episode": self.index,
            "world": self.world.id,
            "seed": self.seed,
            "goal": self.goal,
            "observations": self.observations,
            "reports": self.first_reports,
            "state": self.first_state,
        }

    def _hear(self, tick: int, agent: str, info: Info) -> None:
        if report := info.get("report"):
            self.reports.append(Report(tick, agent, report))
            self.latest[agent] = report
            self.unread += 1

    def rests(self, agent: str) -> bool:
        """Return whether the agent sits this tick out after too many illegal actions in a row."""
        return self.illegal_streak.get(agent, 0) >= MAX_RETRIES

    def step(self, actions: Mapping[str, str]) -> tuple[StepResult, str]:
        """Step the world; return its answer and the hash of its new state.

        Raises:
            WorldFaultError: the world raised or returned something that is no result.
        """
        try:
            result = StepResult(*self.world.step(actions))
            for agent in actions:
                info = result.infos[agent]
                if not isinstance(info["feedback"], str) or not isinstance(info["valid"], bool):
                    raise TypeError(f"info of {agent} has no feedback text or no bool `valid`")
                float(result.rewards[agent])
                for observation, action in info.get("facts", []):
                    _text(observation), _text(action)
            for text in result.observations.values():
                _text(text)
            state = state_hash(self.world.state())
        except Exception as error:
            raise WorldFaultError(f"world {self.world.id} raised {type(error).__name__} in step: {error}") from error
        return result, state

    def commit(self, record: Record, result: StepResult) -> None:
        """Take over what a tick record says happened; `result` is the world's answer to its actions."""
        self.spent.tokens += tokens_of(record)
        self._take_orders(record)
        acted = {entry["agent"] for entry in record["agents"]}
        for agent, streak in self.illegal_streak.items():
            if agent not in acted and streak >= MAX_RETRIES:
                self.illegal_streak[agent] = 0
        for entry in record["agents"]:
            agent = entry["agent"]
            self.spent.calls += 1
            if entry.get("fault") is not None:
                continue
            self.spent.actions += 1
            self.illegal_streak[agent] = 0 if entry["valid"] else self.illegal_streak.get(agent, 0) + 1
            if self.config.agents.history:
                pairs = [*self.history.get(agent, []), (entry["action"], entry["feedback"])]
                self.history[agent] = pairs[-self.config.agents.history :]
            info = result.infos.get(agent, Info())
            self._hear(record["tick"], agent, info)
            if self.facts is not None:
                self.facts.write(agent, info.get("facts", []))
            if self.world.solved and not self.solution and entry["reward"] > 0:
                self.solution = entry["action"]
        self.observations.update(result.observations)
        self.ticks += 1

    def _take_orders(self, record: Record) -> None:
        """Take over what coordinator and people said."""
        directives, steered = record["directives"], record.get("steered", ())
        if record["coordinator"] is not None:
            self.spent.calls += record["coordinator"]["calls"]
            self.unread = 0
            # A record that was read has its agents in another order than one that was just made.
            for agent, texts in sorted(record["coordinator"].get("passed_over", {}).items()):
                self.passed_over += [(agent, text) for text in texts]
            self.directives = dict(directives)
            for entry in steered:  # holds for this tick; after it the coordinator's word does
                for agent in entry.get("agents", ()):
                    self.directives.pop(agent, None)
                self.directives.update(entry.get("instead_of", {}))
        # A record that was read has its agents in another order than one that was just made.
        self.directed += [(record["tick"], a, directives[a]) for a in self.world.possible_agents if a in directives]
        self.hints += [entry["hint"] for entry in steered if "hint" in entry]
        self.hints += record.get("review", {}).get("hints", [])
        self.steered = max(self.steered, *(entry["line"] for entry in steered), 0)

    def end_reason(self, last: Record | None) -> str | None:
        """Return why the episode is over after its last tick record, None while it goes on."""
        if self.world.solved:
            return "solved"
        if last is not None and (last["terminated"] or last["truncated"]):
            return "terminated" if last["terminated"] else "truncated"
        if name := self.spent.exhausted(self.config.budget, self.ticks):
            return f"budget: {name}"
        return None

    def ticking(self, orders: Orders, replies: Sequence[ActReply], result: StepResult, state: str) -> Record:
        """Return the body of a `tick` record, but for `spent`, which `commit` makes known.

        Args:
            orders: what the episode was told.
            replies: of the agents that were asked, in order.
            result: the world's answer to their actions.
            state: hash of the world's state after it.
        """
        entries: list[Record] = []
        for reply in replies:
            agent = reply.key[2]
            entry: Record = {
                "agent": agent,
                "action": reply.text,
                "prompt_tokens": reply.prompt_tokens,
                "generated_tokens": reply.generated_tokens,
            }
            if reply.fault is not None:
                entry.update(feedback="", valid=False, reward=0.0, fault=reply.fault)
            else:
                info = result.infos[agent]
                entry.update(feedback=info["feedback"], valid=info["valid"], reward=float(result.rewards[agent]))
                if report := info.get("report"):
                    entry["report"] = report
                if self.facts is not None and info.get("facts"):
                    entry["facts"] = [list(fact) for fact in info["facts"]]
            entries.append(entry)
        return {
            "episode": self.index,
            "tick": self.ticks,
            **orders.fields(),
            "agents": entries,
            "state": state,
            "terminated": bool(result.terminations) and all(result.terminations.values()),
            "truncated": bool(result.truncations) and all(result.truncations.values()),
        }

    def closing(self, reason: str, unrecorded: Spent | None = None) -> Record:
        """Return the body of the `episode_end` record.

        Args:
            reason: why the episode is over.
            unrecorded: the part of `spent` that went into a step without a record, for the world raised in it.
        """
        body: dict[str, Any] = {
            "episode": self.index,
            "solved": self.world.solved,
            "reason": reason,
            "ticks": self.ticks,
            **self.spent.as_dict(),
        }
        if self.world.solved:
            body["solution"] = self.solution
        if unrecorded is not None:
            body["unrecorded"] = {"tokens": unrecorded.tokens, "calls": unrecorded.calls}
        return body


def tokens_of(record: Record) -> int:
    """Return what a tick record charges: agents, coordinator, and what a person said."""
    entries = [*record["agents"]] + ([record["coordinator"]] if record["coordinator"] is not None else [])
    tokens: int = sum(entry["prompt_tokens"] + entry["generated_tokens"] for entry in entries)
    tokens += sum(entry["tokens"] for entry in record.get("steered", ()))
    return tokens


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value
