"""A language model that was not trained on the world: it reads a digest and answers in a form that always parses.

Owns that form, in both of its spellings, and the reading of answers. Nothing that a model writes is trusted: whatever
is no directive for an agent of the episode is left out.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from swarm.backends.protocol import Structure, TextModel, TextRequest
from swarm.config import CoordinatorConfig
from swarm.coordinator.digest import bounded, digest_lines, opening
from swarm.coordinator.protocol import Briefing, Playbook
from swarm.messages import DirectReply, DirectRequest

__all__ = ["LanguageCoordinator", "read_directives"]

MAX_DIRECTIVE = 80
"""Characters of one directive."""

FREE = rf"[!#-\[\]-~][ !#-\[\]-~]{{0,{MAX_DIRECTIVE - 1}}}"
"""A directive where no playbook says what they look like: printable, without what JSON would have to escape."""

_LINE = re.compile(r"^\s*\"?(a[0-9]{1,9})\"?\s*:\s*\"?(.*?)\"?,?\s*$")
_PAIR = re.compile(r"\"(a[0-9]{1,9})\"\s*:\s*\"([^\"\\]{0,400})\"")

_FORMS = {
    "lines": "Answer with a line for each agent that you direct: its name, a colon, the directive. Write nothing else.",
    "json": 'Answer with a JSON object that has the directive of each agent by its name, "" for those without one.',
}


class LanguageCoordinator:
    """Reads digests and writes directives.

    Args:
        model: what answers.
        config: its section.
        tools: the world's actions.
        book: the world's playbook, None where it has none.
        timeout_s: how long a call may take.
    """

    def __init__(
        self,
        model: TextModel,
        config: CoordinatorConfig,
        tools: Sequence[Mapping[str, Any]] = (),
        book: Playbook | None = None,
        timeout_s: float = 3600.0,
    ) -> None:
        self.model = model
        self.config = config
        self.book = book
        self.timeout_s = timeout_s
        # Endpoints take JSON Schemas; the other engines take patterns too, and lines are fewer tokens.
        self.form: Literal["lines", "json"] = "json" if config.engine == "openai" else "lines"
        self.system = opening(tools, book, _FORMS[self.form])

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Ask about every request that the budget can pay, all in one batch."""
        asked: list[tuple[int, TextRequest, dict[str, tuple[str, ...]]]] = []
        replies = [DirectReply(request.key) for request in requests]
        for index, request in enumerate(requests):
            if not request.agents:
                continue
            briefings = self.book.briefings(request) if self.book else []
            choices = _choices(briefings)
            text = self._request(request, briefings, choices)
            (length,) = self.model.count_prompts([text])
            if request.max_tokens is None or length + text.max_new_tokens <= request.max_tokens:
                asked.append((index, text, choices))
        results = self.model.generate([text for _, text, _ in asked], time.monotonic() + self.timeout_s)
        for (index, _, choices), result in zip(asked, results, strict=True):
            request = requests[index]
            said = read_directives(result.text, request.agents, cut=result.finish == "length")
            replies[index] = DirectReply(
                request.key,
                {agent: text for agent, text in said.items() if self._is_directive(text, choices.get(agent))},
                result.prompt_tokens,
                result.generated_tokens,
                1,
                result.fault,
            )
        return replies

    def _is_directive(self, text: str, choices: Sequence[str] | None) -> bool:
        if choices:
            return text in choices
        return re.fullmatch(self.book.directive if self.book else FREE, text) is not None

    def _request(
        self, request: DirectRequest, briefings: Sequence[Briefing], choices: Mapping[str, Sequence[str]]
    ) -> TextRequest:
        def with_prompt(prompt: str) -> TextRequest:
            return TextRequest(
                prompt,
                self.system,
                request.seed,
                self.config.max_new_tokens,
                self.config.temperature,
                self.config.top_p,
                structure=self._structure(request.agents, choices),
            )

        limit = min(self.config.digest_tokens, self.model.max_length - self.config.max_new_tokens)
        lines = digest_lines(request, briefings)
        return with_prompt(bounded(lines, limit, lambda text: self.model.count_prompts([with_prompt(text)])[0]))

    def _structure(self, agents: Sequence[str], choices: Mapping[str, Sequence[str]]) -> Structure:
        if self.form == "json":
            return Structure(json_schema=_schema(agents, choices, self.book))
        # Every entry ends itself, so any of them may be missing and none can come twice.
        entries = [f"(?:{agent}: {_pattern(choices.get(agent), self.book)}\n)?" for agent in agents]
        return Structure(regex="".join(entries))


def _choices(briefings: Sequence[Briefing]) -> dict[str, tuple[str, ...]]:
    """Return the directives that make sense for each agent now, where a playbook lists them."""
    return {
        agent: tuple(briefing.options.values())
        for briefing in briefings
        if briefing.options
        for agent in briefing.agents
    }


def _pattern(choices: Sequence[str] | None, book: Playbook | None) -> str:
    if choices:
        escaped = [re.sub(r"([^A-Za-z0-9 ])", r"\\\1", choice) for choice in choices]
        return f"(?:{'|'.join(escaped)})"
    return f"(?:{book.directive})" if book else FREE


def _schema(agents: Sequence[str], choices: Mapping[str, Sequence[str]], book: Playbook | None) -> dict[str, Any]:
    """Return the JSON Schema of an answer; everybody is required, as strict endpoints want it."""

    def directive(agent: str) -> dict[str, Any]:
        if agent in choices:
            return {"type": "string", "enum": ["", *choices[agent]]}
        if book is not None:
            return {"type": "string", "pattern": f"^(?:{book.directive})?$"}
        return {"type": "string", "maxLength": MAX_DIRECTIVE}

    return {
        "type": "object",
        "properties": {agent: directive(agent) for agent in agents},
        "required": list(agents),
        "additionalProperties": False,
    }


def read_directives(text: str, agents: Sequence[str], cut: bool = False) -> dict[str, str]:
    """Return what an answer says to whom: total on any text.

    Args:
        text: JSON, or a line for each agent.
        agents: who can be directed; all others are left out, as is what is said to one a second time.
        cut: the answer was cut short, so an entry that does not end may be half of one.
    """
    found: list[tuple[str, str]] = []
    if text.lstrip().startswith("{"):
        try:
            data = json.loads(text)
            found = [(k, v) for k, v in data.items() if isinstance(v, str)]
        except (ValueError, RecursionError):
            found = _PAIR.findall(text)
    else:
        lines = text.split("\n")
        if cut:
            lines = lines[:-1]
        found = [(match[1], match[2]) for line in lines if len(line) < 1000 and (match := _LINE.match(line))]
    said: dict[str, str] = {}
    for agent, directive in found:
        if agent in agents and agent not in said and 0 < len(directive.strip()) <= MAX_DIRECTIVE:
            said[agent] = directive.strip()
    return {agent: said[agent] for agent in agents if agent in said}
