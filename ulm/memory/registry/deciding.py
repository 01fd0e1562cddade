"""Decisions on who is meant: taken when a text first speaks of an individual, and anew when evidence goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rapidfuzz.distance import JaroWinkler

from ulm.memory.registry.identity import Decision, Identity, Known, Mention
from ulm.memory.registry.names import normalised
from ulm.memory.registry.store import NAMED, SAME, Assertion, Origin
from ulm.memory.registry.view import DECIDED, RegistryView

CANDIDATES = 12
"""Individuals of the likest names that a mention is compared with."""


class Resolver:
    """Decides who is meant.

    Args:
        view: what is known.
        identity: what decides; None where nothing is to be decided.
    """

    def __init__(self, view: RegistryView, identity: Identity | None) -> None:
        self.view, self.store, self._identity = view, view.store, identity

    @property
    def identity(self) -> Identity:
        """What decides.

        Raises:
            ValueError: there is nothing that could.
        """
        if self._identity is None:
            raise ValueError("who is meant has to be decided here; open the registry with an `identity`")
        return self._identity

    def identified(self, entity: int) -> tuple[list[tuple[int, float]], Decision]:
        """Return who an individual may be, by what was known when a text first spoke of it."""
        noted = self.store.mention(entity)
        if noted is None:
            return [], "new"
        said, claims = noted
        until, norm = said.id - 1, normalised(said.value)
        flags = [relation for _, relation in self.store.relations().values() if relation.functional]
        mention = Mention(
            norm,
            self.store.text_of(said.object or 0),
            (self.store.entity(entity) or (False, ""))[1],
            frozenset((relation, plain) for relation, value in claims if (plain := _plain(value))),
            frozenset(one.name for one in flags if one.constant),
            frozenset(one.name for one in flags if not one.constant),
        )
        known = self._candidates(entity, norm, until)
        share = self.identity.probabilities(mention, known)
        ranked = sorted(zip((one.id for one in known), share.tolist(), strict=True), key=lambda one: (-one[1], one[0]))
        return ranked, self.identity.decide(ranked)

    def _candidates(self, entity: int, norm: str, until: int) -> list[Known]:
        """Return the individuals of the past that a name may mean, the likest names only."""
        individuals = self.store.individuals(other for other in self.store.like(norm) if other < entity)
        called = self.store.names_of_each(individuals, until)
        groups = self.view.groups(list(called), until)
        called |= self.store.names_of_each({one for ids in groups.values() for one in ids} - called.keys(), until)
        named = {
            first: tuple(dict.fromkeys(normalised(name) for number in ids for name in called[number]))
            for first, ids in groups.items()
        }
        likeness = {first: max(JaroWinkler.similarity(norm, name) for name in names) for first, names in named.items()}
        near = sorted(likeness, key=lambda first: (-likeness[first], first))
        return self._known({first: groups[first] for first in near[:CANDIDATES]}, named, until)

    def _known(
        self, groups: Mapping[int, Sequence[int]], named: Mapping[int, tuple[str, ...]], until: int
    ) -> list[Known]:
        """Return candidates as they were known once; what is said of all of them is read at once."""
        relations = dict(self.store.relations().values())
        first_of = {number: first for first, ids in groups.items() for number in ids}
        said, led = self.store.claims_of_each(first_of, until), self.store.claims_to_each(first_of, until)
        beside = {other for _, relation, other, _ in said if other and relation != NAMED} | {one for one, _, _ in led}
        called = self.store.names_of_each(beside, until)
        claims: dict[int, dict[str, set[str]]] = {first: {} for first in groups}
        types: dict[int, dict[int, int]] = {first: {} for first in groups}  # the oldest of each number

        def claim(entity: int, relation: str, values: Iterable[str]) -> None:
            claims[first_of[entity]].setdefault(relation, set()).update(filter(None, map(_plain, values)))

        for subject, relation, other, value in said:
            if relation == NAMED and other:
                types[first_of[subject]].setdefault(subject, other)
            elif relation != NAMED and not relations[relation].name.startswith(":"):
                claim(subject, relations[relation].name, [value] if other is None else called.get(other, ()))
        for subject, relation, other in led:
            if relation != SAME and subject in called:
                flags = relations[relation]
                claim(other, flags.inverse or f"{flags.name} of", called[subject])
        scopes = self.store.individuals(first_of)
        return [
            Known(
                first,
                named[first],
                self.store.text_of(min(types[first].items(), default=(0, 0))[1]),
                frozenset(self.store.text_of(scopes[number]) for number in ids) - {""},
                {relation: frozenset(values) for relation, values in claims[first].items()},
            )
            for first, ids in groups.items()
        ]

    def link(self, entity: int, other: int, said: Assertion) -> None:
        """Write that an individual is a known one, as decided when it was first spoken of."""
        origin = Origin(self.store.text_of(said.source), DECIDED, said.tick)
        self.store.add(entity, SAME, other, origin, valid_from=said.id)

    def reconsider(self, changed: Iterable[int]) -> None:
        """Decide anew who was meant, where what that was decided by is gone: as if it had never been known.

        Decisions rest on what came before them, so they are taken in the order of the past.
        """
        todo: set[int] = set()
        done: set[int] = set()

        def look_after(entities: Iterable[int], since: int) -> None:
            for entity in entities:
                around = {entity, *self.view.ids(entity)}
                around |= {one.subject for e in tuple(around) for one in self.store.of_object(e)}
                around |= {one.other for e in tuple(around) for one in self.store.of_subject(e) if one.other}
                for other in around:
                    for name in {one.value for one in self.store.every([other]) if one.relation == NAMED}:
                        todo.update(e for e in self.store.like(name) if e > since and e not in done)

        look_after(changed, 0)
        while todo:
            entity = min(todo)
            todo.discard(entity)
            done.add(entity)
            noted = self.store.mention(entity)
            if noted is None or noted[0].gone or not self.view.is_live(entity):
                continue
            links = [one for one in self.store.of_subject(entity, SAME) if self.store.text_of(one.agent) == DECIDED]
            ranked, decision = self.identified(entity)
            wanted = ranked[0][0] if decision == "same" else None
            before = {
                self.view.ids(one.other, noted[0].id - 1)[0]
                for one in links
                if one.other and self.view.is_live(one.other)
            }
            if before == ({wanted} if wanted else set()) and len(before) == len(links):
                continue
            around = set(self.view.ids(entity))
            self.store.take_back(links)
            if wanted:
                self.link(entity, wanted, noted[0])
            look_after(around | set(self.view.ids(entity)), entity)


def _plain(text: str) -> str:
    """Return a text as claims are compared by it, "" for an empty one."""
    return normalised(text) if text.strip() else ""
