"""Episodes that decide whether a step is accepted: puzzles that were kept out of learning, played with its delta.

They are played as in the run, with the same seeds, by a local pool in the process of the learning step; what the old
delta did with them is on record already.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from swarm.agents.local_pool import LocalPool
from swarm.agents.memory import Place, make_memories
from swarm.agents.models import LoadedModels, load_models
from swarm.config.experiment import ExperimentConfig
from swarm.record.change import Change
from swarm.record.journal import JOURNAL_NAME, JournalWriter, read_records
from swarm.record.telemetry import TELEMETRY_NAME, TelemetryWriter
from swarm.run.episode import world_of
from swarm.run.runner import host_spec
from swarm.run.steering import STEERING_NAME, Mailbox
from swarm.run.tick_loop import Runtime
from swarm.run.topology import neighbours

AT_ONCE = 64


@lru_cache(maxsize=2)
def _models(config: str, base_dir: Path) -> tuple[ExperimentConfig, LoadedModels]:
    found = ExperimentConfig.model_validate_json(config)
    return found, load_models(found, base_dir)


def play(
    config: ExperimentConfig,
    base_dir: Path,
    episodes: Sequence[int],
    deltas: Mapping[str | None, str],
    memory: Path,
) -> tuple[dict[int, float], int]:
    """Play episodes of a run again.

    Args:
        config: of the run.
        base_dir: its folder.
        episodes: their numbers.
        deltas: whose delta is which, by sha256.
        memory: the run's folder of memories, which has their files.

    Returns:
        Episode -> mean reward of its agents, summed over its ticks; and the tokens that were used.
    """
    settings = {**config.model_dump(mode="json"), "concurrency": AT_ONCE, "name": "trial"}
    settings["runtime"] = {**settings["runtime"], "pool": "local", "device": "cpu", "durability": "group"}
    config, models = _models(ExperimentConfig.model_validate(settings).model_dump_json(), base_dir)
    agents = world_of(config, base_dir).possible_agents
    with tempfile.TemporaryDirectory(prefix="swarm-trial-") as name:
        folder = Path(name)
        memories = make_memories(config.agents.memory, Place(memory))
        for agent, sha256 in deltas.items():
            for kept in memories:
                kept.fold({**Change("delta", agent, "learn", "", sha256).as_record(), "seq": 0})
        with (
            JournalWriter(folder / JOURNAL_NAME, "group") as journal,
            TelemetryWriter(folder / TELEMETRY_NAME) as telemetry,
            closing(LocalPool(host_spec(config, base_dir, models), models.shared)) as pool,
        ):
            runtime = Runtime(
                config.model_copy(update={"learning": None, "episodes": max(episodes) + 1}),
                lambda episode: world_of(config, base_dir),
                neighbours(config.topology, agents, config.seed, base_dir),
                journal,
                telemetry,
                memories,
                Mailbox(folder / STEERING_NAME),
                None,
                lambda: None,
                only=set(episodes),
            )
            runtime.play(pool)
        rewards = dict.fromkeys(episodes, 0.0)
        for record in read_records(folder / JOURNAL_NAME):
            if record["kind"] == "tick":
                rewards[record["episode"]] += sum(entry["reward"] for entry in record["agents"]) / len(agents)
    return rewards, runtime.end["tokens"]
