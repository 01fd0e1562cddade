"""One episode while it runs: the world, what was said, what was spent.

Owns the state that a tick reads and changes, and `commit`, the one way to change it, used when a tick is played and
when a resumed run folds its journal back in. So a resumed run continues from exactly the state it would have had.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from swarm.agents.memory import AgentMemory
from swarm.config.experiment import ExperimentConfig, WorldConfig
from swarm.errors import SwarmError
from swarm.files import path_in
from swarm.messages import ActReply, DirectRequest
from swarm.prompt import agent_prompt
from swarm.record.journal import state_hash
from swarm.record.records import AgentEntry, EpisodeEnd, EpisodeStart, Opening, Record, Tick, acted
from swarm.run.budget import Spent
from swarm.run.steering import Orders
from swarm.seeds import derive_seed
from worlds.checked import CheckedWorld
from worlds.contained import open_checked
from worlds.protocol import Info, Report, StepResult, World, WorldError
from worlds.registry import make, world_class
from worlds.results import LIMIT_S, WorldFaultError

MAX_RETRIES = 3
"""Illegal actions in a row after which an agent rests for one tick."""


def open_world(
    world: WorldConfig, num_agents: int, base_dir: Path, limit_s: float = LIMIT_S, *, check: bool = True
) -> World:
    """Return a world that is not reset yet, whose answers are plain data or a `WorldFaultError`.

    Args:
        world: which one, its options and where it runs; relative paths in options of type `Path` start from `base_dir`.
        num_agents: how many agents act in it.
        base_dir: the folder of the experiment.
        limit_s: seconds that one answer may take.
        check: whether its answers are checked; without, it answers some three times as fast (measured with numbers),
            and raises whatever it raises. One that is contained is checked all the same.

    Raises:
        SwarmError: there is no such world, or it refuses its options.
    """
    options = world.options
    try:
        fields = world_class(world.id).Options.model_fields
        paths = {name for name, one in fields.items() if Path in (one.annotation, *get_args(one.annotation))}
        found = {
            name: str(path_in(base_dir, options[name])) for name in sorted(paths) if isinstance(options.get(name), str)
        }
        if not check and not world.contained:
            return make(world.id, num_agents, {**options, **found})
        return open_checked(world.id, num_agents, {**options, **found}, limit_s, world.contained_mb)
    except WorldError as error:
        raise SwarmError(str(error)) from error


def start_of(config: ExperimentConfig, index: int, level: int) -> tuple[int, dict[str, int]]:
    """Return the seed and the options that an episode's world is reset with: those of its puzzle."""
    kind, puzzle = "world" if index < config.episodes else "exam", config.puzzle_of(index)
    return derive_seed(config.seed, kind, puzzle), {"episode": puzzle, "level": level}


def world_of(config: ExperimentConfig, base_dir: Path) -> CheckedWorld:
    """Return the world of an experiment, not reset yet."""
    world = open_world(config.world, config.agents.count, base_dir, config.faults.call_timeout_s)
    if not isinstance(world, CheckedWorld):
        raise AssertionError
    return world


class Episode:
    """A running episode.

    Args:
        index: its number in the run.
        config: the experiment.
        world: a world of its own, not yet reset.
        level: its difficulty, below `World.levels`.
        level_by: who chose it, for the journal.

    Raises:
        WorldFaultError: the world cannot be reset.
    """

    def __init__(
        self, index: int, config: ExperimentConfig, world: World, level: int = 0, level_by: str = "default"
    ) -> None:
        self.index = index
        self.config = config.of_episode(index)
        self.world = world
        self.level, self.level_by = level, level_by
        self.seed, options = start_of(config, index, level)
        self.ticks = 0
        self.spent = Spent()
        self.reports: list[Report] = []
        self.unread = 0
        self.declined: list[tuple[str, str]] = []
        self.latest: dict[str, str] = {}
        self.directed: list[tuple[int, str, str]] = []
        self.directives: dict[str, str] = {}
        self.hints: list[str] = []
        self.steered = 0
        """The last line of what a person left for the run that this episode has heard."""
        self.last: Tick | None = None
        self.history: dict[str, list[tuple[str, str]]] = {}
        self.illegal_streak: dict[str, int] = {}
        self.solution = ""
        observations, infos = world.reset(self.seed, options=options)
        self.observations = {agent: observations[agent] for agent in world.possible_agents}
        self.goal = world.goal()
        self.first_state = state_hash(world.state())
        self.skills: Mapping[str, Mapping[str, float]] = {}
        """What agents that learn could do as its round began."""
        self.fault: WorldFaultError | None = None
        """What the world did wrong since its last step, when it was asked for an action or its form."""
        for agent in world.possible_agents:
            self._hear(-1, agent, infos.get(agent, Info()))

    def opening(self) -> EpisodeStart:
        """Return the `episode` record; only before the first tick."""
        agents = [Opening(agent=agent, observation=self.observations[agent]) for agent in self.world.possible_agents]
        for opening in agents:
            if opening["agent"] in self.latest:
                opening["report"] = self.latest[opening["agent"]]
        return {
            "kind": "episode",
            "episode": self.index,
            "world": self.world.id,
            "seed": self.seed,
            "level": self.level,
            "level_by": self.level_by,
            "goal": self.goal,
            "agents": agents,
            "state": self.first_state,
        }

    def _hear(self, tick: int, agent: str, info: Info) -> None:
        if report := info.get("report"):
            self.reports.append(Report(tick, agent, report))
            self.latest[agent] = report
            self.unread += 1

    def prompt(
        self, agent: str, directives: Mapping[str, str], sources: Sequence[str], memories: Iterable[AgentMemory[Any]]
    ) -> str:
        """Return what an agent reads before it acts.

        Args:
            agent: its id.
            directives: agent -> text, for this tick.
            sources: agents whose latest reports it reads.
            memories: what agents keep, which may add lines.
        """
        return agent_prompt(
            self.observations[agent],
            directives.get(agent, ""),
            [self.latest[source] for source in sources if source in self.latest],
            self.history.get(agent, ()),
            [line for memory in memories for line in memory.lines(self.index, agent)],
        )

    def request(self, hints: Sequence[str], memories: Iterable[AgentMemory[Any]]) -> DirectRequest:
        """Return what a coordinator may know now.

        Args:
            hints: those that a person left for this tick.
            memories: what agents keep; the first that can answers look-ups.
        """
        lookups = (memory.lookup(self.index) for memory in memories)
        cut_off, limit = self.config.topology.kind == "none", self.config.budget.tokens
        return DirectRequest(
            self.goal,
            tuple(self.world.agents),
            () if cut_off else tuple(self.reports),
            tuple(self.directed),
            tuple(self.declined),
            (*self.hints, *hints),
            derive_seed(self.config.seed, "direct", self.index, self.ticks),
            self.skills,
            next((lookup for lookup in lookups if lookup is not None), None),
            key=(self.index, self.ticks, "coordinator"),
            max_tokens=None if limit is None else max(0, limit - self.spent.tokens),
            unread=0 if cut_off else self.unread,
        )

    def rests(self, agent: str) -> bool:
        """Return whether the agent sits this tick out after too many illegal actions in a row."""
        return self.illegal_streak.get(agent, 0) >= MAX_RETRIES

    def step(self, actions: Mapping[str, str]) -> tuple[StepResult, str]:
        """Step the world; return its answer and the hash of its new state.

        Raises:
            WorldFaultError: the world breaks its contract, or did when it was asked for an action.
        """
        if self.fault is not None:
            raise self.fault
        return self.world.step(actions), state_hash(self.world.state())

    def commit(self, record: Tick, result: StepResult) -> None:
        """Take in what a tick record says; `result` is the world's answer to its actions."""
        self.spent = Spent(**record["spent"])
        self._take_orders(record)
        asked = {entry["agent"] for entry in record["agents"]}
        for agent, streak in self.illegal_streak.items():
            if agent not in asked and streak >= MAX_RETRIES:
                self.illegal_streak[agent] = 0
        for entry in record["agents"]:
            agent = entry["agent"]
            if not acted(entry):
                continue
            self.illegal_streak[agent] = 0 if entry["valid"] else self.illegal_streak.get(agent, 0) + 1
            if self.config.agents.history:
                pairs = [*self.history.get(agent, []), (entry["action"], entry["feedback"])]
                self.history[agent] = pairs[-self.config.agents.history :]
            self._hear(record["tick"], agent, result.infos.get(agent, Info()))
            if self.world.solved and not self.solution and entry["reward"] > 0:
                self.solution = entry["action"]
        self.observations.update(result.observations)
        self.ticks += 1
        self.last = record

    def _take_orders(self, record: Tick) -> None:
        """Take in what coordinator and people said."""
        directives, steered = dict(record["directives"]), record.get("steered", [])
        if record["coordinator"] is not None:
            self.unread = 0
            for agent, texts in record["coordinator"].get("declined", []):
                self.declined += [(agent, text) for text in texts]
            self.directives = dict(directives)
            for entry in steered:  # holds for this tick; after it the coordinator's word does
                for agent in entry.get("agents", ()):
                    self.directives.pop(agent, None)
                self.directives.update(entry.get("instead_of", []))
        self.directed += [(record["tick"], agent, text) for agent, text in record["directives"]]
        self.hints += [entry["hint"] for entry in steered if "hint" in entry]
        if "review" in record:
            self.hints += record["review"].get("hints", [])
        self.steered = max(self.steered, *(entry["line"] for entry in steered), 0)

    def end_reason(self) -> str | None:
        """Return why the episode is over after its last tick, None while it goes on."""
        if self.world.solved:
            return "solved"
        if self.last is not None and (self.last["terminated"] or self.last["truncated"]):
            return "terminated" if self.last["terminated"] else "truncated"
        name = self.spent.exhausted(self.config.budget, self.ticks)
        return name and f"budget: {name}"

    def ticking(self, orders: Orders, replies: Sequence[ActReply], result: StepResult, state: str) -> Tick:
        """Return the `tick` record, but for `memory`; `commit` then takes it in.

        Args:
            orders: what the episode was told.
            replies: of the agents that were asked, in order.
            result: the world's answer to their actions.
            state: hash of the world's state after it.
        """
        record: Tick = {
            "kind": "tick",
            "episode": self.index,
            "tick": self.ticks,
            "coordinator": None,
            "directives": [],
            "agents": [self._entry(reply, result) for reply in replies],
            "memory": {},
            "spent": self.spent.entry(),
            "state": state,
            "terminated": bool(result.terminations) and all(result.terminations.values()),
            "truncated": bool(result.truncations) and all(result.truncations.values()),
        }
        orders.enter(record, self.world.possible_agents)
        record["spent"] = (self.spent + Spent.of(record)).entry()
        return record

    def _entry(self, reply: ActReply, result: StepResult) -> AgentEntry:
        agent, failed = reply.key[2], reply.fault is not None
        info = Info(feedback="", valid=False) if failed else result.infos[agent]
        entry: AgentEntry = {
            "agent": agent,
            "action": reply.text,
            "prompt_tokens": reply.prompt_tokens,
            "generated_tokens": reply.generated_tokens,
            "feedback": info["feedback"],
            "valid": info["valid"],
            "reward": 0.0 if failed else float(result.rewards[agent]),
        }
        if reply.fault is not None:
            entry["fault"] = reply.fault
        if reply.thoughts:
            entry["thoughts"] = reply.thoughts
        if reply.inlined:
            entry["inlined"] = list(reply.inlined)
        if report := info.get("report"):
            entry["report"] = report
        return entry

    def closing(self, reason: str, unrecorded: Spent | None = None) -> EpisodeEnd:
        """Return the `episode_end` record.

        Args:
            reason: why the episode is over.
            unrecorded: the part of `spent` that went into a step without a record, for the world raised in it.
        """
        record: EpisodeEnd = {
            "kind": "episode_end",
            "episode": self.index,
            "solved": self.world.solved,
            "reason": reason,
            "ticks": self.ticks,
            "tokens": self.spent.tokens,
            "calls": self.spent.calls,
            "actions": self.spent.actions,
        }
        if self.world.solved:
            record["solution"] = self.solution
        if unrecorded is not None:
            record["unrecorded"] = unrecorded.entry()
        return record


def follow(record: Record, live: dict[int, Episode], begin: Callable[[int, int, str], Episode]) -> None:
    """Bring the episodes in flight on by a record of a journal, without calling any model.

    Args:
        record: the next one.
        live: episodes in flight, by number.
        begin: number, level, and who chose it -> a new episode.

    Raises:
        SwarmError: the journal does not fit the worlds of this installation.
    """
    try:
        match record["kind"]:
            case "episode":
                episode = live[record["episode"]] = begin(record["episode"], record["level"], record["level_by"])
                if episode.first_state != record["state"]:
                    raise SwarmError(f"world {record['world']} resets differently here")
            case "tick":
                episode = live[record["episode"]]
                result, state = episode.step({e["agent"]: e["action"] for e in record["agents"] if acted(e)})
                if state != record["state"]:
                    raise SwarmError("the world went another way than recorded")
                episode.commit(record, result)
            case "episode_end":
                del live[record["episode"]]
    except (WorldFaultError, SwarmError, KeyError) as error:
        raise SwarmError(f"journal line {record['seq'] + 1}: {error}") from error
