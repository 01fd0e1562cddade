"""Propositions and questions as text, and answers from a registry.

A proposition is `[0] in [1]`: mentions by their number, and a relation. `*` is what a sentence itself tells of, such as
a handing over: `* giver [0] ; * gift [1]`. `@2` at the end says when. A question is propositions with a hole:

    [0] in ?                     what there is under a relation, or, with the hole before it, whom it leads to
    [0] in ? before [1]          what there was before
    # held_by [0]                how many
    [0] in [1]                   whether: yes, no or maybe
    * giver [0] ; * gift ?       of the last of which all the rest is said
    [0] ? [1]                    the relations of the shortest way from one to the other
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ulm.memory.registry import EntityRegistry, Origin
from ulm.memory.registry.view import Value
from ulm.symmetric.timeline import BACK, Timeline

HOLE, COUNT, ITSELF = "?", "#", "*"

_TERM = r"(\[[0-9]{1,3}\]|[?#*])"
_TRIPLE = re.compile(rf"{_TERM} ([a-z_]+|\?) {_TERM}")
_TEXT = re.compile(r"(?P<triples>.+?)(?: @(?P<at>[0-9]{1,6})| before (?P<before>\[[0-9]{1,3}\]))?")


class Triple(NamedTuple):
    """Subject, relation, object: mentions `[0]`, `*`, or a hole."""

    subject: str
    relation: str
    object: str


class Statement(NamedTuple):
    """What a sentence or a question says.

    Attributes:
        triples: what is claimed or asked.
        at: since when, None for now.
        before: mention of the value before which is asked, "" for none.
    """

    triples: tuple[Triple, ...]
    at: int | None = None
    before: str = ""

    def __str__(self) -> str:
        """Return the text of it."""
        end = f" @{self.at}" if self.at is not None else f" before {self.before}" if self.before else ""
        return " ; ".join(" ".join(triple) for triple in self.triples) + end


def parse(text: str) -> Statement | None:
    """Return what a text says, None where it makes no sense."""
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        return None
    matches = [_TRIPLE.fullmatch(part) for part in found["triples"].split(" ; ")]
    triples = tuple(Triple(*match.groups()) for match in matches if match)
    if len(triples) < len(matches):
        return None
    return Statement(triples, int(found["at"]) if found["at"] else None, found["before"] or "")


def pattern(mentions: int, relations: Sequence[str]) -> str:
    """Return a pattern of propositions over so many mentions, times of one digit, for `Constraint.from_regex`."""
    handles = [rf"\[{number}\]" for number in range(mentions)]
    term, name = rf"(?:{'|'.join([*handles, '[?#*]'])})", f"(?:{'|'.join(relations)}|[?])"
    end = rf"(?: @[0-9]| before (?:{'|'.join(handles)}))?" if handles else "(?: @[0-9])?"
    return rf"{term} {name} {term}(?: ; {term} {name} {term}){{0,7}}{end}\n"


def tell(registry: EntityRegistry, said: Statement, mentions: Sequence[str], origin: Origin) -> None:
    """Write what a sentence claims; within a registry a name means one.

    Claims about mentions that are not there, and those with holes, are left out.

    Args:
        registry: is written.
        said: what is claimed.
        mentions: names, by their numbers.
        origin: who says so, and when.
    """
    names = {f"[{number}]": name for number, name in enumerate(mentions)}
    names[ITSELF] = f"{origin.source} {origin.tick}"
    with registry.writing():
        for subject, relation, object_ in said.triples:
            if subject in names and object_ in names and relation != HOLE:
                ends = [_entity(registry, names[term], origin) for term in (subject, object_)]
                registry.add_relation(ends[0], relation, ends[1], origin, said.at)


def _entity(registry: EntityRegistry, name: str, origin: Origin) -> int:
    return next(iter(registry.named(name)), 0) or registry.create(name, origin=origin)


def answer(timeline: Timeline, asked: Statement, mentions: Sequence[str]) -> list[str]:
    """Return the words of an answer: names, a number, yes, no or maybe, or relations of a way; [] for nothing known.

    Args:
        timeline: what is known.
        asked: the question.
        mentions: names, by their numbers.
    """
    entities = {f"[{n}]": (timeline.view.named(name) or [0])[0] for n, name in enumerate(mentions)}
    terms = {term for triple in asked.triples for term in triple}
    if HOLE not in terms and COUNT not in terms:
        return [_whether(timeline, asked.triples, entities)]
    for subject, relation, object_ in asked.triples:
        if relation == HOLE:
            ways = (
                timeline.view.paths(entities.get(subject, 0), entities.get(object_, 0)) if _all_known(entities) else []
            )
            return [step for step, _ in ways[0]] if ways else []
    found = _found(timeline, asked, entities)
    if COUNT in terms:
        return [str(len(found))]
    return [value if isinstance(value, str) else timeline.view.names(value)[0] for value in found]


def _whether(timeline: Timeline, triples: Sequence[Triple], entities: dict[str, int]) -> str:
    held = [timeline.holds(entities.get(t.subject, 0), t.relation, entities.get(t.object, 0)) for t in triples]
    return "no" if False in held else "maybe" if None in held else "yes"


def _all_known(entities: dict[str, int]) -> bool:
    return all(entities.values())


def _found(timeline: Timeline, asked: Statement, entities: dict[str, int]) -> list[Value]:
    """Return what fills the hole."""
    known = dict(entities)
    *given, holed = sorted(asked.triples, key=lambda triple: bool({HOLE, COUNT} & set(triple)))
    if given:
        itself = _last_of(timeline, given, known)
        if itself is None:
            return []
        known[ITSELF] = itself
    turned = holed.subject in (HOLE, COUNT)
    start = known.get(holed.object if turned else holed.subject, 0)
    if asked.before:
        return timeline.before(start, holed.relation, known.get(asked.before, 0))
    return timeline.values(start, BACK + holed.relation if turned else holed.relation)


def _last_of(timeline: Timeline, given: Sequence[Triple], known: dict[str, int]) -> int | None:
    """Return the last one of which all that is given holds."""
    ends = []
    for subject, relation, object_ in given:
        step, other = (BACK + relation, object_) if subject == ITSELF else (relation, subject)
        ends.append(timeline.steps(known.get(other, 0), step))
    return next((one for one in ends[0] if isinstance(one, int) and all(one in some for some in ends)), None)
