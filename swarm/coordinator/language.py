"""A language model that was not trained on the world: it reads a digest and answers in a form that always parses.

Owns that form, in both of its spellings. Nothing that a model writes is trusted: whatever is no directive for an agent
of the episode is left out, and is a fault on record.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from swarm.backends.protocol import Structure, TextRequest
from swarm.config.coordinator import CoordinatorConfig
from swarm.config.engine import OpenAIEngine
from swarm.coordinator.answers import Reading, read_directives
from swarm.coordinator.digest import bounded, digest_lines, opening
from swarm.coordinator.kinds import BriefedCoordinator
from swarm.coordinator.protocol import Coordinator, Setup
from swarm.errors import SwarmError
from swarm.messages import DirectReply, DirectRequest
from worlds.protocol import Briefing

FEWEST_TOKENS = 32
"""Of a digest that is of any use."""

MAX_DIRECTIVE = 80
"""Characters of one directive."""

FREE = r"[!#-\[\]-~][ !#-\[\]-~]*"
"""A directive where no playbook says what they look like: printable, without what JSON would have to escape.

Its length is cut afterwards, which keeps the pattern of many agents small.
"""

FREE_SHORT = FREE.replace("*", f"{{0,{MAX_DIRECTIVE - 1}}}")
"""The same for endpoints, whose grammars count."""

_Open = dict[str, tuple[str, ...] | None]
"""Agents that can be directed, each with the directives to choose from; None where there is no list."""

_FORMS = {
    "lines": "Answer with a line for each agent that you direct: its name, a colon, the directive. Write nothing else.",
    "json": 'Answer with a JSON object that has the directive of each agent by its name, "" for those without one.',
}


class LanguageCoordinator(Coordinator):
    """Reads digests and writes directives.

    Raises:
        SwarmError: what opens the chat leaves no room for reports.
    """

    needs_model = True
    reads_hints = True

    @classmethod
    def variant(cls, config: CoordinatorConfig) -> type[Coordinator]:
        """Return this class for a model that is asked in its chat format, `BriefedCoordinator` for others."""
        return cls if config.engine is None or config.engine.chats else BriefedCoordinator

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        config, model = setup.config, setup.asked
        self.book = setup.book
        # Endpoints take JSON Schemas; the other engines take patterns too, and lines are fewer tokens.
        self.form: Literal["lines", "json"] = "json" if isinstance(config.engine, OpenAIEngine) else "lines"
        self.system = opening(setup.tools, setup.book, _FORMS[self.form])
        self._limit = min(config.digest_tokens, model.max_length - config.max_new_tokens)
        (length,) = model.count_prompts([TextRequest("", self.system)])
        if length + FEWEST_TOKENS > self._limit:
            raise SwarmError(
                f"coordinator.engine reads {self._limit} tokens at most, and what its chat opens with are {length}; "
                f"raise coordinator.digest_tokens (or engine.max_length) above {length + FEWEST_TOKENS}"
            )

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Ask about every request that the budget can pay, all in one batch."""
        model = self.setup.asked
        asked: list[tuple[int, TextRequest, _Open]] = []
        replies = [DirectReply(request.key) for request in requests]
        for index, request in enumerate(requests):
            briefings = self.book.briefings(request) if self.book else []
            open_to = _open_to(briefings) if self.book else dict.fromkeys(request.agents)
            if not open_to:
                continue
            text = self._request(request, briefings, open_to)
            cost = model.count_prompts([text])[0] + text.max_new_tokens
            if request.max_tokens is None or cost <= request.max_tokens:
                asked.append((index, text, open_to))
        results = model.generate([text for _, text, _ in asked], time.monotonic() + self.setup.limit_s(len(asked)))
        for (index, _, open_to), result in zip(asked, results, strict=True):
            said = Reading({}, result.fault)
            if result.fault is None:
                find = partial(self._directive, open_to)
                said = read_directives(result.text, tuple(open_to), find, is_cut=result.finish == "length")
            replies[index] = DirectReply(
                requests[index].key,
                said.directives,
                result.prompt_tokens,
                result.generated_tokens,
                1,
                said.fault,
                thoughts=result.thoughts,
            )
        return replies

    def _directive(self, open_to: _Open, agent: str, text: str) -> str | None:
        """Return the directive for an agent that a text is, but for its case and what surrounds it; None if none is."""
        line = " ".join(text.split()) if "\n" in text else text
        forms = [form.strip() for form in (line, line.strip("\"'`*"), line.rstrip("."))]
        if (choices := open_to[agent]) is None:
            short = (form[:MAX_DIRECTIVE].strip() for form in forms)
            return next((form for form in short if re.fullmatch(self._pattern(None), form)), None)
        return next((choice for form in forms for choice in choices if form.casefold() == choice.casefold()), None)

    def _request(self, request: DirectRequest, briefings: Sequence[Briefing], open_to: _Open) -> TextRequest:
        config, count_prompts = self.setup.config, self.setup.asked.count_prompts
        form = self._structure(open_to)
        asked = TextRequest("", self.system, request.seed, config.max_new_tokens, config.temperature, structure=form)
        lines = digest_lines(request, briefings)
        text = bounded(lines, self._limit, lambda text: count_prompts([replace(asked, prompt=text)])[0])
        return replace(asked, prompt=text)

    def _structure(self, open_to: _Open) -> Structure:
        if self.form == "json":
            return Structure(json_schema=self._schema(open_to))
        # Every entry ends itself, so any of them may be missing and none can come twice.
        return Structure(regex="".join(f"(?:{a}: {self._pattern(choices)}\n)?" for a, choices in open_to.items()))

    def _pattern(self, choices: Sequence[str] | None) -> str:
        if choices:
            escaped = [re.sub(r"([^A-Za-z0-9 ])", r"\\\1", choice) for choice in choices]
            return f"(?:{'|'.join(escaped)})"
        return f"(?:{self.book.directive})" if self.book else FREE

    def _schema(self, open_to: _Open) -> dict[str, Any]:
        """Return the JSON Schema of an answer; everybody is required, as strict endpoints want it."""
        # Not `(...)?`: with it xgrammar 0.2.8, which vLLM's server uses, lets the "go " of "go 13" be left out.
        free = {"type": "string", "pattern": f"^(?:|{self.book.directive if self.book else FREE_SHORT})$"}
        return {
            "type": "object",
            "properties": {
                agent: {"type": "string", "enum": ["", *choices]} if choices else free
                for agent, choices in open_to.items()
            },
            "required": list(open_to),
            "additionalProperties": False,
        }


def _open_to(briefings: Sequence[Briefing]) -> _Open:
    """Return who can be directed now, with the directives that make sense where a playbook lists them."""
    return {agent: tuple(b.options.values()) or None for b in briefings for agent in b.agents}
