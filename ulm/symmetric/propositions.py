"""Propositions about the mentions of a text, as a network reads and writes them: `[0] works_for [2] ; [2] seat [1]`.

- A mention is a handle: `[0]`, or `[0 mara voss]` with its name. A network neither reads nor spells names, so one that
  it has never seen costs nothing. Values, such as numbers, are mentions, too.
- Numbers of handles are the caller's. `Numbering` replaces them by the order in which a text has them, which tells
  nothing that the text does not.
- Relations are given from outside; this module knows no schema.
- Any text can be read. A text that fits `pattern` is read without loss.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

_HANDLE = re.compile(r"\[([0-9]{1,4})(?: [^\[\]\n]{1,200})?\]")
_RELATION = r"[^\s\[\]:;=?]{1,80}"
_PROPOSITION = re.compile(rf"\[([0-9]{{1,4}})\] ({_RELATION}) \[([0-9]{{1,4}})\]")
SEPARATOR = " ; "

HOLE, HIDDEN = "[?]", "[_]"
"""What a question asks for, and whom it does not name."""

LONGEST = 16
"""Most propositions of a text, and most relations of a path."""


@dataclass(frozen=True, slots=True)
class Proposition:
    """What a text says of two of its mentions."""

    subject: int
    relation: str
    object: int

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"[{self.subject}] {self.relation} [{self.object}]"


def written(propositions: Iterable[Proposition]) -> str:
    """Return the text of propositions; "" says nothing."""
    return SEPARATOR.join(map(str, propositions))


def read(
    text: str, handles: Collection[int] | None = None, relations: Collection[str] | None = None
) -> tuple[list[Proposition], list[str]]:
    """Return the propositions of a text that make sense, each once, and what is wrong with the others; total.

    Args:
        text: such as `written` returns; others, too.
        handles: those that the propositions may be about; None for any.
        relations: those that there are; None for any.
    """
    found: dict[Proposition, None] = {}
    wrong = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        match = _PROPOSITION.fullmatch(part)
        if match is None:
            wrong.append(f"not a proposition: {part[:60]!r}; write: [0] works_for [1]")
            continue
        one = Proposition(int(match[1]), match[2], int(match[3]))
        strangers = [] if handles is None else [h for h in (one.subject, one.object) if h not in handles]
        if strangers:
            wrong.append(f"no [{strangers[0]}] in this text")
        elif relations is not None and one.relation not in relations:
            wrong.append(f"unknown relation {one.relation}")
        else:
            found[one] = None
    return list(found), wrong


def pattern(relations: Collection[str], handles: Collection[int]) -> str:
    """Return the regular expression of all propositions about some handles, for constrained decoding; ends its line.

    Raises:
        ValueError: there are no relations or handles, or a relation's name cannot be written.
    """
    one = rf"{_any_handle(handles)} {_any_relation(relations)} {_any_handle(handles)}"
    return rf"(?:{one}(?:{SEPARATOR}{one}){{0,{LONGEST - 1}}})?\n"


def path_pattern(relations: Collection[str], handles: Collection[int]) -> str:
    """Return the regular expression of look-ups, `[0] : works_for seat =`; errors as `pattern`."""
    return rf"{_any_handle(handles)} :(?: {_any_relation(relations)}){{1,{LONGEST}}} ="


def _any_handle(handles: Collection[int]) -> str:
    if not handles:
        raise ValueError("propositions need at least one handle; a text without mentions says nothing")
    return rf"\[(?:{'|'.join(map(str, sorted(handles)))})\]"


def _any_relation(relations: Collection[str]) -> str:
    if not relations:
        raise ValueError("propositions need at least one relation; name some")
    return f"(?:{'|'.join(re.escape(checked_relation(name)) for name in sorted(relations))})"


def checked_relation(name: str) -> str:
    """Return the name of a relation if it can be written.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(_RELATION, name):
        raise ValueError(f"relation {name[:60]!r} cannot be written; use a name without spaces and []:;=?, such as a_b")
    return name


def handles_of(text: str) -> list[int]:
    """Return the handles of a text, in the order in which it has them."""
    return list(dict.fromkeys(int(number) for number in _HANDLE.findall(text)))


def without_names(text: str) -> str:
    """Return a text whose mentions are bare handles."""
    return _HANDLE.sub(r"[\1]", text)


def is_whole(text: str, propositions: Sequence[Proposition]) -> bool:
    """Return whether propositions use all mentions of a text, and no others, and none of them is about one alone.

    What a network makes of its own is learned from only if this holds.
    """
    used = {handle for one in propositions for handle in (one.subject, one.object)}
    return bool(used) and used == set(handles_of(text)) and all(one.subject != one.object for one in propositions)


class Numbering:
    """The handles of a text by the order in which it has them.

    Args:
        text: handles that it does not have follow, in their own order.
    """

    def __init__(self, text: str) -> None:
        self.handles = handles_of(text)

    def numbered(self, text: str) -> str:
        """Return a text with handles by order in place of its own."""
        order = [*self.handles, *sorted(set(handles_of(text)) - set(self.handles))]
        return _replaced(text, {handle: place for place, handle in enumerate(order)})

    def original(self, text: str) -> str:
        """Return a text with its own handles again; those that there are not stay as they are."""
        return _replaced(text, dict(enumerate(self.handles)))


def _replaced(text: str, numbers: dict[int, int]) -> str:
    def handle(match: re.Match[str]) -> str:
        number = int(match[1])
        return f"[{numbers.get(number, number)}{match[0][1 + len(match[1]) :]}"

    return _HANDLE.sub(handle, text)


def in_order_of(text: str, propositions: Iterable[Proposition]) -> list[Proposition]:
    """Return propositions in the order in which a text has mentioned both of their handles."""
    place = {handle: number for number, handle in enumerate(handles_of(text))}
    last = len(place)

    def key(one: Proposition) -> tuple[int, int, int, str]:
        at, other = place.get(one.subject, last), place.get(one.object, last)
        return max(at, other), at, other, one.relation

    return sorted(propositions, key=key)


def shared_and_all(said: Sequence[Proposition], true: Sequence[Proposition]) -> tuple[int, int]:
    """Return twice the number of propositions that two sets share, and the sum of their sizes.

    Added up over texts, their ratio is F1 (micro); of two sets that say nothing both numbers are 0.
    """
    one, other = set(said), set(true)
    return 2 * len(one & other), len(one) + len(other)
