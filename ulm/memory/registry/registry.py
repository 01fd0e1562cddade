"""Entity registry: who and what texts speak of, with what is known of them and who says so.

- A kind (cat) is one entity wherever it is met. An individual (a cat called Tom) is one of its scope until evidence
  says otherwise: keyed by name, most named characters of a corpus of stories would be somebody else's.
- What is known is a pure function of live assertions. So forgetting a source is the same as never having read it, and
  a merge is an assertion that can be taken back. History stays.
- Numbers of entities and assertions follow from the order of changes: equal changes give equal files (`digest`).
- One process writes at a time, others wait; readers have a consistent state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

import networkx as nx
from numpy.typing import ArrayLike

from ulm.judge import Floats
from ulm.memory.registry.deciding import Resolver
from ulm.memory.registry.identity import Identity, Resolution
from ulm.memory.registry.names import normalised
from ulm.memory.registry.store import NAMED, NOBODY, SAME, Assertion, EntityStore, Origin, Relation
from ulm.memory.registry.vectors import VECTOR, WIDTH, EntityVectors
from ulm.memory.registry.view import RegistryView, Said, Value

MERGED = ":merge"
"""Agent of names by which a source speaks of entities only to say that they are one."""


class _TakenBackError(Exception):
    """Ends a transaction of which nothing is to stay."""


class Claim(NamedTuple):
    """What a text says.

    Attributes:
        source: the text.
        subject, subject_type: of whom, as the text has it, and of what type that is.
        relation: or property.
        object, object_type: the other one; "" is the type of a text, which is a property's value.
        valid_from: since when.
    """

    source: str
    subject: str
    subject_type: str
    relation: str
    object: str
    object_type: str
    valid_from: int


class EntityRegistry(RegistryView):
    """Persistent entities with properties and relations.

    Args:
        path: SQLite file; None keeps everything in memory.
        read_only: open an existing file for reading alone.
        conflicts: what happens to a functional claim that contradicts a live one of the same time: `newest` keeps
            both, and the newest counts; `oldest` keeps both, and the oldest counts; `refuse` raises.
        identity: what decides who is meant; None where `resolve` is not used.
        on_new_entity: called with the number of each new entity.
        vector_width: numbers of an entity's vector, a multiple of 8.

    Raises:
        ValueError: the file is damaged, newer, or something else; or a setting is none of these.
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
        vector_width: int = WIDTH,
    ) -> None:
        if conflicts not in ("newest", "oldest", "refuse"):
            raise ValueError(f"conflicts is 'newest', 'oldest' or 'refuse', got {conflicts!r}")
        super().__init__(EntityStore(path, read_only=read_only), oldest=conflicts == "oldest")
        self._resolver = Resolver(self, identity)
        self._vectors = EntityVectors(self, vector_width)
        self.conflicts = conflicts
        self.on_new_entity = on_new_entity

    @classmethod
    def load(cls, path: Path, identity: Identity | None = None) -> EntityRegistry:
        """Open a file that exists, for writing.

        Raises:
            ValueError: the file is damaged, newer, or something else.
            FileNotFoundError: there is none.
        """
        if not path.is_file():
            raise FileNotFoundError(f"there is no registry at {path}")
        return cls(path, identity=identity)

    def save(self, path: Path) -> None:
        """Write everything to a new file, which takes its name when it is whole."""
        self.store.copy_to(path)

    def writing(self) -> AbstractContextManager[None]:
        """Be the only one who writes; all that is written inside is one transaction, or nothing of it."""
        return self.store.writing()

    def close(self) -> None:
        """Let go of the file."""
        self.store.close()

    def declare(self, relation: Relation) -> None:
        """Say how a relation or property behaves, before it is used.

        Raises:
            ValueError: it is declared otherwise already, or a relation is a property and has flags of relations.
        """
        if relation.name.startswith(":") or not relation.name.strip():
            raise ValueError(f"a relation cannot be called {relation.name!r}; begin with a letter")
        if relation.constant and not relation.functional:
            raise ValueError(f"{relation.name!r} is constant, so it has one value at a time: make it functional, too")
        if relation.is_property and (relation.symmetric or relation.transitive or relation.inverse):
            raise ValueError(f"property {relation.name!r} has texts as values; it has no direction that could turn")
        back = Relation(
            relation.inverse, symmetric=relation.symmetric, transitive=relation.transitive, inverse=relation.name
        )
        with self.store.writing():  # a kill must not leave one direction without the other
            self.store.declare(relation)
            if relation.inverse and relation.inverse not in self.store.relations():
                self.store.declare(back)

    def get_or_create(self, name: str, entity_type: str = "", origin: Origin = NOBODY) -> int:
        """Return the kind with a name, made where there is none; the source is noted as one that knows it.

        Args:
            name: such as `cat`.
            entity_type: kinds of other types with this name are others; "" is any.
            origin: who speaks of it.
        """
        with self.store.writing():
            for entity in self.store.named(name):
                about = self.store.entity(entity)
                is_kind = about is not None and about[0] and self.is_live(entity)
                if is_kind and entity_type in ("", self.type_of(entity)):
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
        with self.store.writing():
            return self._created(name, entity_type, origin, is_kind=False, scope=scope)

    def _created(self, name: str, entity_type: str, origin: Origin, *, is_kind: bool, scope: str) -> int:
        normalised(name)  # refuses an empty one before anything is written
        number = self.store.add_entity(is_kind=is_kind, scope=scope)
        self.store.add_name(number, name, entity_type, origin)
        self.on_new_entity(number)
        return number

    def add_name(self, entity: int, name: str, entity_type: str = "", origin: Origin = NOBODY) -> None:
        """Note that a source calls an entity by a name, and perhaps of which type it is."""
        with self.store.writing():
            self.refuse_unknown(entity)
            self._note_name(entity, name, entity_type, origin)

    def _note_name(self, entity: int, name: str, entity_type: str, origin: Origin) -> None:
        source, norm, type_ = self.store.text(origin.source), normalised(name), self.store.text(entity_type)
        known = self.store.of_subject(entity, NAMED)
        if not any(o.source == source and normalised(o.value) == norm and type_ in (0, o.object) for o in known):
            self.store.add_name(entity, name, entity_type, origin)

    def resolve(
        self,
        name: str,
        entity_type: str = "",
        scope: str = "",
        claims: Sequence[tuple[str, str]] = (),
        origin: Origin = NOBODY,
    ) -> Resolution:
        """Say which individual a text means, and note that it speaks of it.

        Within a scope a name means one individual of a type. Otherwise the one that a text means is a number of its
        own, and where it is decided that it is a known one, a same-as assertion of the text: so it goes when the text
        does.

        Args:
            name: what the text calls it.
            entity_type: of what type it is, "" where the text does not say.
            scope: the text or session.
            claims: what the text says of it that may tell: (relation, name of the other entity, or value).
            origin: who says so.
        """
        with self.store.writing():
            norm = normalised(name)
            for entity in self.store.named(name) if scope else ():
                about = self.store.entity(entity)
                known = [one for one in self.store.of_subject(entity, NAMED) if normalised(one.value) == norm]
                types = {self.store.text_of(one.object) for one in known if one.object}
                if about == (False, scope) and known and (not types or entity_type in ("", *types)):
                    self._note_name(entity, name, entity_type, origin)
                    return Resolution(entity, "same", ((self.representative(entity), 1.0),))
            entity = self._created(name, entity_type, origin, is_kind=False, scope=scope)
            (said,) = self.store.of_subject(entity, NAMED)
            self.store.add_mention(entity, said, claims)
            ranked, decision = self._resolver.identified(entity)
            if decision == "same":
                self._resolver.link(entity, ranked[0][0], said)
            return Resolution(entity, decision, tuple(ranked))

    def note(self, claims: Iterable[Claim], agent: str = "", tick: int = 0) -> dict[tuple[str, str, str], int]:
        """Write what texts say; return who is meant: (source, name, type) -> entity.

        Each source is a scope of its own. Everybody is identified first, by all that is said of them.
        """
        by_source: dict[str, list[Claim]] = {}
        for one in claims:
            by_source.setdefault(one.source, []).append(one)
        meant: dict[tuple[str, str, str], int] = {}
        with self.store.writing():
            for source, said in by_source.items():
                meant |= self._note(said, Origin(source, agent, tick))
        return meant

    def _note(self, claims: Sequence[Claim], origin: Origin) -> dict[tuple[str, str, str], int]:
        """Write what one text says."""
        about: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
        for one in claims:
            about.setdefault((one.source, one.subject, one.subject_type), []).append((one.relation, one.object))
            if one.object_type:
                key = one.source, one.object, one.object_type
                about.setdefault(key, []).append((self._back(one.relation), one.subject))
        meant = {key: self.resolve(key[1], key[2], origin.source, said, origin).entity for key, said in about.items()}
        for one in claims:
            subject = meant[one.source, one.subject, one.subject_type]
            if one.object_type:
                other = meant[one.source, one.object, one.object_type]
                self.add_relation(subject, one.relation, other, origin, one.valid_from)
            else:
                self.add_property(subject, one.relation, one.object, origin, one.valid_from)
        return meant

    def _back(self, relation: str) -> str:
        """Return what the other one of a relation is compared by."""
        flags = self.store.relations().get(relation, (0, Relation(relation)))[1]
        return relation if flags.symmetric else flags.inverse or f"{relation} of"

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
        with self.store.writing():
            is_property = isinstance(value, str)
            if name.startswith(":") or name not in self.store.relations():  # the registry's own are refused
                self.declare(Relation(name, is_property=is_property))
            number, relation = self.store.relations()[name]
            if relation.is_property != is_property:
                kind, wanted = ("property", "a text") if relation.is_property else ("relation", "an entity")
                raise ValueError(f"{name!r} is a {kind}: its value is {wanted}, got {value!r}")
            entity = self._spoken_of(entity, origin)
            if isinstance(value, int):
                value = self._spoken_of(value, origin)
            if self.conflicts == "refuse" and relation.functional:
                self._refuse_conflict(
                    entity, number, relation, value, origin.tick if valid_from is None else valid_from
                )
            return self._said(self.store.add(entity, number, value, origin, valid_from))

    def embedding(self, entity: int) -> Floats:
        """Return the vector of an entity, of length 1, (D,): of names, type and neighbours, or as it was updated.

        Raises:
            ValueError: there is no such entity.
        """
        return self._vectors.of(entity)

    def update_embedding(
        self, entity: int, vector: ArrayLike, origin: Origin = NOBODY, valid_from: int | None = None
    ) -> Said:
        """Note which vector an entity has, (D,), in place of the one that follows from what is known of it.

        Raises:
            ValueError: unknown entity, another size, numbers that are not finite, or all 0.
        """
        text = self._vectors.encoded(self._vectors.checked(vector))
        with self.store.writing():
            number, entity = self.store.declare(VECTOR), self._spoken_of(entity, origin)
            return self._said(self.store.add(entity, number, text, origin, valid_from))

    def find_similar_entities(
        self, like: int | ArrayLike, entity_type: str | None = None, k: int = 10, threshold: float = 0.0
    ) -> list[tuple[int, float]]:
        """Return the entities nearest to another, which is left out, or to a vector, (D,), with their cosines.

        Args:
            like: number of an entity, or a vector.
            entity_type: of what type they are; any by default.
            k: how many at most.
            threshold: smallest cosine.

        Raises:
            ValueError: unknown entity, or a vector that `update_embedding` would refuse.
        """
        if not isinstance(like, int):
            return self._vectors.nearest(like, entity_type or "", k, threshold)
        own = self.representative(like)
        found = self._vectors.nearest(self._vectors.of(own), entity_type or "", k + 1, threshold)
        return [one for one in found if one[0] != own][:k]

    def _spoken_of(self, entity: int, origin: Origin) -> int:
        """Return the number by which a source knows an entity, so that what it says does not hang on another source.

        A source that speaks of it for the first time calls it as it is called.

        Raises:
            ValueError: there is no such entity.
        """
        source, names = self.store.text(origin.source), self.store.of_subject(entity, NAMED)
        if not names:
            self.refuse_unknown(entity)
        if any(one.source == source for one in names):
            return entity
        for number in self.ids(entity):
            if any(one.source == source for one in self.store.of_subject(number, NAMED)):
                return number
        self.store.add_name(entity, names[0].value, "", origin)
        return entity

    def _refuse_conflict(self, entity: int, number: int, relation: Relation, value: Value, valid_from: int) -> None:
        for subject in self.ids(entity):
            for one in self.store.of_subject(subject, number):
                there = self._value(one)
                if one.valid_from == valid_from and there != self._settled(value):
                    source = self.store.text_of(one.source) or "an unnamed source"
                    raise ValueError(
                        f"{relation.name} of {entity} is {there!r} by {source}, and {value!r} now; forget that source, "
                        f"or set conflicts to 'newest'"
                    )

    def _settled(self, value: Value) -> Value:
        return self.representative(value) if isinstance(value, int) else value

    def forget(self, source: str) -> int:
        """Take back all that a source says; return how many assertions that were.

        What others say holds again, as if the source had never been read: former values count, and entities of which
        nobody else speaks are gone.
        """
        with self.store.writing():
            gone = self.store.of_source(source)
            self.store.take_back(gone)
            self._resolver.reconsider({entity for one in gone for entity in (one.subject, one.other) if entity})
        return len(gone)

    def without(self, source: str) -> str:
        """Return the hash that there will be when a source is forgotten; nothing changes."""
        digest = self.digest
        with suppress(_TakenBackError), self.store.writing():
            self.forget(source)
            digest = self.digest
            raise _TakenBackError
        return digest

    def merge(self, one: int, other: int, origin: Origin = NOBODY) -> int:
        """Say that two entities are one; return its number. `split` takes it back.

        Raises:
            ValueError: an entity is unknown, or one is a kind and the other an individual.
        """
        with self.store.writing():
            for entity in (one, other):
                self.refuse_unknown(entity)
            kinds = [self.get_entity(entity).is_kind for entity in (one, other)]
            if kinds[0] != kinds[1]:
                raise ValueError(f"{one} and {other} cannot be one: one is a kind, the other an individual")
            if one not in self.ids(other) or not any(
                link.source == self.store.text(origin.source) for link in self._links(one, other)
            ):  # others may have said so, and be forgotten
                merger = Origin(origin.source, MERGED, origin.tick)
                parts = self._spoken_of(one, merger), self._spoken_of(other, merger)
                if parts[0] != parts[1]:
                    self.store.add(parts[0], SAME, parts[1], origin)
            return self.representative(one)

    def _links(self, one: int, other: int) -> list[Assertion]:
        """Return the fewest same-as assertions without which two numbers would not stand for the same."""
        graph, links, ids = nx.Graph(), dict[frozenset[int], list[Assertion]](), self.ids(one)
        for number in ids:
            for link in self.store.of_subject(number, SAME):
                if link.other in ids:
                    graph.add_edge(number, link.other)
                    links.setdefault(frozenset((number, link.other)), []).append(link)
        if one == other or one not in graph or other not in graph:
            return []
        return [link for edge in nx.minimum_edge_cut(graph, one, other) for link in links[frozenset(edge)]]

    def split(self, one: int, other: int) -> None:
        """Take back that two numbers stand for one entity: the fewest same-as assertions that hold them together.

        Raises:
            ValueError: they are not held to be one.
        """
        with self.store.writing():
            links = self._links(one, other)
            if not links:
                raise ValueError(f"{one} and {other} are not held to be one; `history` shows who said what")
            self.store.take_back(links)
            for link in links:  # who only spoke of them to say so speaks of them no longer
                for number in (link.subject, link.object or 0):
                    said = [o for o in self.store.of_subject(number) if o.source == link.source]
                    said += [o for o in self.store.of_object(number) if o.source == link.source]
                    if all(o.relation == NAMED and self.store.text_of(o.agent) == MERGED for o in said):
                        self.store.take_back(said)
