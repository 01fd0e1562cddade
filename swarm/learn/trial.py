"""Episodes that decide whether a step is accepted: puzzles that were kept out of learning, played with its delta.

They are played as in the run, with the same seeds, in the process of the learning step; what the old delta did with
them is on record already. A probe has the first answers to such puzzles alone, greedily.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Trial:
    """A run's agents with certain deltas, outside the run.

    Attributes:
        config: of the run. base_dir: its folder.
        memory: the run's folder of memories, which has the files of deltas.
        deltas: whose delta is which, by sha256.
    """

    config: ExperimentConfig
    base_dir: Path
    memory: Path
    deltas: Mapping[str | None, str]

    def play(self, episodes: Mapping[int, int], skills: Scores) -> tuple[dict[int, float], int]:
        """Play episodes of the run again.

        Args:
            episodes: their numbers, each with its level.
            skills: what agents could do as their round began.

        Returns:
            Episode -> mean reward of its agents, summed over its ticks; and the tokens that were used.
        """
        rewards = dict.fromkeys(episodes, 0.0)

        def take(record: Record) -> None:
            if record["kind"] == "tick":
                gained = sum(entry["reward"] for entry in record["agents"])
                rewards[record["episode"]] += gained / self.config.agents.count

        return rewards, self.watch(episodes, skills, take)

    def first_answers(self, episodes: Mapping[int, int]) -> tuple[dict[tuple[int, str], Worth], int]:
        """Have agents answer the first prompts of episodes greedily.

        Returns:
            (episode, agent) -> what the world made of the answer; and the tokens that were used.
        """
        found: dict[tuple[int, str], Worth] = {}

        def take(record: Record) -> None:
            if record["kind"] == "tick":
                for entry in record["agents"]:
                    found[record["episode"], entry["agent"]] = Worth(entry["valid"], entry["reward"])

        agents = self.config.agents.model_copy(update={"temperature": 0.0})
        budget = self.config.budget.model_copy(update={"ticks": 1})
        config = self.config.model_copy(update={"agents": agents, "budget": budget})
        return found, replace(self, config=config).watch(episodes, {}, take)

    def watch(self, episodes: Mapping[int, int], skills: Scores, take: Callable[[Record], None]) -> int:
        """Play episodes as `play` does, and pass all records on; return the tokens that were used."""
        config = self.config
        if config.learning is None:
            raise AssertionError
        # One round without an exam: nothing is learned at its end, for no memory here learns.
        changed = {
            "runtime": config.runtime.model_copy(update={"pool": "local", "device": "cpu"}),
            "concurrency": 1 if config.agents.lasting else AT_ONCE,
            "compare": None,
            "learning": config.learning.model_copy(update={"every": config.episodes, "exam": None}),
        }
        config, models = _opened(config.model_copy(update=changed).model_dump_json(), self.base_dir)
        with tempfile.TemporaryDirectory(prefix="swarm-") as folder:
            # Of the run's folder deltas are read, and nothing is written there: other memories begin empty.
            places = {KIND: Place(self.memory)}
            memories = [
                kept
                for section in config.agents.memory
                for kept in make_memories(
                    [section], places.get(section.kind, Place.of(config, self.base_dir, Path(folder)))
                )
            ]
            for agent, sha256 in self.deltas.items():
                for kept in memories:
                    kept.fold(Change(KIND, agent, "learn", "", sha256).as_record())
            return play_unrecorded(config, self.base_dir, models, memories, take, episodes, skills).end["tokens"]
