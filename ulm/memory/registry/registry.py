"""Entity registry: who and what texts speak of, with what is known of them and who says so.

- A kind (cat) is one entity wherever it is met; an individual (a cat called Tom) is one of its scope until evidence says
  otherwise. Keyed by name, most named characters of a corpus of stories would be somebody else's (docs/concepts).
- What is known is a pure function of live assertions. So forgetting a source is the same as never having read it, and a
  merge is an assertion that can be taken back. History stays.
- Numbers of entities and assertions follow from the order of changes: equal changes give equal files (`digest`).
- One process writes at a time, others wait; readers have a consistent state.
"""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import networkx as nx
from rapidfuzz.distance import JaroWinkler

from ulm.files import write_whole
from ulm.memory.registry.identity import Decision, Identity, Known, Mention, Resolution, shipped_identity
from ulm.memory.registry.names import normalised
from ulm.memory.registry.store import ALWAYS, NAMED, NOBODY, SAME, Assertion, EntityStore, Origin, Relation

CANDIDATES = 12
"""Individuals of the likest names that a mention is compared with."""

ALIKE = 0.93
"""Likeness from which on names count as one when it is asked how rare a name is."""

DECIDED = ":identity"
"""Agent of same-as assertions that `resolve` makes."""

Value = int | str
"""An entity, or a text."""


@dataclass(frozen=True, slots=True)
class Entity:
    """What is known of an entity.

    Attributes:
        id: the smallest number that it has.
        ids: all numbers that stand for it.
        entity_type: such as `person`; "" where nobody said.
        is_kind: whether it is a kind, not an individual.
        names: as they were written, in order.
        properties: property -> texts.
        relations: relation -> entities, those that follow from inverse, symmetric and transitive ones among them.
        contested: functional properties and relations of which live assertions differ; the newest valid one counts.
        sources: who says anything of it, in order.
    """

    id: int
    ids: tuple[int, ...]
    entity_type: str
    is_kind: bool
    names: tuple[str, ...]
    properties: Mapping[str, tuple[str, ...]]
    relations: Mapping[str, tuple[int, ...]]
    contested: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """One assertion, for people.

    Attributes:
        id: its number. subject: of whom.
        relation: what; `:name` and `:same` are the registry's own.
        value: entity or text. valid_from: since when.
        source, agent, tick: where it comes from.
        gone: number of the change that took it back, 0 while it holds.
    """

    id: int
    subject: int
    relation: str
    value: Value
    valid_from: int
    source: str
    agent: str
    tick: int
    gone: int


class EntityRegistry:
    """Persistent entities with properties and relations.

    Args:
        path: SQLite file; None keeps everything in memory.
        read_only: open an existing file for reading alone.
        conflicts: what happens to a functional claim that contradicts a live one of the same time: `newest` keeps
            both, and the newest counts; `oldest` keeps both, and the oldest counts; `refuse` raises.
        identity: what decides who is meant; None for the one that comes with the package.
        on_new_entity: called with the number of each new entity.

    Raises:
        ValueError: the file is damaged, newer, or something else.
        FileNotFoundError: there is no file, and it is for reading alone.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        read_only: bool = False,
        conflicts: Literal["newest", "oldest", "refuse"] = "newest",
        identity: Identity | None = None,
        on_new_entity: Callable[[int], None] = lambda number: None,
    ) -> None:
        if conflicts not in ("newest", "oldest", "refuse"):
            raise ValueError(f"conflicts is 'newest', 'oldest' or 'refuse', got {conflicts!r}")
        self._store = EntityStore(path, read_only=read_only)
        self._relations = self._store.relations()
        self.conflicts = conflicts
        self.identity = identity or shipped_identity()
        self.on_new_entity = on_new_entity

    @classmethod
    def load(cls, path: Path) -> EntityRegistry:
        """Open a file that exists.

        Raises:
            ValueError: the file is damaged, newer, or something else.
            FileNotFoundError: there is none.
        """
        if not path.is_file():
            raise FileNotFoundError(f"there is no registry at {path}")
        return cls(path)

    def save(self, path: Path) -> None:
        """Write everything to a new file, which takes its name when it is whole."""
        self._store.copy_to(path)

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()

    # Who and what

    def declare(self, relation: Relation) -> None:
        """Say how a relation or property behaves, before it is used.

        Raises:
            ValueError: it is declared otherwise already, or a relation is a property and has flags of relations.
        """
        if relation.name.startswith(":") or not relation.name.strip():
            raise ValueError(f"a relation cannot be called {relation.name!r}; begin with a letter")
        if relation.is_property and (relation.symmetric or relation.transitive or relation.inverse):
            raise ValueError(f"property {relation.name!r} has texts as values; it has no direction that could turn")
        self._store.declare(relation)
        if relation.inverse:
            back = Relation(
                relation.inverse, symmetric=relation.symmetric, transitive=relation.transitive, inverse=relation.name
            )
            if relation.inverse not in self._store.relations():
                self._store.declare(back)
        self._relations = self._store.relations()

    def get_or_create(self, name: str, entity_type: str = "", origin: Origin = NOBODY) -> int:
        """Return the kind with a name, made where there is none; the source is noted as one that knows it.

        Args:
            name: such as `cat`.
            entity_type: kinds of other types with this name are others; "" is any.
            origin: who speaks of it.
        """
        with self._store.writing():
            for entity in self._store.named(name):
                about = self._store.entity(entity)
                if about is not None and about[0] and self._is_live(entity):
                    if entity_type in ("", self._type_of(entity)):
                        self._note_name(entity, name, entity_type, origin)
                        return self.representative(entity)
            return self._created(name, entity_type, origin, is_kind=True, scope="")

    def create(self, name: str, entity_type: str = "", scope: str = "", origin: Origin = NOBODY) -> int:
        """Make an individual that nobody spoke of before, and return its number.

        Args:
            name: what it is called.
            entity_type: such as `cat`.
            scope: text or session in which this name means it.
            origin: who speaks of it.
        """
        with self._store.writing():
            return self._created(name, entity_type, origin, is_kind=False, scope=scope)

    def _created(self, name: str, entity_type: str, origin: Origin, *, is_kind: bool, scope: str) -> int:
        normalised(name)  # refuses an empty one before anything is written
        number = self._store.add_entity(is_kind=is_kind, scope=scope)
        self._store.add_name(number, name, entity_type, origin)
        self.on_new_entity(number)
        return number

    def add_name(self, entity: int, name: str, entity_type: str = "", origin: Origin = NOBODY) -> None:
        """Note that a source calls an entity by a name, and perhaps of which type it is."""
        with self._store.writing():
            self._refuse_unknown(entity)
            self._note_name(entity, name, entity_type, origin)

    def _note_name(self, entity: int, name: str, entity_type: str, origin: Origin) -> None:
        source, norm, type_ = self._store.text(origin.source), normalised(name), self._store.text(entity_type)
        known = self._store.of_subject(entity, NAMED)
        if not any(o.source == source and normalised(o.value) == norm and type_ in (0, o.object) for o in known):
            self._store.add_name(entity, name, entity_type, origin)

    def _type_of(self, entity: int) -> str:
        """Return what the first source to say so says an entity is; "" where none does."""
        types = (one.object for number in self._ids(entity) for one in self._store.of_subject(number, NAMED))
        return next((self._store.text_of(number) for number in types if number), "")

    def named(self, name: str) -> list[int]:
        """Return the entities that have a name, the oldest first."""
        norm = normalised(name)
        found = [
            self.representative(entity)
            for entity in self._store.named(name)
            if any(normalised(one.value) == norm for one in self._store.of_subject(entity, NAMED))
        ]
        return sorted(set(found))

    def like(self, name: str, most: int = 200) -> list[int]:
        """Return entities whose names share words with a name, one typing error in each forgiven; the likest first."""
        live = (entity for entity in self._store.like(name, most) if self._is_live(entity))
        return list(dict.fromkeys(self.representative(entity) for entity in live))

    # Who is meant

    def resolve(
        self,
        name: str,
        entity_type: str = "",
        scope: str = "",
        claims: Sequence[tuple[str, str]] = (),
        origin: Origin = NOBODY,
    ) -> Resolution:
        """Say which individual a text means, and note that it speaks of it.

        Within a scope a name means one individual. Otherwise the one that a text means is a number of its own, and
        where it is decided that it is a known one, a same-as assertion of the text: so it goes when the text does.

        Args:
            name: what the text calls it.
            entity_type: of what type it is, "" where the text does not say.
            scope: the text or session.
            claims: what the text says of it that may tell: (relation, name of the other entity, or value).
            origin: who says so.
        """
        with self._store.writing():
            norm = normalised(name)
            for entity in self._store.named(name) if scope else ():
                about = self._store.entity(entity)
                if about == (False, scope) and any(normalised(n) == norm for n in self._store.names_of(entity)):
                    self._note_name(entity, name, entity_type, origin)
                    return Resolution(entity, "same", ((self.representative(entity), 1.0),))
            entity = self._created(name, entity_type, origin, is_kind=False, scope=scope)
            (said,) = self._store.of_subject(entity, NAMED)
            self._store.add_mention(entity, said, claims)
            ranked, decision = self._identified(entity)
            if decision == "same":
                self._link(entity, ranked[0][0], said)
            return Resolution(entity, decision, tuple(ranked))

    def _link(self, entity: int, other: int, said: Assertion) -> None:
        origin = Origin(self._store.text_of(said.source), DECIDED, said.tick)
        self._store.add(entity, SAME, other, origin, valid_from=said.id)

    def _identified(self, entity: int) -> tuple[list[tuple[int, float]], Decision]:
        """Return who an individual may be, by what was known when a text first spoke of it."""
        noted = self._store.mention(entity)
        if noted is None:
            return [], "new"
        said, claims = noted
        until, norm = said.id - 1, normalised(said.value)
        kinds = {name for name, (_, relation) in self._relations.items() if relation.functional}
        mention = Mention(
            norm,
            self._store.text_of(said.object or 0),
            (self._store.entity(entity) or (False, ""))[1],
            frozenset((relation, normalised(value)) for relation, value in claims if value.strip()),
            frozenset(kinds),
        )
        known = self._candidates(entity, norm, until)
        share = self.identity.probabilities(mention, known)
        ranked = sorted(zip((one.id for one in known), share.tolist(), strict=True), key=lambda one: (-one[1], one[0]))
        return ranked, self.identity.decide(ranked)

    def _candidates(self, entity: int, norm: str, until: int) -> list[Known]:
        """Return the individuals of the past that a name may mean, the likest names only."""
        groups: dict[int, tuple[int, ...]] = {}
        for other in self._store.like(norm):
            if other < entity and not (self._store.entity(other) or (True,))[0] and self._is_live(other, until):
                ids = self._ids(other, until)
                groups[ids[0]] = ids
        named = {
            first: [normalised(one.value) for number in ids for one in self._store.of_subject(number, NAMED, until)]
            for first, ids in groups.items()
        }
        likeness = {first: max(JaroWinkler.similarity(norm, name) for name in names) for first, names in named.items()}
        near = sorted(likeness, key=lambda first: (-likeness[first], first))
        share = sum(1 for first in near if likeness[first] > ALIKE)
        return [self._known(groups[first], named[first], max(share, 1), until) for first in near[:CANDIDATES]]

    def _known(self, ids: Sequence[int], names: Sequence[str], share: int, until: int) -> Known:
        """Return a candidate as it was known once."""
        by_number = {number: name for name, (number, _) in self._relations.items()}
        claims: dict[str, set[str]] = {}
        types, scopes = [], set()
        for number in ids:
            scopes.add((self._store.entity(number) or (False, ""))[1])
            for one in self._store.of_subject(number, until=until):
                if one.relation == NAMED:
                    types += [one.object] if one.object else []
                elif one.relation != SAME:
                    values = [one.value] if one.other is None else self._names_at(one.other, until)
                    claims.setdefault(by_number[one.relation], set()).update(filter(None, map(_plain, values)))
            for one in self._store.of_object(number, until=until):
                if one.relation != SAME and self._is_live(one.subject, until):
                    inverse = self._relations[by_number[one.relation]][1].inverse or by_number[one.relation] + " of"
                    claims.setdefault(inverse, set()).update(map(_plain, self._names_at(one.subject, until)))
        said = {relation: frozenset(values) for relation, values in claims.items()}
        type_ = self._store.text_of(types[0]) if types else ""
        return Known(ids[0], tuple(dict.fromkeys(names)), type_, frozenset(scopes - {""}), said, share)

    def _names_at(self, entity: int, until: int) -> list[str]:
        return [one.value for one in self._store.of_subject(entity, NAMED, until)]

    def _reconsider(self, changed: Iterable[int]) -> None:
        """Decide anew who was meant, where what that was decided by is gone: as if it had never been known.

        Decisions rest on what came before them, so they are taken in the order of the past.
        """
        todo: set[int] = set()
        done: set[int] = set()

        def look_after(entities: Iterable[int], since: int) -> None:
            for entity in entities:
                around = {entity, *self._ids(entity)}
                around |= {one.subject for e in tuple(around) for one in self._store.of_object(e)}
                around |= {one.other for e in tuple(around) for one in self._store.of_subject(e) if one.other}
                for other in around:
                    for name in {one.value for one in self._store.every([other]) if one.relation == NAMED}:
                        todo.update(e for e in self._store.like(name) if e > since and e not in done)

        look_after(changed, 0)
        while todo:
            entity = min(todo)
            todo.discard(entity)
            done.add(entity)
            noted = self._store.mention(entity)
            if noted is None or noted[0].gone or not self._is_live(entity):
                continue
            links = [one for one in self._store.of_subject(entity, SAME) if self._store.text_of(one.agent) == DECIDED]
            ranked, decision = self._identified(entity)
            wanted = ranked[0][0] if decision == "same" else None
            before = {
                self._ids(one.other, noted[0].id - 1)[0] for one in links if one.other and self._is_live(one.other)
            }
            if before == ({wanted} if wanted else set()) and len(before) == len(links):
                continue
            around = set(self._ids(entity))
            self._store.take_back(links)
            if wanted:
                self._link(entity, wanted, noted[0])
            look_after(around | set(self._ids(entity)), entity)

    # What is said of them

    def add_property(
        self, entity: int, name: str, value: str, origin: Origin = NOBODY, valid_from: int | None = None
    ) -> Said:
        """Note what an entity is like.

        Args:
            entity: whom it is said of.
            name: of the property.
            value: a text.
            origin: who says so.
            valid_from: since when; the tick of the origin by default.

        Raises:
            ValueError: unknown entity, a relation between entities, or a contradiction under `conflicts: refuse`.
        """
        return self._add(entity, name, value, origin, valid_from)

    def add_relation(
        self, entity: int, name: str, other: int, origin: Origin = NOBODY, valid_from: int | None = None
    ) -> Said:
        """Note how an entity stands to another, as `add_property` does."""
        return self._add(entity, name, other, origin, valid_from)

    def _add(self, entity: int, name: str, value: Value, origin: Origin, valid_from: int | None) -> Said:
        with self._store.writing():
            self._refuse_unknown(entity)
            is_property = isinstance(value, str)
            if name not in self._relations:
                self._relations = self._store.relations()
            if name not in self._relations:
                self.declare(Relation(name, is_property=is_property))
            number, relation = self._relations[name]
            if relation.is_property != is_property:
                kind, wanted = ("property", "a text") if relation.is_property else ("relation", "an entity")
                raise ValueError(f"{name!r} is a {kind}: its value is {wanted}, got {value!r}")
            entity = self._spoken_of(entity, origin)
            if isinstance(value, int):
                self._refuse_unknown(value)
                value = self._spoken_of(value, origin)
            if self.conflicts == "refuse" and relation.functional:
                self._refuse_conflict(
                    entity, number, relation, value, origin.tick if valid_from is None else valid_from
                )
            return self._said(self._store.add(entity, number, value, origin, valid_from))

    def _spoken_of(self, entity: int, origin: Origin) -> int:
        """Return the number by which a source knows an entity, so that what it says does not hang on another source.

        A source that speaks of it for the first time calls it as it is called.
        """
        source = self._store.text(origin.source)
        for number in (entity, *self._ids(entity)):
            if any(one.source == source for one in self._store.of_subject(number, NAMED)):
                return number
        self._store.add_name(entity, self._store.names_of(entity)[0], "", origin)
        return entity

    def _refuse_conflict(self, entity: int, number: int, relation: Relation, value: Value, valid_from: int) -> None:
        for subject in self._ids(entity):
            for one in self._store.of_subject(subject, number):
                there = self._value(one)
                if one.valid_from == valid_from and there != self._settled(value):
                    source = self._store.text_of(one.source) or "an unnamed source"
                    raise ValueError(
                        f"{relation.name} of {entity} is {there!r} by {source}, and {value!r} now; forget that source, "
                        f"or set conflicts to 'newest'"
                    )

    def _refuse_unknown(self, entity: int) -> None:
        if not self._is_live(entity):
            raise ValueError(f"there is no entity {entity}")

    # What holds now

    def _is_live(self, entity: int, until: int = ALWAYS) -> bool:
        return bool(self._store.of_subject(entity, NAMED, until))

    def _counts(self, one: Assertion) -> bool:
        """Return whether an assertion says anything: not of an entity that nobody speaks of any more."""
        return one.other is None or self._is_live(one.other)

    def _ids(self, entity: int, until: int = ALWAYS) -> tuple[int, ...]:
        """Return all numbers that stand for an entity, ascending: a component of live same-as assertions."""
        found, todo = {entity}, deque([entity])
        while todo:
            at = todo.popleft()
            links = self._store.of_subject(at, SAME) + self._store.of_object(at, SAME)
            for one in links:
                other = one.subject if one.other == at else one.other
                if other and other not in found and self._when(one) <= until and self._is_live(other, until):
                    found.add(other)
                    todo.append(other)
        return tuple(sorted(found))

    def _when(self, link: Assertion) -> int:
        """Return the number of the assertion after which a same-as assertion holds: what is decided anew held then."""
        return link.valid_from if self._store.text_of(link.agent) == DECIDED else link.id

    def representative(self, entity: int) -> int:
        """Return the smallest number that stands for the same entity."""
        return self._ids(entity)[0]

    def _settled(self, value: Value) -> Value:
        return self.representative(value) if isinstance(value, int) else value

    def _value(self, one: Assertion) -> Value:
        return one.value if one.other is None else self.representative(one.other)

    @property
    def num_entities(self) -> int:
        """Entities that anybody speaks of."""
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[int]:
        """Return the numbers of all entities, ascending, each once."""
        return (entity for entity in self._store if self._is_live(entity) and self.representative(entity) == entity)

    def get_entity(self, entity: int) -> Entity:
        """Return what is known of an entity.

        Raises:
            ValueError: there is none, or nobody speaks of it any more.
        """
        self._refuse_unknown(entity)
        ids = self._ids(entity)
        said = [one for number in ids for one in self._store.of_subject(number) if self._counts(one)]
        names = [one.value for number in ids for one in self._store.of_subject(number, NAMED)]
        properties, relations, contested = {}, {}, []
        for name, (number, relation) in sorted(self._store.relations().items()):
            if number in (NAMED, SAME):
                continue
            values = self.lookup(entity, name)
            if values and relation.is_property:
                properties[name] = tuple(value for value in values if isinstance(value, str))
            elif values:
                relations[name] = tuple(value for value in values if isinstance(value, int))
            if relation.functional and len({self._value(one) for one in said if one.relation == number}) > 1:
                contested.append(name)
        return Entity(
            ids[0],
            ids,
            self._type_of(entity),
            bool((self._store.entity(ids[0]) or (False,))[0]),
            tuple(dict.fromkeys(names)),
            properties,
            relations,
            tuple(contested),
            tuple(dict.fromkeys(self._store.text_of(one.source) for one in sorted(said))),
        )

    def lookup(self, entity: int, relation: str) -> list[Value]:
        """Return what an entity has under a relation or property: entities ascending, or texts; [] for nothing known.

        Relations that are said the other way round, or follow from transitive ones, are among it.
        """
        known = self._store.relations().get(relation) if relation not in self._relations else self._relations[relation]
        if known is None or not self._is_live(entity):
            return []
        number, flags = known
        if not flags.transitive:
            return self._direct(entity, number, flags)
        found: dict[Value, None] = {}
        todo: deque[int] = deque([self.representative(entity)])
        while todo:
            for value in self._direct(todo.popleft(), number, flags):
                if value not in found:
                    found[value] = None
                    todo += [value] if isinstance(value, int) else []
        return sorted(found, key=str) if flags.is_property else sorted(v for v in found if isinstance(v, int))

    def _direct(self, entity: int, number: int, flags: Relation) -> list[Value]:
        """Return what is said of an entity under a relation, one step far."""
        ids = self._ids(entity)
        found = self._said_of(ids, number, flags)
        if flags.inverse:
            back, others = self._relations[flags.inverse]
            for subject in sorted({one.subject for i in ids for one in self._store.of_object(i, back)}):
                if self._is_live(subject) and ids[0] in self._said_of(self._ids(subject), back, others):
                    found.append(self.representative(subject))
        if flags.symmetric and not flags.functional:
            for subject in sorted({one.subject for i in ids for one in self._store.of_object(i, number)}):
                if self._is_live(subject):
                    found.append(self.representative(subject))
        if flags.is_property:
            return list(dict.fromkeys(found))
        return sorted({value for value in found if isinstance(value, int)})

    def _said_of(self, ids: Sequence[int], number: int, flags: Relation) -> list[Value]:
        """Return what live assertions say of an entity under a relation; of a functional one what counts."""
        said = [one for i in ids for one in self._store.of_subject(i, number)]
        if flags.symmetric and flags.functional:  # a marriage ends for both
            said += [
                one._replace(subject=one.object or 0, object=one.subject)
                for i in ids
                for one in self._store.of_object(i, number)
                if self._is_live(one.subject)
            ]
        said = sorted(filter(self._counts, said))
        if flags.functional and said:
            newest = max(said, key=lambda one: (one.valid_from, one.id if self.conflicts != "oldest" else -one.id))
            said = [newest]
        return list(dict.fromkeys(self._value(one) for one in said))

    def path(self, entity: int, relations: Iterable[str]) -> list[Value]:
        """Return where relations lead, one after the other: `path(mara, ["sister", "employer", "seat"])`."""
        at: list[Value] = [self.representative(entity)] if self._is_live(entity) else []
        for relation in relations:
            ends = {value: None for one in at if isinstance(one, int) for value in self.lookup(one, relation)}
            at = sorted(
                ends, key=lambda value: (isinstance(value, str), value if isinstance(value, int) else 0, str(value))
            )
        return at

    def paths(self, start: int, end: int, max_hops: int = 4) -> list[list[tuple[str, int]]]:
        """Return the shortest ways from one entity to another, each as relations with the entities they lead to."""
        goal = self.representative(end)
        todo: deque[tuple[int, list[tuple[str, int]]]] = deque([(self.representative(start), [])])
        depth: dict[int, int] = {self.representative(start): 0}
        found: list[list[tuple[str, int]]] = []
        while todo:
            at, way = todo.popleft()
            if at == goal:
                found.append(way)
                continue
            if len(way) >= (len(found[0]) if found else max_hops):
                continue
            for name, others in self.get_entity(at).relations.items():
                for other in others:
                    if depth.setdefault(other, len(way) + 1) >= len(way) + 1:
                        todo.append((other, [*way, (name, other)]))
        return found

    # What was said, and taking it back

    def history(self, entity: int) -> list[Said]:
        """Return all that was ever said of an entity, in order, what was taken back among it."""
        return [self._said(one) for one in self._store.every(self._ids(entity))]

    def _said(self, one: Assertion) -> Said:
        names = {number: name for name, (number, _) in self._store.relations().items()}
        return Said(
            one.id,
            one.subject,
            names[one.relation],
            one.value if one.other is None else one.other,
            one.valid_from,
            self._store.text_of(one.source),
            self._store.text_of(one.agent),
            one.tick,
            one.gone,
        )

    def forget(self, source: str) -> int:
        """Take back all that a source says; return how many assertions that were.

        What others say holds again, as if the source had never been read: former values count, and entities of which
        nobody else speaks are gone.
        """
        with self._store.writing():
            gone = self._store.of_source(source)
            self._store.take_back(gone)
            self._reconsider({entity for one in gone for entity in (one.subject, one.other) if entity})
        return len(gone)

    def merge(self, one: int, other: int, origin: Origin = NOBODY) -> int:
        """Say that two entities are one; return its number. `split` takes it back.

        Raises:
            ValueError: an entity is unknown, or one is a kind and the other an individual.
        """
        with self._store.writing():
            for entity in (one, other):
                self._refuse_unknown(entity)
            kinds = [self.get_entity(entity).is_kind for entity in (one, other)]
            if kinds[0] != kinds[1]:
                raise ValueError(f"{one} and {other} cannot be one: one is a kind, the other an individual")
            one, other = self._spoken_of(one, origin), self._spoken_of(other, origin)
            source = self._store.text(origin.source)
            if one != other and not any(link.source == source for link in self._between(one, other)):
                self._store.add(one, SAME, other, origin)  # others may have said so, and be forgotten
            return self.representative(one)

    def _between(self, one: int, other: int) -> list[Assertion]:
        """Return who says that two numbers stand for the same."""
        links = [*self._store.of_subject(one, SAME), *self._store.of_subject(other, SAME)]
        return [link for link in links if {link.subject, link.other} == {one, other}]

    def split(self, one: int, other: int) -> None:
        """Take back that two entities are one.

        Raises:
            ValueError: nobody said so of these two; or they are still one by what was said of others.
        """
        with self._store.writing():
            between = self._between(one, other)
            if not between:
                raise ValueError(f"nobody said that {one} and {other} are one; `history` shows who said what")
            self._store.take_back(between)
            if other in self._ids(one):
                raise ValueError(f"{one} and {other} are one by what was said of others, too; split those first")

    # All of it

    @property
    def revision(self) -> int:
        """Number of the last change."""
        return self._store.revision

    @property
    def digest(self) -> str:
        """Hash of all changes; equal histories have equal ones."""
        return self._store.digest

    def graph(self) -> nx.MultiDiGraph:
        """Return entities and relations as they hold now; nodes have names and type, edges the relation."""
        graph = nx.MultiDiGraph()
        for number in self:
            entity = self.get_entity(number)
            graph.add_node(number, names=entity.names, entity_type=entity.entity_type, **entity.properties)
            graph.add_edges_from(
                (number, other, {"relation": name}) for name, others in entity.relations.items() for other in others
            )
        return graph

    def export(self, path: Path) -> int:
        """Write what holds now as JSON lines, or as CSV rows where the name ends in .csv; return how many entities."""
        entities = [self.get_entity(number) for number in self]
        if path.suffix == ".csv":
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["entity", "type", "name", "relation", "value"])
            for entity in entities:
                values = [(name, value) for name, some in entity.properties.items() for value in some]
                values += [(name, str(other)) for name, some in entity.relations.items() for other in some]
                for name, value in values or [("", "")]:
                    writer.writerow([entity.id, entity.entity_type, entity.names[0], name, value])
            write_whole(path, text.getvalue())
        else:
            rows = [
                {
                    "id": entity.id,
                    "type": entity.entity_type,
                    "names": entity.names,
                    "properties": entity.properties,
                    "relations": entity.relations,
                    "sources": entity.sources,
                }
                for entity in entities
            ]
            write_whole(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
        return len(entities)


def _plain(text: str) -> str:
    """Return a text as claims are compared by it, "" for an empty one."""
    return normalised(text) if text.strip() else ""
