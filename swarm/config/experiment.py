"""The experiment: what a YAML file may say, with types, ranges and defaults.

Owns the schema and its two halves. The *logical* half (world, agents, topology, coordinator, budget, seed, episodes)
decides what happens and stands in the journal. The *physical* half (`runtime`, and what is marked PHYSICAL) says where
it runs and may never alter a result. Engines are in `swarm.config.engine`, coordinators in `swarm.config.coordinator`;
files are read in `swarm.config.load`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from swarm.config.coordinator import CoordinatorConfig
from swarm.config.engine import AgentEngine, ModelEngine, UlmEngine
from swarm.config.learning import LearningConfig
from swarm.config.memory import KeptSection, Memories, find_memory
from swarm.config.section import PHYSICAL, Name, Section, refuse_where
from swarm.config.training import Device, RayAddress


class WorldConfig(Section):
    """Which world, and its own options (validated by the world)."""

    id: str
    """Its name and version, such as `my-world-v0`; `swarm worlds` lists them."""

    options: dict[str, Any] = Field(default_factory=dict)
    """The world's own settings; `swarm worlds ID` lists them."""

    contained: Annotated[bool, PHYSICAL] = False
    """Run the world in a child interpreter: for one that hangs where the time limit does not reach it, that takes the
    process down, or eats its memory. Its episode ends as a fault, and the run goes on."""

    memory_mb: Annotated[int, PHYSICAL] = Field(2048, ge=64)
    """Address space of that child, in MiB."""

    @property
    def contained_mb(self) -> int | None:
        """The memory of the child; None without one."""
        return self.memory_mb if self.contained else None


class AgentsConfig(Section):
    """The agents that search for the goal."""

    count: int = Field(8, ge=1, le=100_000)
    """Number of agents."""

    engine: AgentEngine
    """What the agents run on: a language model, or one of the controls `random` and `echo`."""

    temperature: float = Field(0.7, ge=0.0, le=5.0)
    """Sampling temperature; 0 is greedy."""

    max_new_tokens: int = Field(32, ge=1, le=4096)
    """Hard limit of one action."""

    constrained: bool = False
    """Force actions into the world's action pattern, where it has one."""

    inline: bool = False
    """Let the world answer while an action is written (`World.inline`): the agent writes `3*7=`, reads `21`, goes on.
    What it reads so is charged, and counts for `max_new_tokens`. It needs engine `ulm` on plain text."""

    history: int = Field(0, ge=0, le=64)
    """Number of its own last (action, feedback) pairs that an agent reads."""

    turns: Literal["parallel", "one_at_a_time"] = "parallel"
    """`parallel` lets all agents act in every tick; `one_at_a_time` lets one act per tick, in turn."""

    memory: Memories = Field(("stm",), validate_default=True)
    """What an agent keeps, as names or sections with their `kind` and settings: `stm`, the window, which ends with its
    prompt; `ltm`, the long-term memory of a model that was trained with one; `facts`, an exact memory of what the world
    vouches for. A package adds others by entry points in the group `ulm_swarm.memories`."""

    min_active: int | None = Field(None, ge=1)
    """From the second tick on, agents without a directive rest, unless fewer than this number would act; then others
    join in turn. null lets everybody act in every tick."""

    @property
    def lasting(self) -> list[str]:
        """The kinds of memory that are handed from episode to episode."""
        return [memory.kind for memory in self.memory if isinstance(memory, KeptSection) and memory.span == "run"]

    @model_validator(mode="after")
    def _engine_and_memory_fit(self) -> AgentsConfig:
        kinds = [memory.kind for memory in self.memory]
        if "stm" not in kinds or len(set(kinds)) != len(kinds):
            raise ValueError("`memory` must name `stm`, which every model has, and other kinds once")
        refuse_where(
            (
                self.inline and (not isinstance(self.engine, UlmEngine) or self.engine.chats),
                "inline answers need engine 'ulm' with a model that reads plain text; leave `inline` out",
            ),
            (self.inline and self.constrained, "`inline` answers cannot be kept to a pattern; set constrained: false"),
            (
                self.constrained and any(memory.inline for memory in self.memory),
                "a registry answers look-ups while an action is written, which cannot be kept to a pattern; set "
                "constrained: false",
            ),
        )
        if not isinstance(self.engine, ModelEngine):
            return self
        self.engine.refuse_short(self.max_new_tokens)
        for memory in self.memory:
            if not isinstance(self.engine, UlmEngine) and find_memory(memory.kind).Reader is not None:
                raise ValueError(f"memory {memory.kind} needs engine 'ulm'; leave it out for {self.engine.kind!r}")
            memory.refuse(self.engine.chats)
        return self


class TopologyConfig(Section):
    """Who reads whose reports."""

    kind: Literal["none", "star", "ring", "complete", "small_world", "file"] = "star"
    """With `none` nobody reads a report; with all others the coordinator reads every agent's. With `ring`, `complete`,
    `small_world` (Watts-Strogatz: a ring of four neighbours each, one link in ten moved) and `file`, neighbours read
    each other's latest too."""

    path: str | None = None
    """For `file`: an edge list of agent numbers from 0, one pair per line, relative to the YAML file."""

    @model_validator(mode="after")
    def _path_is_named(self) -> TopologyConfig:
        if (self.kind == "file") != (self.path is not None):
            raise ValueError("`path` belongs to topology kind 'file', and only to it")
        return self


class BudgetConfig(Section):
    """Limits of one episode; null is no limit. Everything that is used is charged, the coordinator's share included."""

    tokens: int | None = Field(None, ge=1)
    """Tokens read and written by all models, messages included."""

    calls: int | None = Field(None, ge=1)
    """Model calls."""

    actions: int | None = Field(None, ge=1)
    """World actions."""

    ticks: int | None = Field(200, ge=1)
    """World steps of all agents together."""

    wall_time_s: float | None = Field(None, gt=0)
    """Seconds of the whole run. A run that stops at this limit is marked, because it cannot be reproduced."""

    run_tokens: int | None = Field(None, ge=1)
    """Tokens of the whole run, learning included: a token that was trained on counts three."""

    @model_validator(mode="after")
    def _ends(self) -> BudgetConfig:
        if self.tokens is None and self.calls is None and self.actions is None and self.ticks is None:
            raise ValueError("a budget without tokens, calls, actions and ticks would never end; set one of them")
        return self


class FaultsConfig(Section):
    """What may go wrong before the run stops with an error."""

    max_faults: int = Field(20, ge=0)
    """Recorded faults of the run: a model or world that raises, hangs or returns garbage."""

    call_timeout_s: Annotated[float, PHYSICAL] = Field(60.0, gt=0)
    """Seconds after which a model call or an answer of the world is cut: a fault. An endpoint is then asked again."""

    patience_s: Annotated[float, PHYSICAL] = Field(600.0, ge=0)
    """Seconds for which an endpoint that does not answer, is busy or still loading is asked again before the run stops;
    it can be resumed then."""


class RuntimeConfig(Section):
    """Where and how the run is carried out; never part of what is compared."""

    pool: Literal["ray", "local"] = "ray"
    """`ray` computes in host processes; `local` in this one, for tests and small runs."""

    hosts: int = Field(2, ge=1, le=1024)
    """Host processes, each with a part of the agents."""

    agents_per_host: int | None = Field(None, ge=1)
    """Decides the number of hosts instead of `hosts`; null leaves it to that."""

    standby: int = Field(1, ge=0, le=16)
    """Spare hosts, with their models loaded, that replace one that dies."""

    durability: Literal["tick", "group"] = "tick"
    """`tick` has every tick on disk before the next. `group` writes every 50 ms: faster, and a power cut may lose so
    much, which resuming recomputes."""

    device: Device = "auto"
    """Where hosts compute: `cpu`, `cuda` or `mps` (Apple's GPU). `auto` takes a CUDA GPU where there is one, else the
    CPU."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of weights in hosts. `bfloat16` halves what a pretrained model reads per token; then a text may
    depend on how many others are decoded beside it, which in `float32` it does not."""

    compile: bool = False
    """Run decoding through torch.compile, which takes seconds at the start; not with a long-term memory."""

    threads_per_host: int | None = Field(None, ge=1)
    """CPU threads of each host; null shares the cores evenly."""

    address: RayAddress | None = None
    """Address of a Ray cluster: host:port, ray://host:port, or `auto` for the one that RAY_ADDRESS names or that was
    started on this machine. null starts a Ray of its own on this machine, whatever RAY_ADDRESS says."""


class CompareConfig(Section):
    """What `swarm compare` runs: arms over the same puzzles and seeds."""

    arms: list[str] = Field(default_factory=list)
    """Names of arms, rivals included; an empty list means all."""

    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(default_factory=lambda: [1, 2, 3], min_length=1)
    """Seeds of runs; every arm runs every seed."""

    episodes: int = Field(100, ge=1)
    """Episodes per arm and seed."""

    sweep: dict[str, Annotated[list[int | float | str], Field(min_length=2)]] = Field(
        default_factory=dict, max_length=1
    )
    """One setting by its dotted name, such as `world.options.depth: [1, 2]`: a comparison for each of its values."""

    rivals: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Arms of one's own: a name, then the settings that differ, by dotted name, such as `coordinator.kind: rules`."""


class ExperimentConfig(Section):
    """An experiment file, for `swarm run`, `swarm compare` and `swarm baseline`."""

    name: Name = "experiment"
    """Names the folder of the run, runs/NAME-sSEED."""

    seed: int = Field(0, ge=0, lt=2**63)
    """All randomness of the run is derived from it."""

    episodes: int = Field(1, ge=1)
    """Episodes of the run, each a new puzzle."""

    concurrency: int | None = Field(None, ge=1, le=4096)
    """Episodes in flight at once. They share batches, not results. null is 1 in a run and 50 in a comparison."""

    world: WorldConfig
    """What the agents act in."""

    agents: AgentsConfig
    """Who acts."""

    topology: TopologyConfig = TopologyConfig()
    """Who reads whose reports."""

    coordinator: CoordinatorConfig = CoordinatorConfig()
    """Who reads reports and directs agents."""

    budget: BudgetConfig = BudgetConfig()
    """What an episode may use."""

    learning: LearningConfig | None = None
    """How agents learn between rounds of episodes; null for agents that do not. It needs `delta` in `agents.memory`."""

    faults: FaultsConfig = FaultsConfig()
    """How much may go wrong."""

    runtime: Annotated[RuntimeConfig, PHYSICAL] = RuntimeConfig()
    """Where it is computed."""

    keep_thoughts: bool = False
    """Put into the journal what models that think write beside their answers. It is charged either way."""

    compare: Annotated[CompareConfig | None, PHYSICAL] = None
    """What `swarm compare` compares."""

    @property
    def at_once(self) -> int:
        """Episodes in flight at once in a run."""
        return self.concurrency or 1

    @property
    def all_episodes(self) -> int:
        """Episodes of the run, those of an exam after its last round included."""
        exam = self.learning.exam if self.learning else None
        return self.episodes + (exam.episodes if exam else 0)

    @property
    def num_rounds(self) -> int:
        """Rounds of episodes that end with a learning step."""
        return -(-self.episodes // self.learning.every) if self.learning else 0

    def round_end(self, number: int) -> int:
        """Return the first episode after a round; the last round is followed by the exam."""
        if self.learning is None or number >= self.num_rounds:
            return self.all_episodes
        return min(self.episodes, (number + 1) * self.learning.every)

    def puzzle_of(self, episode: int) -> int:
        """Return the number of an episode's puzzle: those of a group share one; an exam counts from 0 again."""
        if episode >= self.episodes:
            return episode - self.episodes
        return episode // self.learning.group if self.learning else episode

    def of_episode(self, episode: int) -> ExperimentConfig:
        """Return the settings of an episode: in an exam world and budget may differ."""
        if self.learning is None or self.learning.exam is None or episode < self.episodes:
            return self
        return self._exam

    @property
    def _exam(self) -> ExperimentConfig:
        exam = self.learning.exam if self.learning else None
        if exam is None:
            raise AssertionError
        world = self.world.model_copy(update={"options": {**self.world.options, **exam.options}})
        budget = BudgetConfig(**{**self.budget.model_dump(), **exam.budget})
        return self.model_copy(update={"world": world, "budget": budget})

    @property
    def num_hosts(self) -> int:
        """Host processes on Ray, beside those on standby."""
        agents, each = self.agents.count * self.at_once, self.runtime.agents_per_host
        return -(-agents // each) if each else min(self.runtime.hosts, agents)

    @model_validator(mode="after")
    def _can_learn(self) -> ExperimentConfig:
        kinds = [memory.kind for memory in self.agents.memory]
        if self.learning is not None:
            refuse_where(
                ("delta" not in kinds, "learning changes each agent's delta; set agents.memory: [stm, delta]"),
                (
                    not isinstance(self.agents.engine, UlmEngine),
                    f"agents on engine {self.agents.engine.kind!r} cannot learn; take a model with engine.kind: ulm",
                ),
            )
            if self.learning.exam is not None:
                self._exam  # noqa: B018 - refuses a bad budget
        return self

    @model_validator(mode="after")
    def _inline_is_imported(self) -> ExperimentConfig:
        if self.agents.inline and self.world.contained:
            raise ValueError("hosts import what answers inline, so that world is not contained; leave one of them out")
        return self

    @model_validator(mode="after")
    def _episodes_can_share_memory(self) -> ExperimentConfig:
        if self.agents.lasting and self.at_once > 1:
            raise ValueError(
                f"{self.agents.lasting[0]} with span 'run' is handed from episode to episode; set concurrency: 1"
            )
        return self


def recorded_experiment(settings: Mapping[str, Any]) -> ExperimentConfig:
    """Return the experiment that a journal's header tells; settings that are not in it are the defaults.

    Args:
        settings: logical ones. An endpoint's address, which has no default, is left open.

    Raises:
        ValidationError: they are none of this version.
    """
    data = dict(settings)
    for whose in ("agents", "coordinator"):
        section = data.get(whose)
        engine = section.get("engine") if isinstance(section, Mapping) else None
        if isinstance(section, Mapping) and isinstance(engine, Mapping) and engine.get("kind") == "openai":
            data[whose] = {**section, "engine": {"url": "http://not-on-record", **engine}}
    return ExperimentConfig.model_validate(data)
