"""What a coordinator is, and what a world must offer to be coordinated.

A coordinator is stateless: everything it may use is in the request, so a dead coordinator is replaced without loss and
a retry gives the same directives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from swarm.backends.protocol import TextModel
from swarm.config.coordinator import CoordinatorConfig, CoordinatorTraits, NoOptions
from swarm.config.section import Section
from swarm.errors import SwarmError
from swarm.messages import DirectReply, DirectRequest

__all__ = [
    "Briefing",
    "Coordinator",
    "CountTokens",
    "NoCoordinator",
    "Playbook",
    "Setup",
    "Terminal",
    "checked_replies",
    "unlimited",
]

CountTokens = Callable[[Sequence[str]], list[int]]
"""Texts -> the tokens of each under the agents' tokenizer."""


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

    def passed_over(self, text: str, briefing: Briefing, cut: bool) -> list[str]:
        """Return the directives of a menu that an answer decided against; total on any text.

        Args:
            text: the answer.
            briefing: what was asked.
            cut: the answer was cut short, so it may have gone on.
        """
        ...


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where a person reads and writes.

    Attributes:
        ask: shows a prompt and returns a line; raises EOFError when there will be no more.
        say: shows a line.
    """

    ask: Callable[[str], str]
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a coordinator is made from.

    Attributes:
        config: its section.
        count_tokens: counts what is read and written without a model.
        book: the world's playbook; None where it has none.
        model: its model, if it asks one (`needs_model`).
        tools: the world's actions, for models that were not trained on it.
        limit_s: how long so many calls of the model may take.
        options: `config.options`, validated by its `Options`.
        terminal: the person at it, if it talks to one (`needs_terminal`).
    """

    config: CoordinatorConfig
    count_tokens: CountTokens
    book: Playbook | None = None
    model: TextModel | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    limit_s: Callable[[int], float] = unlimited
    options: Section = field(default_factory=NoOptions)
    terminal: Terminal | None = None

    @property
    def playbook(self) -> Playbook:
        """The world's playbook, for coordinators with `needs_playbook`."""
        if self.book is None:
            raise SwarmError(f"coordinator {self.config.kind!r} asks for a playbook and does not say `needs_playbook`")
        return self.book

    @property
    def asked(self) -> TextModel:
        """Its model, for coordinators with `needs_model`."""
        if self.model is None:
            raise SwarmError(f"coordinator {self.config.kind!r} asks for a model and does not say `needs_model`")
        return self.model


class Coordinator(CoordinatorTraits, ABC):
    """Reads reports and directs agents; its class attributes say what it needs (`CoordinatorTraits`)."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    @abstractmethod
    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Answer requests of any number of episodes; a reply depends on its own request only."""


class NoCoordinator(Coordinator):
    """Directs nobody."""

    directs = False

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Answer every request with no directive, at no cost."""
        return [DirectReply(request.key) for request in requests]


def checked_replies(requests: Sequence[DirectRequest], replies: Sequence[DirectReply]) -> list[DirectReply]:
    """Return the replies of a coordinator, which may be anybody's code, if they answer the requests.

    Raises:
        TypeError: they do not, or a directive is no text.
    """
    if [reply.key for reply in replies] != [request.key for request in requests]:
        raise TypeError("its replies do not have the keys of the requests, in their order")
    for reply in replies:
        if not all(isinstance(text, str) for text in reply.directives.values()):
            raise TypeError("a directive is not text")
    return list(replies)
