"""Look-ups as text, such as a model writes them: `[0] trade smith : works_for seat =`, answered by ` tarn`.

- First who is meant: a mention of the text that is read, by its number, or a name in brackets. What is known of them
  tells namesakes apart. Then the relations to follow, one after the other.
- What nobody knows is answered ` unknown`; so is what several entities give different answers to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from ulm.memory.registry.names import may_be_one, normalised
from ulm.memory.registry.view import RegistryView, Value

UNKNOWN = "unknown"
"""The answer to what nobody knows."""

_MENTION = re.compile(r"\[([0-9]{1,4}) ([^\[\]\n]{1,200})\]")
_QUERY = re.compile(
    r"\[(?P<who>[^\[\]\n]{1,200})\](?P<known>(?: [^\s:\[\]]{1,80} [^\s:\[\]]{1,80}){0,4}) :"
    r"(?P<path>(?: [^\s:=\[\]]{1,80}){1,16}) =$"
)

Hop = Callable[[int, str], Sequence[Value]]
"""(entity, relation) -> what it leads to, as `RegistryView.lookup`."""


def mentions_of(text: str) -> dict[str, str]:
    """Return number -> name of all mentions `[0 mara voss]` of a text; the last one of a number counts."""
    return dict(_MENTION.findall(text))


def answered(view: RegistryView, text: str, mentions: Mapping[str, str], hop: Hop | None = None) -> str | None:
    """Return what follows a text that ends in a look-up, None where it does not end in one.

    Args:
        view: what is known.
        text: what was written so far.
        mentions: number -> name, of the text that it is about.
        hop: stands in for the view's `lookup`, for null controls.
    """
    query = _QUERY.search(text)
    if query is None:
        return None
    name = mentions.get(query["who"], query["who"])
    words = query["known"].split()
    ends = _meant(view, name, list(zip(words[::2], words[1::2], strict=True)))
    for relation in query["path"].split():
        step = hop or view.lookup
        ends = list(dict.fromkeys(value for one in ends if isinstance(one, int) for value in step(one, relation)))
    said = list(dict.fromkeys(_said(view, end) for end in ends))
    return f" {said[0] if len(said) == 1 else UNKNOWN}"


def _meant(view: RegistryView, name: str, known: Sequence[tuple[str, str]]) -> list[Value]:
    """Return the entities that a name may mean: of those that have it, those of which is known what is said of them."""
    norm = normalised(name) if name.strip() else ""
    found = view.named(name) if norm else []
    if not found and norm:
        names = {one: [normalised(other) for other in view.names(one)] for one in view.like(name)}
        found = [one for one, others in names.items() if all(may_be_one(norm, other) for other in others)]
    for relation, value in known:
        said = {one: [_said(view, other) for other in view.lookup(one, relation)] for one in found}
        found = [one for one in found if value in said[one]] or [one for one in found if not said[one]]
    return list(found)


def _said(view: RegistryView, value: Value) -> str:
    """Return how an answer is written: the longest name of an entity, of equals the first; or the text."""
    return value if isinstance(value, str) else max(view.names(value), key=len)
