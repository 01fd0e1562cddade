"""Episodes that decide whether a step is accepted: puzzles that were kept out of learning, played with its delta.

They are played as in the run, with the same seeds, in the process of the learning step; what the old delta did with
them is on record already. A probe has the first answers to such puzzles alone, greedily.
"""

import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from swarm.agents.delta import KIND
from swarm.agents.memory import Place, make_memories
from swarm.agents.models import LoadedModels, load_models
from swarm.config.experiment import ExperimentConfig
from swarm.record.change import Change
from swarm.record.records import Record
from swarm.run.skills import Scores
from swarm.run.unrecorded import play_unrecorded

AT_ONCE = 64


class Worth(NamedTuple):
    """What the world made of an answer; of two, the larger is better."""

    valid: bool
    reward: float


@lru_cache(maxsize=2)
def _opened(settings: str, base_dir: Path) -> tuple[ExperimentConfig, LoadedModels]:
    """Return the settings of a trial and its models, kept from step to step."""
    config = ExperimentConfig.model_validate_json(settings)
    return config, load_models(config, base_dir)


def play(
    config: ExperimentConfig,
    base_dir: Path,
    episodes: Mapping[int, int],
    deltas: Mapping[str | None, str],
    memory: Path,
    skills: Scores,
) -> tuple[dict[int, float], int]:
    """Play episodes of a run again.

    Args:
        config: of the run.
        base_dir: its folder.
        episodes: their numbers, each with its level.
        deltas: whose delta is which, by sha256.
        memory: the run's folder of memories, which has their files.
        skills: what agents could do as their round began.

    Returns:
        Episode -> mean reward of its agents, summed over its ticks; and the tokens that were used.
    """
    rewards = dict.fromkeys(episodes, 0.0)

    def take(record: Record) -> None:
        if record["kind"] == "tick":
            rewards[record["episode"]] += sum(entry["reward"] for entry in record["agents"]) / config.agents.count

    return rewards, _played(config, base_dir, episodes, deltas, memory, skills, take)


def first_answers(
    config: ExperimentConfig,
    base_dir: Path,
    episodes: Mapping[int, int],
    deltas: Mapping[str | None, str],
    memory: Path,
) -> tuple[dict[tuple[int, str], Worth], int]:
    """Have agents answer the first prompts of episodes greedily; arguments as of `play`.

    Returns:
        (episode, agent) -> what the world made of the answer; and the tokens that were used.
    """
    found: dict[tuple[int, str], Worth] = {}

    def take(record: Record) -> None:
        if record["kind"] == "tick":
            for entry in record["agents"]:
                found[record["episode"], entry["agent"]] = Worth(entry["valid"], entry["reward"])

    return found, _played(config, base_dir, episodes, deltas, memory, {}, take, is_first=True)


def _played(
    config: ExperimentConfig,
    base_dir: Path,
    episodes: Mapping[int, int],
    deltas: Mapping[str | None, str],
    memory: Path,
    skills: Scores,
    take: Callable[[Record], None],
    is_first: bool = False,
) -> int:
    """Play episodes again, of `is_first` greedily and the first tick alone; return the tokens that were used."""
    runtime = config.runtime.model_copy(update={"pool": "local", "device": "cpu"})
    at_once = 1 if config.agents.lasting else AT_ONCE
    settings = config.model_copy(update={"runtime": runtime, "concurrency": at_once, "compare": None})
    config, models = _opened(settings.model_dump_json(), base_dir)
    learning = config.learning
    if learning is None:
        raise AssertionError
    # One round without an exam: nothing is learned at its end, for no memory here learns.
    whole = learning.model_copy(update={"every": config.episodes, "exam": None})
    config = config.model_copy(update={"learning": whole})
    if is_first:
        agents, budget = (
            section.model_copy(update=changed)
            for section, changed in ((config.agents, {"temperature": 0.0}), (config.budget, {"ticks": 1}))
        )
        config = config.model_copy(update={"agents": agents, "budget": budget})
    with tempfile.TemporaryDirectory(prefix="swarm-") as folder:
        # Of the run's folder deltas are read, and nothing is written there: other memories begin empty.
        places = {KIND: Place(memory)}
        memories = [
            kept
            for section in config.agents.memory
            for kept in make_memories([section], places.get(section.kind, Place(Path(folder))))
        ]
        for agent, sha256 in deltas.items():
            for kept in memories:
                kept.fold(Change(KIND, agent, "learn", "", sha256).as_record())
        return play_unrecorded(config, base_dir, models, memories, take, episodes, skills).end["tokens"]
