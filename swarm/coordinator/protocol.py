"""What a coordinator is.

It is stateless: everything it may use is in the request, so a dead coordinator is replaced without loss and a retry
gives the same directives. What a world must offer to be coordinated is `worlds.protocol.Playbook`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swarm.backends.protocol import TextModel
from swarm.config.coordinator import CoordinatorConfig, CoordinatorTraits, NoOptions
from swarm.config.section import Section
from swarm.errors import SwarmError
from swarm.messages import DirectReply, DirectRequest
from worlds.protocol import Playbook
from worlds.results import plain_value

CountTokens = Callable[[Sequence[str]], list[int]]
"""Texts -> the tokens of each under the agents' tokenizer."""


def unlimited(count: int) -> float:
    """Return how many seconds so many calls of a model may take where nobody sets a limit."""
    return 3600.0


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
    """Return the replies of a coordinator, which may be anybody's code, as plain data, if they answer the requests.

    Raises:
        TypeError: they do not.
        WorldFaultError: one holds what is none of its kind.
    """
    checked: list[DirectReply] = plain_value("coordinator", "direct()", list[DirectReply], list(replies))
    if [reply.key for reply in checked] != [request.key for request in requests]:
        raise TypeError("its replies do not have the keys of the requests, in their order")
    return checked
