"""What an arm of a comparison is: a change to the experiment, what it asks, and what a tie means."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from swarm.config.experiment import ExperimentConfig


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison.

    Attributes:
        title: a few words for tables and plots.
        question: what the swarm's difference to this arm answers.
        overrides: the base experiment -> this arm's experiment.
        won: what it means when the swarm beats this arm.
        not_won: what it means when it ties with this arm or loses to it.
        needs: what the arm cannot exist without: a world whose views can be widened (`World.full_view`) or with a
            playbook, somebody who directs, agents with a memory beside their window, or one with this setting; several
            learners, or several with deltas of their own.
    """

    title: str
    question: str
    overrides: Callable[[ExperimentConfig], ExperimentConfig]
    won: str
    not_won: str
    needs: (
        Literal["view", "playbook", "coordinator", "memory", "shared", "control", "learners", "own deltas"] | None
    ) = None


def changed(config: ExperimentConfig, section: str, **changes: object) -> ExperimentConfig:
    """Return an experiment with other values in a section."""
    return config.model_copy(update={section: getattr(config, section).model_copy(update=changes)})
