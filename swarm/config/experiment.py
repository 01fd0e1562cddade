"""The experiment: what a YAML file may say, with types, ranges and defaults.

Owns the schema and its two halves. The *logical* half (world, agents, topology, coordinator, budget, seed, episodes)
decides what happens and stands in the journal. The *physical* half (`runtime`, and what is marked PHYSICAL) says where
it runs and may never alter a result. Engines are in `swarm.config.engine`, coordinators in `swarm.config.coordinator`;
files are read in `swarm.config.load`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from swarm.config.coordinator import CoordinatorConfig
from swarm.config.engine import AgentEngine, ModelEngine, OpenAIEngine, UlmEngine
from swarm.config.memory import KeptSection, Memories, find_memory
from swarm.config.section import PHYSICAL, Section
from swarm.config.training import Device

__all__ = [
    "AgentsConfig",
    "BudgetConfig",
    "CompareConfig",
    "CoordinatorConfig",
    "ExperimentConfig",
    "FaultsConfig",
    "RuntimeConfig",
    "SweepConfig",
    "TopologyConfig",
    "WorldConfig",
]


class WorldConfig(Section):
    """Which world, and its own options (validated by the world)."""

    id: str
    options: dict[str, Any] = Field(default_factory=dict)


class AgentsConfig(Section):
    """The agents that search for the goal."""

    count: int = Field(8, ge=1, le=100_000)
    """Number of agents."""

    engine: AgentEngine
    """What the agents run on: a language model, or one of the controls `random` and `echo`."""

    temperature: float = Field(0.7, ge=0.0, le=5.0)
    """Sampling temperature; 0 is greedy."""

    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Sample from the most likely tokens that have this probability together."""

    max_new_tokens: int = Field(32, ge=1, le=4096)
    """Hard limit of one action."""

    constrained: bool = False
    """Force actions into the world's action pattern, where it has one."""

    history: int = Field(0, ge=0, le=64)
    """Number of its own last (action, feedback) pairs that an agent reads."""

    turns: Literal["parallel", "one_at_a_time"] = "parallel"
    """`parallel` lets all agents act in every tick; `one_at_a_time` lets one act per tick, in turn."""

    max_retries: int = Field(3, ge=1)
    """Illegal actions in a row after which an agent rests for one tick."""

    memory: Memories = Field(("stm",), validate_default=True)
    """What an agent keeps, as names or sections with their `kind` and settings: `stm`, the window, which ends with its
    prompt; `ltm`, the long-term memory of a model that was trained with one; `facts`, an exact memory of what the world
    vouches for. A package adds others by entry points in the group `ulm_swarm.memories`."""

    min_active: int | None = Field(None, ge=1)
    """After the first tick, agents without a directive rest, except as many, in turn, as this number of active agents
    takes; null lets everybody act in every tick."""

    @model_validator(mode="after")
    def _engine_and_memory_fit(self) -> AgentsConfig:
        kinds = [memory.kind for memory in self.memory]
        if "stm" not in kinds or len(set(kinds)) != len(kinds):
            raise ValueError("`memory` must name `stm`, which every model has, and other kinds once")
        if not isinstance(self.engine, ModelEngine):
            return self
        self.engine.refuse_short(self.max_new_tokens)
        for memory in self.memory:
            if not isinstance(self.engine, UlmEngine) and find_memory(memory.kind).Reader is not None:
                raise ValueError(f"memory {memory.kind} needs engine 'ulm'; leave it out for {self.engine.kind!r}")
            memory.refuse(self.engine.chats)
        return self


class TopologyConfig(Section):
    """Who hears whom. The coordinator hears every agent unless `kind` is `none`.

    `star`: agents talk to the coordinator only. `ring`, `complete`, `small_world`, `file`: neighbours also read each
    other's latest report (`file` is an edge list of agent indices, one pair per line). `none`: nobody hears anybody.
    """

    kind: Literal["none", "star", "ring", "complete", "small_world", "file"] = "star"
    path: str | None = None
    neighbours: int = Field(4, ge=2)
    rewire: float = Field(0.1, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _path_is_named(self) -> TopologyConfig:
        if (self.kind == "file") != (self.path is not None):
            raise ValueError("`path` belongs to topology kind 'file', and only to it")
        return self


class BudgetConfig(Section):
    """Limits of one episode (one puzzle); None means unlimited. Everything used is charged, coordinator included.

    Attributes:
        tokens: prompt, generated, messages and the coordinator's own.
        calls: model calls. actions: world actions. ticks: rounds.
        wall_time_s: seconds for the whole run. A run that stops on it is marked, for it cannot be reproduced.
    """

    tokens: int | None = Field(None, ge=1)
    calls: int | None = Field(None, ge=1)
    actions: int | None = Field(None, ge=1)
    ticks: int | None = Field(200, ge=1)
    wall_time_s: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _ends(self) -> BudgetConfig:
        if self.tokens is None and self.calls is None and self.actions is None and self.ticks is None:
            raise ValueError("a budget without tokens, calls, actions and ticks would never end; set one of them")
        return self


class FaultsConfig(Section):
    """How much may go wrong before the run stops with an error.

    Attributes:
        max_faults: recorded faults (a model or world that raises, hangs or returns garbage) per run.
        call_timeout_s: a model call that takes longer is cut and recorded as a fault.
        max_host_deaths: how often a dead host is replaced before the run gives up.
    """

    max_faults: int = Field(20, ge=0)
    call_timeout_s: Annotated[float, PHYSICAL] = Field(60.0, gt=0)
    max_host_deaths: Annotated[int, PHYSICAL] = Field(20, ge=0)


class RuntimeConfig(Section):
    """Where and how the run is carried out; never part of what is compared.

    Attributes:
        pool: `ray` or `local` (this process, for tests and debugging).
        hosts: agent host actors; agents_per_host, when set, decides the number of hosts instead.
        standby: spare host actors that are loaded and take over when a host dies.
        durability: `tick` makes every tick durable (fsync); `group` flushes at most every `group_ms`, so a power cut
            may lose that much, which a deterministic run recomputes on resume.
        device, dtype, compile: torch settings of the hosts. bfloat16 halves what a pretrained model of `ulm` reads per
            token; what a text says may then depend on how many are decoded beside it, in float32 it does not.
        address: address of a Ray cluster; None starts a local one.
    """

    pool: Literal["ray", "local"] = "ray"
    hosts: int = Field(2, ge=1, le=1024)
    agents_per_host: int | None = Field(None, ge=1)
    standby: int = Field(1, ge=0, le=16)
    durability: Literal["tick", "group"] = "tick"
    group_ms: int = Field(50, ge=1, le=10_000)
    device: Device = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    threads_per_host: int | None = Field(None, ge=1)
    address: str | None = None


class SweepConfig(Section):
    """One setting that a comparison goes through, a comparison for each of its values.

    Attributes:
        key: dotted, such as `world.options.depth`.
        values: in the order of the plot.
    """

    key: str
    values: list[int | float | str] = Field(min_length=2)


class CompareConfig(Section):
    """What `swarm compare` runs: arms over the same puzzles and seeds.

    Attributes:
        arms: names from `swarm.compare.arms.ARMS`; empty means all.
        seeds: run seeds; every arm runs every seed.
        episodes: puzzles per seed.
        concurrency: episodes in flight at once; they share batches, not results.
        bootstrap: resamples of the paired bootstrap.
        sweep: do all of it for each value of one setting.
        rivals: arms of one's own: name -> the settings that differ, by dotted key, such as `coordinator.kind: rules`.
    """

    arms: list[str] = Field(default_factory=list)
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(default_factory=lambda: [1, 2, 3], min_length=1)
    episodes: int = Field(100, ge=1)
    concurrency: int = Field(50, ge=1, le=4096)
    bootstrap: int = Field(10_000, ge=100)
    sweep: SweepConfig | None = None
    rivals: dict[str, dict[str, Any]] = Field(default_factory=dict)


class ExperimentConfig(Section):
    """One experiment file.

    Attributes:
        episodes: puzzles in the run. concurrency: episodes in flight at once (they share batches, not results).
    """

    name: str = Field("experiment", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, lt=2**63)
    episodes: int = Field(1, ge=1)
    concurrency: int = Field(1, ge=1, le=4096)
    world: WorldConfig
    agents: AgentsConfig
    topology: TopologyConfig = TopologyConfig()
    coordinator: CoordinatorConfig = CoordinatorConfig()
    budget: BudgetConfig = BudgetConfig()
    faults: FaultsConfig = FaultsConfig()
    runtime: Annotated[RuntimeConfig, PHYSICAL] = RuntimeConfig()
    compare: Annotated[CompareConfig | None, PHYSICAL] = None

    @model_validator(mode="after")
    def _requests_end_before_their_call(self) -> ExperimentConfig:
        for where, section in (("agents", self.agents), ("coordinator", self.coordinator)):
            if isinstance(section.engine, OpenAIEngine):
                section.engine.refuse_late(self.faults.call_timeout_s, where)
        return self

    @model_validator(mode="after")
    def _episodes_can_share_memory(self) -> ExperimentConfig:
        lasting = [m.kind for m in self.agents.memory if isinstance(m, KeptSection) and m.span == "run"]
        if lasting and self.concurrency > 1:
            raise ValueError(f"{lasting[0]} with span 'run' is handed from episode to episode; set concurrency: 1")
        return self
