"""What a coordinator is, and what a world must offer to be coordinated.

Owns the two protocols. A coordinator is stateless: everything it may use is in the request, so a dead coordinator is
replaced without loss and a retry gives the same directives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from swarm.messages import DirectReply, DirectRequest

__all__ = ["Briefing", "Coordinator", "Playbook", "unlimited"]


def unlimited(count: int) -> float:
    """Return how many seconds so many calls of a model may take where nobody sets a limit."""
    return 3600.0


@dataclass(frozen=True, slots=True)
class Briefing:
    """One prompt for a model coordinator, and what its answer means.

    Attributes:
        agents: whom the answer is for, in order.
        prompt: what the model reads.
        options: words of the answer -> the directives that they stand for, where a prompt offers a menu.
        pattern: a regular expression that the answer is kept to, None for any answer up to the end of its line.
    """

    agents: tuple[str, ...]
    prompt: str
    options: Mapping[str, str] = field(default_factory=dict)
    pattern: str | None = None


class Coordinator(Protocol):
    """A mind that reads reports and directs agents."""

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Answer requests of any number of episodes; a reply depends on its own request only."""
        ...


class Playbook(Protocol):
    """One world's coordination knowledge: its hand-written rules and its texts for model coordinators.

    Attributes:
        world_id: the world.
        directive: a regular expression of the directives that its agents understand. What may be missing at its end
            is written `(?:|x)` and not `(?:x)?`, which xgrammar 0.2.8 reads wrongly in a JSON Schema.
        about: what directives look like and what they are good for, for a model that was not trained on the world.
        menu: directives that a briefing lists at most; None where briefings list none.
        answers: how a menu is answered, as in `CoordinatorConfig.answers`.
    """

    world_id: str
    directive: str
    about: str
    menu: int | None
    answers: str

    def rules(self, request: DirectRequest) -> dict[str, str]:
        """Return the directives that the hand-written rules give."""
        ...

    def briefings(self, request: DirectRequest) -> list[Briefing]:
        """Return the prompts for a model coordinator, none when there is nothing to direct."""
        ...

    def parse(self, text: str, briefing: Briefing) -> dict[str, str]:
        """Return the directives in a model's answer; total on any text."""
        ...

    def declined(self, text: str, briefing: Briefing, cut: bool) -> list[str]:
        """Return the directives of a menu that an answer decided against; total on any text.

        Args:
            text: the answer.
            briefing: what was asked.
            cut: the answer was cut short, so it may have gone on.
        """
        ...
