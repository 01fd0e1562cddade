"""Writes run folders that look like real ones, without running anything, for tests of reports."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from swarm.config.engine import ModelEngine, RandomEngine
from swarm.config.experiment import ExperimentConfig
from swarm.record.journal import JournalWriter, state_hash
from swarm.record.telemetry import TelemetryWriter
from swarm.seeds import derive_seed

PROMPT, GENERATED = 20, 10
COORDINATOR_READS, COORDINATOR_WRITES = 15, 5


class Script(NamedTuple):
    """How the puzzles of a synthetic run go.

    Attributes:
        solved_at: (seed, episode) -> tokens at which the puzzle is solved; None for never.
        puzzle: (seed, episode) -> the puzzle's tiles; equal tiles are equal puzzles.
        stop_after: write no more than so many puzzles and no `end`, as a killed run would.
        end_reason: of the `end` record.
        texts: what agents write, for escaping tests.
        give_up_at: share of the budget at which unsolved puzzles end.
        end_by: reason of unsolved puzzles.
    """

    solved_at: Callable[[int, int], float | None]
    puzzle: Callable[[int, int], object] = lambda seed, episode: [seed, episode]
    stop_after: int | None = None
    end_reason: str = "finished"
    texts: Mapping[str, str] = {}
    give_up_at: float = 1.0
    end_by: str = "budget: tokens"
    fault_at: int | None = None


def experiment(**changes: Any) -> ExperimentConfig:
    """Return a small split-numbers experiment."""
    data: dict[str, Any] = {
        "name": "demo",
        "episodes": 20,
        "world": {"id": "split-numbers-v0"},
        "agents": {"count": 8, "engine": {"kind": "ulm", "model": "policies/agent"}},
        "coordinator": {"kind": "model", "engine": {"kind": "ulm", "model": "policies/coordinator"}},
        "budget": {"tokens": 6000},
        "compare": {"seeds": [1, 2, 3], "episodes": 20, "bootstrap": 400},
    }
    return ExperimentConfig.model_validate({**data, **changes})


def chance(rate: float, mean_tokens: float = 1500.0, salt: str = "") -> Callable[[int, int], float | None]:
    """Return a `solved_at` that solves about `rate` of the puzzles, the easy ones alike for every rate."""

    def solved_at(seed: int, episode: int) -> float | None:
        luck = random.Random(f"{seed}/{episode}/{salt}")
        hardness = luck.random()
        return min(5900.0, 200 + luck.expovariate(1 / mean_tokens)) if hardness < rate else None

    return solved_at


def write_run(run_dir: Path, config: ExperimentConfig, script: Script, weights: str = "w1") -> None:
    """Write journal and telemetry of one run."""
    run_dir.mkdir(parents=True, exist_ok=True)
    engines = (config.agents.engine, config.coordinator.engine)
    models = [engine.model for engine in engines if isinstance(engine, ModelEngine | RandomEngine)]
    header = {
        "format": 1,
        "config": config.logical(),
        "checkpoints": {model: f"{weights}-{model}" for model in models if model},
    }
    totals = {"solved": 0, "tokens": 0}
    with (
        JournalWriter(run_dir / "journal.jsonl", "group") as journal,
        TelemetryWriter(run_dir / "telemetry.jsonl") as telemetry,
    ):
        telemetry.emit("start")
        journal.append("header", header)
        episodes = config.episodes if script.stop_after is None else script.stop_after
        for episode in range(episodes):
            _write_puzzle(journal, telemetry, config, script, episode, totals)
        if script.stop_after is None:
            faults = 0 if script.fault_at is None else 1
            end = {"reason": script.end_reason, "episodes": episodes, "faults": faults, **totals}
            journal.append("end", end)
            telemetry.emit("finish")


def _write_puzzle(
    journal: JournalWriter,
    telemetry: TelemetryWriter,
    config: ExperimentConfig,
    script: Script,
    episode: int,
    totals: dict[str, int],
) -> None:
    budget = config.budget.tokens or 6000
    agents = [f"a{index}" for index in range(config.agents.count)]
    tiles = script.puzzle(config.seed, episode)
    say = script.texts
    journal.append(
        "episode",
        {
            "episode": episode,
            "world": config.world.id,
            "seed": derive_seed(config.seed, "world", episode),
            "level": 0,
            "level_by": "default",
            "goal": say.get("goal", f"target {100 + episode}"),
            "observations": {agent: say.get("observation", f"half {tiles}") for agent in agents},
            "reports": {},
            "state": state_hash(tiles),
        },
    )
    solved_at = script.solved_at(config.seed, episode)
    goal_tokens = solved_at if solved_at is not None else budget * script.give_up_at
    spent = {"tokens": 0, "calls": 0, "actions": 0}
    tick = 0
    while spent["tokens"] < goal_tokens:
        directed = config.coordinator.traits.directs
        coordinator = None
        if directed:
            coordinator = {
                "prompt_tokens": COORDINATOR_READS,
                "generated_tokens": COORDINATOR_WRITES,
                "calls": 1,
            }
            spent["tokens"] += COORDINATOR_READS + COORDINATOR_WRITES
            spent["calls"] += 1
        turn = agents if config.agents.turns == "parallel" else [agents[tick % len(agents)]]
        entries = []
        for agent in turn:
            if spent["tokens"] >= goal_tokens and entries:
                break
            entry = {
                "agent": agent,
                "action": say.get("action", "3+7+11"),
                "feedback": say.get("feedback", "= 21"),
                "valid": True,
                "reward": 0.0,
                "prompt_tokens": PROMPT,
                "generated_tokens": GENERATED,
            }
            if script.fault_at == episode and tick == 0 and agent == "a0":
                entry |= {"fault": say.get("fault", "timeout after 60 s"), "valid": False}
            entries.append(entry)
            spent["tokens"] += PROMPT + GENERATED
            spent["calls"] += 1
            spent["actions"] += 1
        done = spent["tokens"] >= goal_tokens and solved_at is not None
        journal.append(
            "tick",
            {
                "episode": episode,
                "tick": tick,
                "coordinator": coordinator,
                "directives": {agent: say.get("directive", "100+[45]") for agent in turn if directed},
                "agents": entries,
                "spent": dict(spent),
                "state": state_hash([episode, tick]),
                "terminated": done,
                "truncated": False,
            },
        )
        telemetry.emit("commit", seq=journal.next_seq - 1, agent_steps=len(entries), seconds=0.01)
        tick += 1
    solved = solved_at is not None
    totals["solved"] += solved
    totals["tokens"] += spent["tokens"]
    journal.append(
        "episode_end",
        {
            "episode": episode,
            "solved": solved,
            "reason": "solved" if solved else script.end_by,
            "ticks": tick,
            **spent,
            **({"solution": say.get("solution", "100+(3+7+35)")} if solved else {}),
        },
    )
