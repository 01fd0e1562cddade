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
        before = [other for other in self.store.like(norm) if other < entity]
        individuals = self.store.individuals(before)
        groups = self.view.groups([other for other in before if other in individuals], until)
        said = self.store.of_each([number for ids in groups.values() for number in ids], NAMED, until)
        named = {
            first: [normalised(one.value) for number in ids for one in said.get(number, ())]
            for first, ids in groups.items()
        }
        likeness = {first: max(JaroWinkler.similarity(norm, name) for name in names) for first, names in named.items()}
        near = sorted(likeness, key=lambda first: (-likeness[first], first))
        return self._known({first: groups[first] for first in near[:CANDIDATES]}, named, until)

    def _known(
        self, groups: Mapping[int, Sequence[int]], named: Mapping[int, Sequence[str]], until: int
    ) -> list[Known]:
        """Return candidates as they were known once; what is said of all of them is read at once."""
        relations = dict(self.store.relations().values())
        numbers = [number for ids in groups.values() for number in ids]
        said = self.store.of_each(numbers, until=until)
        led = {number: self.store.of_object(number, until=until) for number in numbers}
        beside = {one.other for some in said.values() for one in some if one.other}
        beside |= {one.subject for some in led.values() for one in some}
        called = {
            number: {plain for one in some if (plain := _plain(one.value))}
            for number, some in self.store.of_each(sorted(beside), NAMED, until).items()
        }
        found = []
        for first, ids in groups.items():
            claims: dict[str, set[str]] = {}
            for one in (one for number in ids for one in said.get(number, ())):
                if one.relation != NAMED and not relations[one.relation].name.startswith(":"):
                    values = {_plain(one.value)} - {""} if one.other is None else called.get(one.other, set())
                    claims.setdefault(relations[one.relation].name, set()).update(values)
            for one in (one for number in ids for one in led[number]):
                if one.relation != SAME and one.subject in called:
                    flags = relations[one.relation]
                    claims.setdefault(flags.inverse or f"{flags.name} of", set()).update(called[one.subject])
            types = [
                one.object for number in ids for one in said.get(number, ()) if one.relation == NAMED and one.object
            ]
            scopes = {(self.store.entity(number) or (False, ""))[1] for number in ids} - {""}
            type_ = self.store.text_of(types[0]) if types else ""
            plain_claims = {relation: frozenset(values) for relation, values in claims.items()}
            found.append(Known(first, tuple(dict.fromkeys(named[first])), type_, frozenset(scopes), plain_claims))
        return found

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
