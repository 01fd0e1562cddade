"""The coordinators that a playbook is enough for, the shuffled null control, and how any coordinator is made.

Every token that a coordinator reads or writes is charged, by the rules too.
"""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from swarm.backends.protocol import Structure, TextModel, TextRequest
from swarm.config.coordinator import COORDINATORS, CoordinatorConfig
from swarm.coordinator.protocol import Coordinator, CountTokens, Setup, Terminal, unlimited
from swarm.errors import SwarmError
from swarm.messages import DirectReply, DirectRequest
from swarm.prompt import STOP
from swarm.seeds import derive_seed
from swarm.text import one_line
from worlds.protocol import Briefing, Playbook, WorldError
from worlds.registry import load_playbook


def playbook(world_id: str, menu: int | None = None, answers: str = "picks") -> Playbook:
    """Return the coordination knowledge of a world.

    Args:
        world_id: the world.
        menu: directives that a briefing lists at most; None leaves it to the playbook.
        answers: how a menu is answered, as in `CoordinatorConfig.answers`.

    Raises:
        SwarmError: the world has none, or its briefings list no directives.
    """
    if (book := _loaded(world_id)) is None:
        raise SwarmError(
            f"world {world_id} has no playbook, so rules and models trained on briefings cannot steer it; set "
            "coordinator.kind: none, take a model that chats, or name a playbook in the world's class"
        )
    wanted = {"menu": menu, "answers": None if answers == "picks" else answers}
    settings = {name: value for name, value in wanted.items() if value is not None}
    if settings and book.menu is None:
        name = next(iter(settings))
        raise SwarmError(f"coordinator.{name} has no meaning in {world_id}, whose briefings list no directives")
    return (_loaded(world_id, **settings) if settings else None) or book


def _loaded(world_id: str, **settings: Any) -> Playbook | None:
    try:
        return load_playbook(world_id, **settings)
    except WorldError as error:
        raise SwarmError(str(error)) from error


class RulesCoordinator(Coordinator):
    """Hand-written rules of the world's playbook."""

    needs_playbook = True

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Charge each request for the reports it reads and the directives it writes."""
        return [self._reply(request) for request in requests]

    def _reply(self, request: DirectRequest) -> DirectReply:
        directives = self.setup.playbook.rules(request)
        read, written = (sum(self.setup.count_tokens(texts)) for texts in (request.news, [*directives.values()]))
        if request.max_tokens is not None and read + written > request.max_tokens:
            return DirectReply(request.key)
        return DirectReply(request.key, directives, read, written)


class BriefedCoordinator(Coordinator):
    """A model that was trained to read the playbook's briefings and to write directives."""

    needs_model = True
    needs_playbook = True

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Answer all briefings of all requests in one batch; a briefing that the budget cannot pay is not read."""
        config, book, model = self.setup.config, self.setup.playbook, self.setup.asked
        asked: list[tuple[int, Briefing, TextRequest]] = []
        for index, request in enumerate(requests):
            briefings = book.briefings(request)
            left = math.inf if request.max_tokens is None else request.max_tokens
            wanted = [
                TextRequest(
                    briefing.prompt,
                    None,
                    derive_seed(request.seed, "briefing", number),
                    config.max_new_tokens,
                    config.temperature,
                    () if briefing.pattern else (STOP,),
                    Structure(regex=briefing.pattern) if briefing.pattern else None,
                )
                for number, briefing in enumerate(briefings)
            ]
            for briefing, text, length in zip(briefings, wanted, model.count_prompts(wanted), strict=True):
                left -= length + config.max_new_tokens
                if left < 0:
                    break
                asked.append((index, briefing, text))
        results = model.generate([text for _, _, text in asked], time.monotonic() + self.setup.limit_s(len(asked)))
        replies = [DirectReply(request.key) for request in requests]
        for (index, briefing, _), result in zip(asked, results, strict=True):
            reply = replies[index]
            cut, decides = result.finish == "length", result.fault is None and not config.reoffer_declined
            # The last word may be half of one; a number without its mark is no entry anyway.
            said = result.text.rpartition(" ")[0] if cut and not briefing.pattern else result.text
            declined = book.declined(said, briefing, cut) if decides else []
            replies[index] = replace(
                reply,
                directives={**reply.directives, **book.parse(said, briefing)},
                declined={**reply.declined, **({briefing.agents[0]: declined} if declined else {})},
                prompt_tokens=reply.prompt_tokens + result.prompt_tokens,
                generated_tokens=reply.generated_tokens + result.generated_tokens,
                calls=reply.calls + 1,
                fault=reply.fault or result.fault,
            )
        return replies


class ShuffledCoordinator(Coordinator):
    """Null control: every agent gets what was meant for another one, at the same cost."""

    def __init__(self, inner: Coordinator, setup: Setup) -> None:
        super().__init__(setup)
        self.inner = inner

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Pass all directives on along one random cycle through all agents, so that nobody keeps its own."""
        return [self._moved(*pair) for pair in zip(requests, self.inner.direct(requests), strict=True)]

    def _moved(self, request: DirectRequest, reply: DirectReply) -> DirectReply:
        cycle = list(request.agents)
        random.Random(derive_seed(request.seed, "shuffle")).shuffle(cycle)  # noqa: S311
        receiver = dict(zip(cycle, cycle[1:] + cycle[:1], strict=True))
        moved = {receiver[agent]: text for agent, text in reply.directives.items()}
        return replace(reply, directives={agent: moved[agent] for agent in request.agents if agent in moved})


def book_for(config: CoordinatorConfig, world_id: str) -> Playbook | None:
    """Return the playbook of a coordinator's world, None where the world has none and the coordinator needs none.

    Raises:
        SwarmError: it needs one, or its settings have no meaning there.
    """
    needed = config.traits.needs_playbook or config.menu is not None
    return playbook(world_id, config.menu, config.answers) if needed or _loaded(world_id) is not None else None


def make_coordinator(
    config: CoordinatorConfig,
    world_id: str,
    model: TextModel | None,
    count_tokens: CountTokens,
    tools: Sequence[Mapping[str, Any]] = (),
    limit_s: Callable[[int], float] = unlimited,
    terminal: Terminal | None = None,
) -> Coordinator:
    """Return the coordinator that a config names.

    Args:
        config: its section.
        world_id: decides the playbook.
        model: its model, for a coordinator that asks one.
        count_tokens: as in `Setup`, like all that follows.
        tools: the world's actions.
        limit_s: how long so many calls of the model may take.
        terminal: the person at it.

    Raises:
        SwarmError: no coordinator has that name, its package is broken, its options are not possible, or it needs a
            playbook that the world does not have.
    """
    setup = Setup(
        config,
        count_tokens,
        book_for(config, world_id),
        model,
        tools,
        limit_s,
        config.checked_options(),
        terminal,
    )
    try:
        made: Coordinator = COORDINATORS.find(config.kind).variant(config)(setup)
    except SwarmError:
        raise
    except Exception as error:  # it may be anybody's code
        reason = one_line(f"{type(error).__name__}: {error}")
        raise SwarmError(f"coordinator {config.kind!r} cannot be made: {reason}") from error
    return ShuffledCoordinator(made, setup) if config.shuffled else made
