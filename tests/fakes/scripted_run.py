"""Runs that are played by the real runtime, while models, and where a script asks for it the world, are stand-ins.

`play` is the one way in: whatever a test reads in the run folder was written by the code that writes it in earnest.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

from swarm.agents.models import LoadedModels
from swarm.config.engine import ModelEngine, RandomEngine
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.messages import ActReply, ActRequest, DirectReply, DirectRequest, Pool
from swarm.run import runner
from swarm.run.runner import start_run
from worlds.protocol import Info, StepResult, World, WorldOptions

PROMPT, GENERATED = 20, 10
COORDINATOR_READS, COORDINATOR_WRITES = 15, 5


class KilledError(BaseException):
    """Stands for SIGKILL: nothing of the run is tidied up."""


class Clock:
    """The time of a run, which goes on when the pool says so."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def time(self) -> float:
        return self.now_s

    monotonic = time


class ScriptedPool:
    """Answers every call alike; tests override what they script. Facts for telemetry go to `emit`."""

    def __init__(self, texts: Mapping[str, str] | None = None) -> None:
        self.say = dict(texts or {})
        self.clock = Clock()
        self.emit: Callable[..., None] = lambda kind, **facts: None

    def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
        self.clock.now_s += 0.25
        return [self.answer(request) for request in requests]

    def answer(self, request: ActRequest) -> ActReply:
        return ActReply(request.key, self.say.get("action", "3+7+11"), PROMPT, GENERATED)

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        text = self.say.get("directive", "100+[45]")
        return [
            DirectReply(r.key, dict.fromkeys(r.agents, text), COORDINATOR_READS, COORDINATOR_WRITES, 1)
            for r in requests
        ]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [GENERATED for _ in texts]

    def count_prompts(self, texts: Sequence[str]) -> list[int]:
        return [PROMPT for _ in texts]

    def close(self) -> None:
        pass


@contextmanager
def standing_in(pool: ScriptedPool, weights: str = "w1", world: Callable[..., World] | None = None) -> Iterator[None]:
    """Have the runner use these instead of models and world, for the `with` block."""

    def load(config: ExperimentConfig, base_dir: Path) -> LoadedModels:
        engines = (config.agents.engine, config.coordinator.engine)
        models = [engine.model for engine in engines if isinstance(engine, ModelEngine | RandomEngine) and engine.model]
        if "policies/gone" in models:
            raise SwarmError("no checkpoint at policies/gone")
        return LoadedModels(hashes={model: f"{weights}-{model}" for model in models})

    def make_pool(config: Any, base_dir: Any, models: Any, telemetry: Any, kept: Any) -> Pool:
        pool.emit = telemetry.emit
        return pool

    clock = SimpleNamespace(time=pool.clock.time, monotonic=pool.clock.monotonic)
    with (
        mock.patch.multiple(runner, load_models=load, _make_pool=make_pool),
        mock.patch.object(runner, "world_of", world or runner.world_of),
        mock.patch("swarm.record.telemetry.time", clock),
        mock.patch("swarm.run.tick_loop.time", clock),
        mock.patch("swarm.record.journal._sync_data"),
    ):
        yield


def play(run_dir: Path, config: ExperimentConfig, pool: ScriptedPool, **standins: Any) -> None:
    """Play a run into `run_dir`, or go on with the one that is there; a pool may end it by `KilledError`."""
    with standing_in(pool, **standins):
        try:
            start_run(config, run_dir.parent / "experiment.yaml", run_dir)
        except KilledError:
            return


def cut(run_dir: Path, puzzles: int) -> None:
    """Leave of a journal what a kill after so many ended puzzles leaves."""
    path, kept, ended = run_dir / "journal.jsonl", [], 0
    for line in path.read_bytes().splitlines(keepends=True):
        kind = json.loads(line)["kind"]
        if kind == "end" or (ended == puzzles and kind not in ("header", "episode")):
            break
        kept.append(line)
        ended += kind == "episode_end"
    path.write_bytes(b"".join(kept))


class Script(NamedTuple):
    """How the puzzles of a run go.

    Attributes:
        solved_at: (seed, episode) -> tokens by which the puzzle is solved; None for never.
        puzzle: (seed, episode) -> the puzzle's tiles; equal tiles are equal puzzles.
        stop_after: end after so many puzzles, as a killed run would.
        texts: what agents, coordinator and world say, for escaping tests.
        give_up_at: share of the budget at which unsolved puzzles end, by truncation if `truncates`.
        fault_at: the episode in which the first call fails. broken: every call fails.
    """

    solved_at: Callable[[int, int], float | None]
    puzzle: Callable[[int, int], object] = lambda seed, episode: [seed, episode]
    stop_after: int | None = None
    texts: Mapping[str, str] = {}
    give_up_at: float = 1.0
    truncates: bool = False
    fault_at: int | None = None
    broken: bool = False


def experiment(**changes: Any) -> ExperimentConfig:
    """Return a small split-numbers experiment."""
    data: dict[str, Any] = {
        "name": "demo",
        "episodes": 20,
        "world": {"id": "split-numbers-v0"},
        "agents": {"count": 8, "engine": {"kind": "ulm", "model": "policies/agent"}},
        "coordinator": {"kind": "model", "engine": {"kind": "ulm", "model": "policies/coordinator"}},
        "budget": {"tokens": 6000},
        "runtime": {"durability": "group"},
        "compare": {"seeds": [1, 2, 3], "episodes": 20},
    }
    return ExperimentConfig.model_validate({**data, **changes})


def chance(rate: float, mean_tokens: float = 1500.0, salt: str = "") -> Callable[[int, int], float | None]:
    """Return a `solved_at` that solves about `rate` of the puzzles, the easy ones alike for every rate."""

    def solved_at(seed: int, episode: int) -> float | None:
        luck = random.Random(f"{seed}/{episode}/{salt}")
        hardness = luck.random()
        return min(5500.0, 200 + luck.expovariate(1 / mean_tokens)) if hardness < rate else None

    return solved_at


class ScriptedWorld(World):
    """Is solved, or cut off, at the tick that the script says, whatever agents do."""

    def __init__(self, config: ExperimentConfig, script: Script) -> None:
        super().__init__(config.agents.count, WorldOptions())
        self.config, self.script = config, script
        self.id = config.world.id  # type: ignore[misc]

    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> tuple[dict[str, str], dict[str, Info]]:
        self.episode = int((options or {})["episode"])
        self.tiles = self.script.puzzle(self.config.seed, self.episode)
        self.ticks, self.solved = 0, False
        self.agents = list(self.possible_agents)
        solved_at = self.script.solved_at(self.config.seed, self.episode)
        given_up = (self.config.budget.tokens or 0) * self.script.give_up_at if self.script.truncates else None
        self.last = _ticks_for(self.config, solved_at), _ticks_for(self.config, given_up)
        return dict.fromkeys(self.agents, self.script.texts.get("observation", f"half {self.tiles}")), {}

    def step(self, actions: Mapping[str, str]) -> StepResult:
        self.ticks += 1
        self.solved = bool(actions) and self.ticks == self.last[0]
        feedback = self.script.texts.get("feedback", "= 21")
        live = list(self.agents)
        return StepResult(
            {},
            dict.fromkeys(live, float(self.solved)),
            dict.fromkeys(live, self.solved),
            dict.fromkeys(live, self.ticks == self.last[1]),
            {agent: Info(feedback=feedback, valid=True) for agent in actions},
        )

    def state(self) -> dict[str, Any]:
        return {"tiles": self.tiles, "ticks": self.ticks}

    def goal(self) -> str:
        return self.script.texts.get("goal", f"target {100 + self.episode}")

    def tools(self) -> list[dict[str, Any]]:
        return []

    def render(self) -> str:
        return str(self.tiles)

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        return "1+1"


def _ticks_for(config: ExperimentConfig, tokens: float | None) -> int | None:
    """Return how many ticks use so many tokens."""
    if tokens is None:
        return None
    in_turn = config.agents.turns == "one_at_a_time"
    cycle = config.coordinator.every_ticks * (config.agents.count if in_turn else 1)
    directs = config.coordinator.traits.directs and config.topology.kind != "none"
    spent, ticks = 0, 0
    while spent < tokens:
        if directs and ticks % cycle == 0:
            spent += COORDINATOR_READS + COORDINATOR_WRITES
        spent += (PROMPT + GENERATED) * (1 if in_turn else config.agents.count)
        ticks += 1
    return ticks


class _FaultyPool(ScriptedPool):
    def __init__(self, script: Script) -> None:
        super().__init__(script.texts)
        self.script = script

    def answer(self, request: ActRequest) -> ActReply:
        if self.script.broken or request.key == (self.script.fault_at, 0, "a0"):
            fault = self.say.get("fault", "timeout after 60 s")
            return ActReply(request.key, "", PROMPT, GENERATED, fault)
        return super().answer(request)


def write_run(run_dir: Path, config: ExperimentConfig, script: Script, weights: str = "w1") -> None:
    """Play a run by a script, or go on with the one that is there."""
    if not script.truncates and script.give_up_at != 1.0:
        tokens = round((config.budget.tokens or 0) * script.give_up_at)
        config = config.model_copy(update={"budget": config.budget.model_copy(update={"tokens": tokens})})

    def world(*_: Any) -> World:
        return ScriptedWorld(config, script)

    play(run_dir, config, _FaultyPool(script), weights=weights, world=world)
    if script.stop_after is not None:
        cut(run_dir, script.stop_after)
