"""The experiment: what a YAML file may say, with types, ranges and defaults.

Owns the schema and its two halves. The *logical* half (world, agents, topology, coordinator, budget, seed, episodes)
decides what happens and is hashed into the journal. The *physical* half (`runtime`) says where it runs and may never
alter a result. What engines of models may be told is in `swarm.config.backend`. It refuses to read files
(`swarm.config.load`) and to start anything.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from swarm.config.backend import MODEL_KINDS, WHAT_MODEL, BackendConfig, ModelKind
from swarm.config.section import Section

__all__ = [
    "AgentsConfig",
    "BudgetConfig",
    "CompareConfig",
    "CoordinatorConfig",
    "EngramSection",
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


class EngramSection(Section):
    """The exact memory of agents that have one.

    Attributes:
        shared: whether all agents write to one memory and read it in the next tick, or each has its own.
        control: null controls: `shuffled` gives each key another key's action, `capacity_1` keeps the last fact alone.
    """

    shared: bool = True
    control: Literal["none", "shuffled", "capacity_1"] = "none"


class AgentsConfig(Section):
    """The searchers.

    Attributes:
        count: number of agents.
        policy: the engine that the model runs on: `ulm` (our own), `transformers`, `vllm`, or `openai` (any endpoint
            that speaks its protocol); `random` draws legal actions from the world (the null control); `echo` answers
            with its own prompt (for measuring the machinery).
        model: checkpoint folder, relative to the YAML file; or `smollm2-135m`, or a folder or GGUF file as transformers
            has them (of a Llama for `ulm`); for `transformers` and `vllm` also a name of the hub; for `openai` what the
            endpoint calls it. `random` counts tokens as the model would.
        backend: settings of the engine.
        temperature, top_p: sampling; temperature 0 is greedy.
        max_new_tokens: hard limit of one action.
        constrained: force actions into the world's action pattern where it has one.
        history: how many of its own last (action, feedback) pairs an agent reads.
        worker: `parallel` lets all agents act in every tick; `time_slice` lets one worker play them in turn, one
            call per tick.
        max_retries: after this many illegal actions in a row an agent rests for one tick.
        memory: what an agent remembers with: `stm`, the window, which ends with its prompt; `ltm`, the long-term
            memory of a model that was trained with one; `engram`, an exact memory of the facts that the world vouches
            for, for any model.
        memory_span: how long `ltm` and `engram` last: an `episode`, or the whole `run`.
        engram: settings of the exact memory.
        awake: after the first tick, agents without a directive rest, but for as many in turn as it takes for this many
            to act; None lets everybody act in every tick.
    """

    count: int = Field(8, ge=1, le=100_000)
    policy: Literal["ulm", "transformers", "vllm", "openai", "random", "echo"] = "ulm"
    model: str | None = None
    backend: BackendConfig = BackendConfig()
    temperature: float = Field(0.7, ge=0.0, le=5.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    max_new_tokens: int = Field(32, ge=1, le=4096)
    constrained: bool = False
    history: int = Field(0, ge=0, le=64)
    worker: Literal["parallel", "time_slice"] = "parallel"
    max_retries: int = Field(3, ge=1)
    memory: tuple[Literal["stm", "ltm", "engram"], ...] = ("stm",)
    memory_span: Literal["episode", "run"] = "episode"
    engram: EngramSection = EngramSection()
    awake: int | None = Field(None, ge=1)

    @property
    def has_ltm(self) -> bool:
        """Whether agents carry a long-term memory from call to call."""
        return "ltm" in self.memory

    @property
    def has_engram(self) -> bool:
        """Whether agents have an exact memory of facts."""
        return "engram" in self.memory

    @property
    def engine(self) -> ModelKind | None:
        """What the agents' model runs on; None for agents without one."""
        return None if self.policy in ("random", "echo") else self.policy  # type: ignore[return-value]

    @property
    def chats(self) -> bool:
        """Whether agents are asked in their model's chat format."""
        return self.backend.chats(self.engine)

    @model_validator(mode="after")
    def _model_is_named(self) -> AgentsConfig:
        if self.engine and not self.model:
            raise ValueError(f"policy {self.policy!r} needs `model`: {WHAT_MODEL[self.engine]}")
        if self.engine:
            self.backend.refuse_unused(self.engine, "agents")
            self.backend.refuse_short(self.max_new_tokens, "agents")
        elif self.policy == "echo" and self.backend != BackendConfig():
            raise ValueError("`backend` has settings for a model, and policy 'echo' has none; leave it out")
        if self.engine == "ulm" and self.chats and self.has_engram:
            raise ValueError("an exact memory continues plain prompts; set backend.prompt: plain, or leave engram out")
        if self.engine not in ("ulm", None) and (self.has_ltm or self.has_engram):
            raise ValueError(f"memories are those of policy 'ulm'; set memory: [stm] for {self.policy!r}")
        return self

    @model_validator(mode="after")
    def _memory_fits(self) -> AgentsConfig:
        if "stm" not in self.memory or len(set(self.memory)) != len(self.memory):
            raise ValueError("`memory` must name `stm`, which every model has, and other kinds once")
        if self.memory_span == "run" and self.memory == ("stm",):
            raise ValueError("`memory_span` is that of the long-term memory; add ltm or engram to `memory`")
        if self.engram != EngramSection() and not self.has_engram:
            raise ValueError("`engram` has settings, but `memory` does not name it; add engram to `memory`")
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


class CoordinatorConfig(Section):
    """The mind that reads reports and steers.

    `none` directs nobody, `rules` uses the world's hand-written rules. `ulm`, `transformers`, `vllm` and `openai` are
    the engine of a model, as in `agents.policy`. `shuffled` gives every agent the directive that `inner` meant for
    another (the null control). `human` is a person at the terminal of the run, who needs no playbook and can direct
    without a topology, too, hearing nobody then.

    Attributes:
        model, backend: as in `agents`.
        inner: what `shuffled` shuffles; None means the µLM, or the rules without `model`.
        every: ticks from one time that it is asked to the next.
        digest_tokens: tokens that a model in a chat reads at most; older reports are left out.
        menu: directives that one briefing of a model lists at most, in worlds whose playbook lists them; None takes the
            playbook's own number.
        answers: what a model that was trained on briefings does with a menu: `picks` lists what it chooses, `marks`
            goes through it and marks each entry with + or -, kept to that form by the engine.
        offer_again: whether such a model is offered again what it declined: for one that is often wrong.
    """

    kind: Literal["none", "rules", "ulm", "transformers", "vllm", "openai", "shuffled", "human"] = "none"
    model: str | None = None
    backend: BackendConfig = BackendConfig()
    inner: Literal["rules", "ulm", "transformers", "vllm", "openai"] | None = None
    digest_tokens: int = Field(768, ge=64)
    menu: int | None = Field(None, ge=1, le=100)
    answers: Literal["picks", "marks"] = "picks"
    offer_again: bool = False
    every: int = Field(1, ge=1)
    temperature: float = Field(0.7, ge=0.0, le=5.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    max_new_tokens: int = Field(64, ge=1, le=4096)

    @property
    def mind(self) -> str:
        """What thinks, shuffled or not: `none`, `rules`, `human`, or an engine."""
        if self.kind != "shuffled":
            return self.kind
        return self.inner or ("ulm" if self.model else "rules")

    @property
    def engine(self) -> ModelKind | None:
        """What its model runs on; None without one."""
        return self.mind if self.mind in MODEL_KINDS else None  # type: ignore[return-value]

    @property
    def chats(self) -> bool:
        """Whether its model is asked in its chat format."""
        return self.backend.chats(self.engine)

    @property
    def reads_hints(self) -> bool:
        """Whether it understands what a person says to it: people do, and models that are told all in words."""
        return self.mind == "human" or (self.engine is not None and self.chats)

    @model_validator(mode="after")
    def _model_is_named(self) -> CoordinatorConfig:
        if self.inner is not None and self.kind != "shuffled":
            raise ValueError("`inner` belongs to coordinator 'shuffled', and only to it")
        for name, is_set in (("answers", self.answers != "picks"), ("offer_again", self.offer_again)):
            if is_set and (self.engine is None or self.chats):
                raise ValueError(f"`{name}` is for models trained on briefings (backend.prompt: plain); leave it out")
        if self.engine:
            if not self.model:
                raise ValueError(f"coordinator {self.mind!r} needs `model`: {WHAT_MODEL[self.engine]}")
            self.backend.refuse_unused(self.engine, "coordinator")
            self.backend.refuse_short(self.max_new_tokens, "coordinator")
        elif self.menu is not None and self.kind != "human":
            raise ValueError(f"`menu` is for models and people, and coordinator {self.kind!r} needs none; leave it out")
        elif self.backend != BackendConfig():
            raise ValueError(
                f"`backend` has settings for a model, and coordinator {self.kind!r} has none; leave it out"
            )
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
    call_timeout_s: float = Field(60.0, gt=0)
    max_host_deaths: int = Field(20, ge=0)


class RuntimeConfig(Section):
    """Where and how the run is carried out; never part of what is compared.

    Attributes:
        pool: `ray` or `local` (this process, for tests and debugging).
        hosts: agent host actors; agents_per_host, when set, decides the number of hosts instead.
        standby: spare host actors that are loaded and take over when a host dies.
        calls: `channels` sends calls to hosts over Ray's compiled graphs (shared memory, one more small process per
            host, a third of the time of a task), but a host that waits on one keeps a core busy; `tasks` are ordinary
            actor calls, with the same results. None takes tasks where a large model, another process or a
            person is waited for, channels otherwise. A host that takes another's place gets tasks.
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
    calls: Literal["channels", "tasks"] | None = None
    durability: Literal["tick", "group"] = "tick"
    group_ms: int = Field(50, ge=1, le=10_000)
    device: str = "auto"
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
    runtime: RuntimeConfig = RuntimeConfig()
    compare: CompareConfig | None = None

    def logical(self) -> dict[str, Any]:
        """Return the part that decides results, as JSON-able data; the journal's header hashes it."""
        data = self.model_dump(mode="json", exclude={"runtime", "compare"})
        data["faults"] = {"max_faults": self.faults.max_faults}
        # A run without a memory keeps the header that it had before there was one.
        if not self.agents.has_engram:
            del data["agents"]["engram"]
        if not self.agents.has_ltm and not self.agents.has_engram:
            del data["agents"]["memory"], data["agents"]["memory_span"]
        # As does one whose models run on our own engine, as all did once.
        for name, section in (("agents", self.agents), ("coordinator", self.coordinator)):
            data[name]["backend"] = section.backend.logical()
            if section.backend.logical() == BackendConfig().logical():
                del data[name]["backend"]
        if self.coordinator.inner is None:
            del data["coordinator"]["inner"]
        if not self.coordinator.chats:
            del data["coordinator"]["digest_tokens"]
        if self.coordinator.menu is None:
            del data["coordinator"]["menu"]
        if self.coordinator.answers == "picks":
            del data["coordinator"]["answers"]
        if not self.coordinator.offer_again:
            del data["coordinator"]["offer_again"]
        return data

    @model_validator(mode="after")
    def _requests_end_before_their_call(self) -> ExperimentConfig:
        for where, section in (("agents", self.agents), ("coordinator", self.coordinator)):
            if section.engine == "openai":
                section.backend.refuse_late(self.faults.call_timeout_s, where)
        return self

    @model_validator(mode="after")
    def _episodes_can_share_memory(self) -> ExperimentConfig:
        if self.agents.memory_span == "run" and self.concurrency > 1:
            raise ValueError("memory_span 'run' hands memories from episode to episode; set concurrency: 1")
        return self
