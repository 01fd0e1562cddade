"""The coordinators that ship: rules, models that read a playbook's briefings, and the shuffled null control.

Owns how each turns a request into directives and what it is charged: every token a coordinator reads or writes
counts, for the rules too, which read reports and write directives like any other mind.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from swarm.backends.protocol import Structure, TextModel, TextRequest
from swarm.config.experiment import CoordinatorConfig
from swarm.coordinator.language import LanguageCoordinator
from swarm.coordinator.protocol import Coordinator, unlimited
from swarm.errors import SwarmError
from swarm.messages import DirectReply, DirectRequest
from swarm.prompt import STOP
from swarm.seeds import derive_seed
from worlds.protocol import Briefing, Playbook, WorldError
from worlds.registry import load_playbook

__all__ = ["ModelCoordinator", "RulesCoordinator", "ShuffledCoordinator", "make_coordinator", "playbook"]

CountTokens = Callable[[Sequence[str]], list[int]]


def playbook(world_id: str, menu: int | None = None, answers: str = "picks") -> Playbook:
    """Return the coordination knowledge of a world.

    Args:
        world_id: the world.
        menu: directives that a briefing lists at most; None leaves it to the playbook.
        answers: how a menu is answered, as in `CoordinatorConfig.answers`.

    Raises:
        SwarmError: the world has none, or its briefings list no directives.
    """
    try:
        book = load_playbook(world_id)
    except WorldError as error:
        raise SwarmError(str(error)) from error
    if book is None:
        raise SwarmError(
            f"world {world_id} has no playbook, so rules and models trained on briefings cannot steer it; set "
            "coordinator.kind: none, take a model that chats, or name a playbook in the world's class"
        )
    for name, value in (("menu", menu), ("answers", None if answers == "picks" else answers)):
        if value is not None:
            if book.menu is None:
                raise SwarmError(f"coordinator.{name} has no meaning in {world_id}, whose briefings list no directives")
            setattr(book, name, value)
    return book


class RulesCoordinator:
    """Hand-written rules of the world's playbook."""

    def __init__(self, book: Playbook, count_tokens: CountTokens) -> None:
        self.book = book
        self.count_tokens = count_tokens

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Charge each request for the reports it reads and the directives it writes."""
        replies: list[DirectReply] = []
        for request in requests:
            unread = [report.text for report in request.reports[len(request.reports) - request.unread :]]
            read = sum(self.count_tokens(unread)) if unread else 0
            directives = self.book.rules(request)
            written = sum(self.count_tokens(list(directives.values()))) if directives else 0
            if request.max_tokens is not None and read + written > request.max_tokens:
                replies.append(DirectReply(request.key))
            else:
                replies.append(DirectReply(request.key, directives, read, written))
        return replies


class ModelCoordinator:
    """A model that was trained to read the playbook's briefings and to write directives."""

    def __init__(
        self, book: Playbook, model: TextModel, config: CoordinatorConfig, limit_s: Callable[[int], float] = unlimited
    ) -> None:
        self.book = book
        self.model = model
        self.config = config
        self.limit_s = limit_s

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Answer all briefings of all requests in one batch; a briefing that the budget cannot pay is not read."""
        config = self.config
        asked: list[tuple[int, Briefing, TextRequest]] = []
        for index, request in enumerate(requests):
            briefings = self.book.briefings(request)
            left = request.max_tokens
            wanted = [
                TextRequest(
                    briefing.prompt,
                    None,
                    derive_seed(request.seed, "briefing", number),
                    config.max_new_tokens,
                    config.temperature,
                    config.top_p,
                    () if briefing.pattern else (STOP,),
                    Structure(regex=briefing.pattern) if briefing.pattern else None,
                )
                for number, briefing in enumerate(briefings)
            ]
            lengths = self.model.count_prompts(wanted)
            for briefing, text, length in zip(briefings, wanted, lengths, strict=True):
                cost = length + config.max_new_tokens
                if left is not None:
                    if cost > left:
                        break
                    left -= cost
                asked.append((index, briefing, text))
        results = self.model.generate([text for _, _, text in asked], time.monotonic() + self.limit_s(len(asked)))
        replies = [DirectReply(request.key) for request in requests]
        for (index, briefing, _), result in zip(asked, results, strict=True):
            reply = replies[index]
            cut = result.finish == "length"
            # The last word may be half of one; a number without its mark is no entry anyway.
            said = result.text.rpartition(" ")[0] if cut and not briefing.pattern else result.text
            decides = result.fault is None and not config.offer_again
            declined = self.book.declined(said, briefing, cut) if decides else []
            replies[index] = replace(
                reply,
                directives={**reply.directives, **self.book.parse(said, briefing)},
                declined={**reply.declined, **({briefing.agents[0]: declined} if declined else {})},
                prompt_tokens=reply.prompt_tokens + result.prompt_tokens,
                generated_tokens=reply.generated_tokens + result.generated_tokens,
                calls=reply.calls + 1,
                fault=reply.fault or result.fault,
            )
        return replies


class ShuffledCoordinator:
    """Null control: every agent gets what was meant for another one, at the same cost."""

    def __init__(self, inner: Coordinator) -> None:
        self.inner = inner

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Pass all directives on along one random cycle through all agents, so that nobody keeps its own."""
        replies: list[DirectReply] = []
        for request, reply in zip(requests, self.inner.direct(requests), strict=True):
            cycle = list(request.agents)
            random.Random(derive_seed(request.seed, "shuffle")).shuffle(cycle)  # noqa: S311
            receiver = dict(zip(cycle, cycle[1:] + cycle[:1], strict=True))
            moved = {receiver[agent]: text for agent, text in reply.directives.items()}
            replies.append(replace(reply, directives={a: moved[a] for a in request.agents if a in moved}))
        return replies


def make_coordinator(
    config: CoordinatorConfig,
    world_id: str,
    model: TextModel | None,
    count_tokens: CountTokens,
    tools: Sequence[Mapping[str, Any]] = (),
    limit_s: Callable[[int], float] = unlimited,
) -> Coordinator | None:
    """Return the coordinator of a config, None for `none`.

    Args:
        config: its section.
        world_id: decides the playbook.
        model: the coordinator's model, when its mind is one.
        count_tokens: counts text for coordinators without a model.
        tools: the world's actions, for models that were not trained on it.
        limit_s: how long so many calls of the model may take.

    Raises:
        SwarmError: no playbook for the world, and the mind needs one.
    """
    if config.kind == "none":
        return None
    mind: Coordinator
    if model is None:
        mind = RulesCoordinator(playbook(world_id), count_tokens)
    elif config.chats:
        book = playbook(world_id, config.menu) if config.menu or load_playbook(world_id) else None
        mind = LanguageCoordinator(model, config, tools, book, limit_s)
    else:
        mind = ModelCoordinator(playbook(world_id, config.menu, config.answers), model, config, limit_s)
    return ShuffledCoordinator(mind) if config.kind == "shuffled" else mind
