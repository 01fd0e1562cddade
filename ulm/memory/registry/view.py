"""What holds now in a registry: a pure function of its live assertions.

- An entity is what live same-as assertions hold together; its number is the smallest that it has. A number is live
  while some source calls it by a name.
- Of a functional relation what is valid since the latest time counts, of equals the newest. The others stay in history.
- `until` leaves out what came after an assertion: what was known then.
"""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx as nx

from ulm.files import write_whole
from ulm.memory.registry.names import normalised
from ulm.memory.registry.store import ALWAYS, NAMED, SAME, Assertion, EntityStore, Relation

DECIDED = ":identity"
"""Agent of same-as assertions that are decided, not said."""

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
        relation: what; `:name`, `:same` and `:vector` are the registry's own.
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


class RegistryView:
    """What is known by a registry's file.

    Args:
        store: the file.
        oldest: of functional claims that contradict each other at one time the oldest counts, not the newest.

    Attributes:
        store: the file.
    """

    def __init__(self, store: EntityStore, *, oldest: bool = False) -> None:
        self.store = store
        self._oldest = oldest

    def named(self, name: str) -> list[int]:
        """Return the entities that have a name, the oldest first."""
        norm = normalised(name)
        found = [
            self.representative(entity)
            for entity in self.store.named(name)
            if any(normalised(one.value) == norm for one in self.store.of_subject(entity, NAMED))
        ]
        return sorted(set(found))

    def like(self, name: str, most: int = 200) -> list[int]:
        """Return entities whose names share words with a name, one typing error in each forgiven; the likest first."""
        near = self.store.like(name, most)
        live = self.store.names_of_each(near)
        return list(self.groups([entity for entity in near if entity in live]))

    def representative(self, entity: int) -> int:
        """Return the smallest number that stands for the same entity."""
        return self.ids(entity)[0]

    @property
    def num_entities(self) -> int:
        """Entities that anybody speaks of."""
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[int]:
        """Return the numbers of all entities, ascending, each once."""
        return (entity for entity in self.store if self.is_live(entity) and self.representative(entity) == entity)

    def get_entity(self, entity: int) -> Entity:
        """Return what is known of an entity.

        Raises:
            ValueError: there is none, or nobody speaks of it any more.
        """
        self.refuse_unknown(entity)
        ids = self.ids(entity)
        said = [one for number in ids for one in self.store.of_subject(number) if self._counts(one)]
        properties, relations, contested = {}, {}, []
        for name, (number, relation) in sorted(self.store.relations().items()):
            if name.startswith(":"):
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
            self.type_of(entity),
            bool((self.store.entity(ids[0]) or (False,))[0]),
            self.names(entity),
            properties,
            relations,
            tuple(contested),
            tuple(dict.fromkeys(self.store.text_of(one.source) for one in sorted(said))),
        )

    def names(self, entity: int) -> tuple[str, ...]:
        """Return the names of an entity, as they were written, in order."""
        said = (one.value for number in self.ids(entity) for one in self.store.of_subject(number, NAMED))
        return tuple(dict.fromkeys(said))

    def lookup(self, entity: int, relation: str) -> list[Value]:
        """Return what an entity has under a relation or property: entities ascending, or texts; [] for nothing known.

        Relations that are said the other way round, or follow from transitive ones, are among it.
        """
        known = self.store.relations().get(relation)
        if known is None or not self.is_live(entity):
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
        return sorted(value for value in found if isinstance(value, int))  # a property is not transitive

    def path(self, entity: int, relations: Iterable[str]) -> list[Value]:
        """Return where relations lead, one after the other: `path(mara, ["sister", "employer", "seat"])`."""
        at: list[Value] = [self.representative(entity)] if self.is_live(entity) else []
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

    def history(self, entity: int) -> list[Said]:
        """Return all that was ever said of an entity, in order, what was taken back among it."""
        return [self._said(one) for one in self.store.every(self.ids(entity))]

    @property
    def revision(self) -> int:
        """Number of the last change."""
        return self.store.revision

    @property
    def digest(self) -> str:
        """Hash of all changes; equal histories have equal ones."""
        return self.store.digest

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

    def is_live(self, entity: int, until: int = ALWAYS) -> bool:
        """Return whether some source calls a number by a name."""
        return bool(self.store.of_subject(entity, NAMED, until))

    def ids(self, entity: int, until: int = ALWAYS) -> tuple[int, ...]:
        """Return all numbers that stand for an entity, ascending: a component of live same-as assertions."""
        found, todo = {entity}, deque([entity])
        while todo:
            at = todo.popleft()
            links = self.store.of_subject(at, SAME) + self.store.of_object(at, SAME)
            for one in links:
                other = one.subject if one.other == at else one.other
                if other and other not in found and self._when(one) <= until and self.is_live(other, until):
                    found.add(other)
                    todo.append(other)
        return tuple(sorted(found))

    def groups(self, entities: Sequence[int], until: int = ALWAYS) -> dict[int, tuple[int, ...]]:
        """Return the smallest number -> all numbers of many entities, in their order."""
        linked = self.store.linked(entities)
        ids = (self.ids(entity, until) if entity in linked else (entity,) for entity in entities)
        return {numbers[0]: numbers for numbers in ids}

    def _counts(self, one: Assertion) -> bool:
        """Return whether an assertion says anything: not of an entity that nobody speaks of any more."""
        return one.other is None or self.is_live(one.other)

    def _when(self, link: Assertion) -> int:
        """Return the number of the assertion after which a same-as assertion holds: what is decided anew held then."""
        return link.valid_from if self.store.text_of(link.agent) == DECIDED else link.id

    def _value(self, one: Assertion) -> Value:
        return one.value if one.other is None else self.representative(one.other)

    def type_of(self, entity: int) -> str:
        """Return what the first source to say so says an entity is; "" where none does."""
        types = (one.object for number in self.ids(entity) for one in self.store.of_subject(number, NAMED))
        return next((self.store.text_of(number) for number in types if number), "")

    def _direct(self, entity: int, number: int, flags: Relation) -> list[Value]:
        """Return what is said of an entity under a relation, one step far."""
        ids = self.ids(entity)
        found = self._said_of(ids, number, flags)
        if flags.inverse:
            back, others = self.store.relations()[flags.inverse]
            for subject in sorted({one.subject for i in ids for one in self.store.of_object(i, back)}):
                if self.is_live(subject) and ids[0] in self._said_of(self.ids(subject), back, others):
                    found.append(self.representative(subject))
        if flags.symmetric and not flags.functional:
            for subject in sorted({one.subject for i in ids for one in self.store.of_object(i, number)}):
                if self.is_live(subject):
                    found.append(self.representative(subject))
        if flags.is_property:
            return list(dict.fromkeys(found))
        return sorted({value for value in found if isinstance(value, int)})

    def _said_of(self, ids: Sequence[int], number: int, flags: Relation) -> list[Value]:
        """Return what live assertions say of an entity under a relation; of a functional one what counts."""
        said = [one for i in ids for one in self.store.of_subject(i, number)]
        if flags.symmetric and flags.functional:  # a marriage ends for both
            said += [
                one._replace(subject=one.object or 0, object=one.subject)
                for i in ids
                for one in self.store.of_object(i, number)
                if self.is_live(one.subject)
            ]
        said = sorted(filter(self._counts, said))
        if flags.functional and said:
            newest = max(said, key=lambda one: (one.valid_from, one.id if not self._oldest else -one.id))
            said = [newest]
        return list(dict.fromkeys(self._value(one) for one in said))

    def _said(self, one: Assertion) -> Said:
        names = {number: name for name, (number, _) in self.store.relations().items()}
        return Said(
            one.id,
            one.subject,
            names[one.relation],
            one.value if one.other is None else one.other,
            one.valid_from,
            self.store.text_of(one.source),
            self.store.text_of(one.agent),
            one.tick,
            one.gone,
        )

    def refuse_unknown(self, entity: int) -> None:
        """Refuse a number that nobody speaks of.

        Raises:
            ValueError: there is no such entity.
        """
        if not self.is_live(entity):
            raise ValueError(f"there is no entity {entity}")
