"""A run part by part: how often it was solved, what agents earned, and what its world has to say of the episodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.record.folder import read_experiment
from swarm.run.experience import Call, experience
from worlds.checked import measures
from worlds.protocol import Turn
from worlds.registry import world_class


@dataclass(frozen=True, slots=True)
class Part:
    """Some episodes of a run that follow each other.

    Attributes:
        name: `0-99`, or `exam` for those after the last round of a run that learns.
        episodes: how many of them ended.
        solved: share of them.
        reward: what an agent earned in an episode, on average.
        figures: what else the world measures.
    """

    name: str
    episodes: int
    solved: float
    reward: float
    figures: dict[str, float]


def measured(run_dir: Path, num_parts: int) -> list[Part]:
    """Return the figures of a run, in so many parts of nearly equal length, and of its exam.

    Raises:
        SwarmError: there is no run, none of its episodes has ended, or its world goes another way than recorded.
        WorldFaultError: the world measures what is no number.
    """
    config = read_experiment(run_dir, ExperimentConfig)
    episodes: dict[int, list[Call]] = {}
    for call in experience(run_dir):
        if call.role == "agent" and call.fault is None:
            episodes.setdefault(call.key[0], []).append(call)
    if not episodes:
        raise SwarmError(f"{run_dir}: no episode with an action has ended yet")
    played = [index for index in sorted(episodes) if index < config.episodes]
    size = -(-len(played) // num_parts) or 1
    parts = [played[start : start + size] for start in range(0, len(played), size)]
    found = [_part(f"{some[0]}-{some[-1]}", some, episodes, config) for some in parts]
    exam = [index for index in sorted(episodes) if index >= config.episodes]
    return [*found, _part("exam", exam, episodes, config)] if exam else found


def _part(name: str, indices: Sequence[int], episodes: dict[int, list[Call]], config: ExperimentConfig) -> Part:
    calls = [call for index in indices for call in episodes[index]]
    turns = [
        Turn(call.key[0], call.key[2], call.observation, call.answer, call.valid, call.reward, call.feedback)
        for call in calls
    ]
    return Part(
        name,
        len(indices),
        sum(episodes[index][-1].solved for index in indices) / len(indices),
        sum(call.reward for call in calls) / (len(indices) * config.agents.count),
        measures(world_class(config.world.id), turns),
    )
