"""What an answer of a language model says to whom: read leniently, total on any text, and never silently for nothing.

Owns the forms in which models write directives: JSON, also nested, in lists, with single quotes or commas too many, and
a line for each agent, also as a list or in bold; either may stand in a block of code or between prose. It refuses to
know what a directive is: that is told to it.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from swarm.text import FENCE, one_line

MAX_LINE = 1000
"""Characters of a line that may be a directive."""

_NAME = r"[aA][0-9]{1,9}"
_LINE = re.compile(
    r"[\s>|]*(?:[-*+\u2022]\s+|\d{1,4}[.)]\s+|\#{1,6}\s+)?"  # a list, a quotation, a table, a heading
    r"(?P<wrap>[*_`\"'\[(]{1,3})?(?:agent\s+)?"
    rf"(?P<names>{_NAME}(?:\s*(?:,|&|and)\s*{_NAME})*)(?P<sep>:)?(?(wrap)[*_`\"'\])]{{0,3}})"
    r"(?(sep)|\s*(?::|=>?|->|\u2192|\||\s[-\u2013\u2014]\s))(?P<text>.*)",
    re.IGNORECASE,
)
_PAIR = re.compile(rf"\"({_NAME})\"\s*:\s*\"([^\"\\]{{0,400}})\"")
"""What can be read of JSON that does not end."""

_WRAPPED = re.compile(r"(\*\*|__|[\"'`*_])(.*)\1")
_OPENING = re.compile(r"[{\[]")
_LENIENT = re.compile(
    r'"(?:[^"\\]|\\.){0,2000}"'
    r"|'(?P<single>(?:[^'\\\n]|'(?!\s*[,:}\]])){0,400})'(?=\s*[,:}\]])"
    r"|(?P<comma>,)(?=\s*[}\]])"
    r"|(?P<word>\b(?:None|True|False)\b)"
)
"""Python's spelling, and the comma behind a last entry."""

_AGENT_KEYS = ("agent", "agent_id", "name", "id", "to")
_TEXT_KEYS = ("directive", "directives", "instruction", "text", "message", "task", "command", "action")
_NONE = {"", "none", "null", "nothing", "nobody", "no directive", "no directives", "n/a", "-", "--", "no change"}
_MAX_VALUES = 32
"""JSON values that are looked for in one answer."""

_Entry = tuple[str, object]
_Object = tuple[tuple[str, Any], ...]
"""How an object of JSON is held: in its order, with what it says twice."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read.

    Attributes:
        directives: agent -> directive.
        fault: what of the answer could not be read, or is no directive; None where nothing is lost.
    """

    directives: dict[str, str]
    fault: str | None = None


def read_directives(
    text: str, agents: Sequence[str], directive: Callable[[str, str], str | None], is_cut: bool = False
) -> Reading:
    """Return what an answer says to whom.

    Args:
        text: the answer, without its thoughts.
        agents: who can be directed. The first directive that is said to one counts.
        directive: agent, and what was said to it -> the directive that this is, None where it is none.
        is_cut: the answer ended at its token limit, so an entry that does not end may be half of one.
    """
    lines = text.replace("\ufeff", "").splitlines()
    plain = "\n".join(line for line in lines if not FENCE.fullmatch(line)).strip()
    if _is_none(plain):
        return Reading({})
    entries, is_void = _entries(plain, is_cut)
    said: dict[str, str] = {}
    lost: dict[str, str] = {}
    for agent, words in entries:
        if agent in said or _is_void(words):
            continue
        found = directive(agent, words.strip()) if agent in agents and isinstance(words, str) else None
        if found is None:
            lost.setdefault(agent, _quoted(words))
        else:
            said[agent] = found
    known = [agent for agent in lost if agent in agents and agent not in said]
    told = {agent: said[agent] for agent in agents if agent in said}
    if known:
        return Reading(told, f"what {known[0]} is told is no directive: {lost[known[0]]}")
    if told or is_void or (entries and not lost):
        return Reading(told)
    if lost:
        named = " ".join([*lost][:8])
        return Reading({}, f"it directs only {named}, and nobody of them can be directed now")
    remedy = "; it ended at its token limit: raise coordinator.max_new_tokens" if is_cut else ""
    return Reading({}, f"no directive can be read in the answer {_quoted(plain)}{remedy}")


def _entries(text: str, is_cut: bool) -> tuple[list[_Entry], bool]:
    """Return (agent, what is said to it) in order, and whether the whole answer is JSON that says nothing."""
    start = next((match.start() for match in _OPENING.finditer(text)), len(text))
    lenient = text[:start] + _LENIENT.sub(_strict, text[start:])
    read = [_json_values(text), _json_values(lenient)]
    found = max(([entry for value in values for entry in _walk(value)] for values, _ in read), key=len)
    if not found and any(is_whole and all(map(_is_void, values)) for values, is_whole in read):
        return [], True
    found = found or [(agent.lower(), said) for agent, said in _PAIR.findall(lenient, start)]
    return found or [entry for line in text.split("\n")[: -1 if is_cut else None] for entry in _of_line(line)], False


def _json_values(text: str) -> tuple[list[Any], bool]:
    """Return the objects and lists of JSON in a text, and whether it is made of them alone."""
    read = json.JSONDecoder(object_pairs_hook=tuple, parse_constant=str).raw_decode
    values, place, is_whole = [], 0, True
    for _ in range(_MAX_VALUES):
        if (start := _OPENING.search(text, place)) is None:
            break
        is_whole &= not text[place : start.start()].strip()
        try:
            value, place = read(text, start.start())
            values.append(value)
        except (ValueError, RecursionError):
            is_whole, place = False, start.end()
    return values, is_whole and not text[place:].strip()


def _strict(match: re.Match[str]) -> str:
    """Return a piece of lenient JSON as JSON has it."""
    if match["single"] is not None:
        return json.dumps(match["single"])
    if match["comma"]:
        return ""
    return {"None": "null", "True": "true", "False": "false"}.get(match["word"] or "", match[0])


def _walk(value: Any) -> Iterator[_Entry]:
    """Yield the entries of a JSON value, however deep they are."""
    if isinstance(value, str):
        yield from _of_line(value)
    elif isinstance(value, list):
        for each in value:
            yield from _walk(each)
    elif isinstance(value, tuple):
        if (entry := _named(value)) is not None:
            yield entry
            return
        for key, inner in value:
            if re.fullmatch(_NAME, key.strip()):
                yield key.strip().lower(), _text_of(inner)
            elif not isinstance(inner, str):  # prose in JSON, such as a reason, directs nobody
                yield from _walk(inner)


def _named(value: _Object) -> _Entry | None:
    """Return the entry of an object that names agent and directive by its keys."""
    fields = {key.strip().lower(): inner for key, inner in reversed(value)}
    for key in _AGENT_KEYS:
        agent = fields.get(key)
        if isinstance(agent, str) and re.fullmatch(_NAME, agent.strip()):
            return agent.strip().lower(), next((fields[name] for name in _TEXT_KEYS if name in fields), value)
    return None


def _text_of(value: Any) -> object:
    """Return what is said where an agent's entry is an object or a list of one."""
    if isinstance(value, tuple):
        fields = {key.strip().lower(): inner for key, inner in reversed(value)}
        return next((fields[name] for name in _TEXT_KEYS if name in fields), value)
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _of_line(line: str) -> list[_Entry]:
    """Return the entries of a line: one, or the same for each agent that it names."""
    match = _LINE.fullmatch(line) if len(line) < MAX_LINE else None
    if match is None:
        return []
    text = match["text"].strip().rstrip(",;|").strip()
    while wrapped := _WRAPPED.fullmatch(text):
        text = wrapped[2].strip()
    return [(name.lower(), text) for name in re.findall(_NAME, match["names"])]


def _is_void(value: object) -> bool:
    """Return whether what is said, or a whole JSON value, says nothing."""
    if isinstance(value, str):
        return _is_none(value)
    if isinstance(value, tuple):
        return all(_is_void(inner) for _, inner in value)
    return value is None or (isinstance(value, list) and all(map(_is_void, value)))


def _is_none(text: str) -> bool:
    """Return whether a text clearly says that there is no directive."""
    core = text.casefold().strip(" \t\n.!*_`\"'()")
    return core in _NONE and bool(core or not text.strip())


def _quoted(value: object) -> str:
    return one_line(value)[:100]
