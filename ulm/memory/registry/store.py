"""The registry's file: entities, their names, and what sources say of them.

- Nothing is overwritten. What is said is an assertion, numbered in the order of commits; what is taken back is marked
  with the number of the change that did so, and stays.
- Every change goes into a chain of hashes, so two files with the same hash have the same history.
- Knows no view: what follows from live assertions is `view`'s business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ulm.memory.registry.name_index import NameIndex, as_json

NAMED, SAME = 1, 2
"""Relations that every registry has: an entity's name, and that two entities are one."""

ALWAYS = 2**62
"""A number that no assertion has."""

FLAGS = ("functional", "symmetric", "transitive", "is_property", "constant")
"""What is said of relations, beside their inverse."""

REMEMBERED = 1 << 16
"""Texts and numbers of texts that are kept at hand."""

_FIRST_NAME = "SELECT value FROM assertions WHERE subject = ? AND relation = 1 ORDER BY id LIMIT 1"

_VALUE = f"coalesce(a.value, ({_FIRST_NAME.replace('?', 'a.subject')}))"
_SAID = f"""SELECT a.id, a.subject, a.relation, a.object, {_VALUE}, coalesce(a.valid_from, t.tick),
t.source, t.agent, t.tick, a.gone FROM assertions a
JOIN told t ON t.first = (SELECT first FROM told WHERE first <= a.id ORDER BY first DESC LIMIT 1)"""  # noqa: S608
"""Assertions with who says so: all from one `first` on to the next have it in common. A name that is the first one
that its entity had is not written again, nor a tick as `valid_from`."""

_OF_EACH = "FROM assertions a WHERE a.subject IN (SELECT value FROM json_each(?1)) AND a.id <= ?2 AND NOT a.gone"
"""Live assertions about many entities; without who says so, which takes three look-ups each."""


class Assertion(NamedTuple):
    """What a source says.

    Attributes:
        id: number of the change that brought it.
        subject: an entity.
        relation: number of the relation, or property.
        object: the other entity, None where the value is a text; of a name the number of its entity's type.
        value: a text; "" where it is an entity.
        valid_from: since when it is so, in ticks or any other count.
        source, agent: who says so, and who read it; numbers.
        tick: when it was read.
        gone: number of the change that took it back; 0 while it holds.
    """

    id: int
    subject: int
    relation: int
    object: int | None
    value: str
    valid_from: int
    source: int
    agent: int
    tick: int
    gone: int = 0

    @property
    def other(self) -> int | None:
        """The entity that it leads to, None where the value is a text."""
        return None if self.relation == NAMED else self.object


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an assertion comes from.

    Attributes:
        source: text, page or person that says so.
        agent: who read it.
        tick: when.
    """

    source: str = ""
    agent: str = ""
    tick: int = 0


NOBODY = Origin()
"""An unnamed source."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation between entities, or a property with texts as values.

    Attributes:
        name: as claims write it.
        functional: an entity has one value at a time: the one that is valid since the latest time.
        symmetric: what holds of a and b holds of b and a.
        transitive: what holds of a and b, and of b and c, holds of a and c.
        inverse: name of the relation that says the same of b and a, "" for none.
        is_property: values are texts.
        constant: a functional one whose value never changes, so that a different one tells two entities apart.
    """

    name: str
    functional: bool = False
    symmetric: bool = False
    transitive: bool = False
    inverse: str = ""
    is_property: bool = False
    constant: bool = False

    @classmethod
    def of(cls, name: str, flags: Iterable[str]) -> Relation:
        """Return one with these flags.

        Raises:
            ValueError: there is no such flag.
        """
        if unknown := [flag for flag in flags if flag not in FLAGS]:
            raise ValueError(f"relation {name!r} has no flag {unknown[0]!r}; there are {', '.join(FLAGS)}")
        settings: dict[str, Any] = dict.fromkeys(flags, True)
        return cls(name, **settings)


class EntityStore(NameIndex):
    """A file of entities and assertions.

    Args:
        path: the file; made where there is none. None keeps everything in memory.
        read_only: open an existing file for reading alone.

    Raises:
        ValueError: the file is damaged, newer, or something else.
        FileNotFoundError: there is no file, and it is for reading alone.
    """

    what = "registry"
    application_id = 0x754C4D52
    format = 2
    tables = (
        NameIndex.tables
        + """
CREATE TABLE entities (id INTEGER PRIMARY KEY, is_kind INTEGER NOT NULL, scope INTEGER NOT NULL);
CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE relations (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, functional INTEGER NOT NULL, symmetric INTEGER NOT NULL,
    transitive INTEGER NOT NULL, inverse TEXT NOT NULL, is_property INTEGER NOT NULL, constant INTEGER NOT NULL
);
CREATE TABLE assertions (
    id INTEGER NOT NULL, subject INTEGER NOT NULL, relation INTEGER NOT NULL, object INTEGER, value TEXT,
    valid_from INTEGER, gone INTEGER NOT NULL, PRIMARY KEY (subject, relation, id)
) WITHOUT ROWID;
CREATE INDEX of_object ON assertions (object, relation) WHERE object IS NOT NULL AND relation > 1;
CREATE TABLE told (first INTEGER PRIMARY KEY, source INTEGER NOT NULL, agent INTEGER NOT NULL, tick INTEGER NOT NULL);
CREATE TABLE spoken_of (source INTEGER NOT NULL, subject INTEGER NOT NULL,
    PRIMARY KEY (source, subject)) WITHOUT ROWID;
CREATE INDEX taken_back ON assertions (gone) WHERE gone > 0;
CREATE TABLE mentions (entity INTEGER PRIMARY KEY, assertion INTEGER NOT NULL, claims TEXT NOT NULL);
CREATE TABLE chain (id INTEGER PRIMARY KEY, hash BLOB NOT NULL);
INSERT INTO texts VALUES (0, '');
INSERT INTO relations VALUES (1, ':name', 0, 0, 0, '', 1, 0), (2, ':same', 0, 1, 1, '', 0, 0);
INSERT INTO chain VALUES (0, x'')
"""
    )

    def __init__(self, path: Path | None, *, read_only: bool = False) -> None:
        self._texts: dict[str, int] = {"": 0}
        self._numbered: dict[int, str] = {0: ""}
        self._chain: tuple[int, bytes] | None = None  # while it is written
        self._told: tuple[int, ...] = ()  # who said what was written last, while it is written
        self._relations: tuple[int, dict[str, tuple[int, Relation]]] | None = None
        super().__init__(path, {}, read_only=read_only)

    def again(self, path: Path | None, *, read_only: bool) -> EntityStore:
        """Return another."""
        return EntityStore(path, read_only=read_only)

    def _check(self) -> None:
        """Leave pages alone: all of a million entities would take seconds."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one who writes; where it fails nothing has been written, and nothing is remembered of it."""
        if self._chain is not None:
            yield
            return
        try:
            with super().writing():
                self.relations()  # as they are now that nobody else writes
                self._chain = before = self.rows("SELECT id, hash FROM chain")[0]
                last = self.rows("SELECT source, agent, tick FROM told ORDER BY first DESC LIMIT 1")
                self._told = last[0] if last else ()
                yield
                if self._chain != before:
                    self._connection.execute("UPDATE chain SET id = ?, hash = ?", self._chain)
        except BaseException:
            self._texts, self._numbered, self._relations = {"": 0}, {0: ""}, None
            raise
        finally:
            self._chain = None

    # What is written

    def text(self, text: str) -> int:
        """Return the number of a text that is said again and again: a source, an agent, a type, a scope."""
        if (known := self._texts.get(text)) is not None:
            return known
        with self.writing():
            row = self._connection.execute("SELECT id FROM texts WHERE text = ?", (text,)).fetchone()
            if row is None:
                row = self._connection.execute("INSERT INTO texts (text) VALUES (?) RETURNING id", (text,)).fetchone()
                self._log("text", text)
        if len(self._texts) >= REMEMBERED:
            self._texts = {"": 0}
        self._texts[text] = int(row[0])
        return int(row[0])

    def text_of(self, number: int) -> str:
        """Return the text with a number."""
        if number not in self._numbered:
            if len(self._numbered) >= REMEMBERED:
                self._numbered = {0: ""}
            self._numbered[number] = str(self.rows("SELECT text FROM texts WHERE id = ?", number)[0][0])
        return self._numbered[number]

    def add_entity(self, *, is_kind: bool, scope: str) -> int:
        """Make an entity and return its number."""
        with self.writing():
            statement = "INSERT INTO entities (is_kind, scope) VALUES (?, ?) RETURNING id"
            number = int(self._connection.execute(statement, (int(is_kind), self.text(scope))).fetchone()[0])
            self._log("entity", number, is_kind, scope)
        return number

    def add_name(self, entity: int, name: str, entity_type: str, origin: Origin) -> Assertion:
        """Write what a source calls an entity, and of which type it is to that source."""
        with self.writing():
            is_again = self.rows(_FIRST_NAME, entity) == [(name,)]
            said = self._write(entity, NAMED, self.text(entity_type), name, origin, origin.tick, is_again=is_again)
            if not is_again:
                self.index_name(entity, name)
        return said

    def add(
        self, subject: int, relation: int, value: int | str, origin: Origin, valid_from: int | None = None
    ) -> Assertion:
        """Write what a source says; on disk when the call returns, or when `writing` around it ends."""
        since = origin.tick if valid_from is None else valid_from
        if isinstance(value, int):
            return self._write(subject, relation, value, "", origin, since)
        return self._write(subject, relation, None, value, origin, since)

    def _write(
        self,
        subject: int,
        relation: int,
        other: int | None,
        value: str,
        origin: Origin,
        since: int,
        *,
        is_again: bool = False,
    ) -> Assertion:
        with self.writing():
            told = self.text(origin.source), self.text(origin.agent), origin.tick
            said = Assertion(self.revision + 1, subject, relation, other, value, since, *told)
            if told != self._told:
                self._connection.execute("INSERT INTO told VALUES (?, ?, ?, ?)", (said.id, *told))
                self._told = told
            self._connection.execute("INSERT OR IGNORE INTO spoken_of VALUES (?, ?)", (said.source, subject))
            row = (*said[:4], None if is_again else value, None if since == said.tick else since, 0)
            self._connection.execute("INSERT INTO assertions VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            self._log(*said)
        return said

    def add_mention(self, entity: int, said: Assertion, claims: Sequence[tuple[str, str]]) -> None:
        """Note what a text said of an entity when it was decided who that is."""
        with self.writing():
            row = entity, said.id, json.dumps(claims, ensure_ascii=False)
            self._connection.execute("INSERT INTO mentions VALUES (?, ?, ?)", row)
            self._log("mention", *row)

    def mention(self, entity: int) -> tuple[Assertion, list[tuple[str, str]]] | None:
        """Return what `add_mention` noted, None where nothing was decided."""
        for number, claims in self.rows("SELECT assertion, claims FROM mentions WHERE entity = ?", entity):
            query = f"{_SAID} WHERE a.subject = ? AND a.relation = 1 AND a.id = ?"
            return Assertion(*self.rows(query, entity, number)[0]), [
                (name, value) for name, value in json.loads(claims)
            ]
        return None

    def take_back(self, assertions: Iterable[Assertion]) -> int:
        """Mark assertions as gone; return how many there were."""
        taken = list(assertions)
        if taken:
            with self.writing():
                change = self.revision + 1
                statement = "UPDATE assertions SET gone = ? WHERE subject = ? AND relation = ? AND id = ?"
                rows = [(change, one.subject, one.relation, one.id) for one in taken]
                self._connection.executemany(statement, rows)
                self._log("gone", change, [one.id for one in taken])
        return len(taken)

    def declare(self, relation: Relation) -> int:
        """Write how a relation behaves and return its number.

        Raises:
            ValueError: it is declared otherwise already.
        """
        with self.writing():
            known = self.relations().get(relation.name)
            if known is not None:
                if known[1] != relation:
                    raise ValueError(
                        f"relation {relation.name!r} is declared otherwise already ({_flags(known[1])}, now "
                        f"{_flags(relation)}); give it another name"
                    )
                return known[0]
            statement = "INSERT INTO relations VALUES (NULL, ?, ?, ?, ?, ?, ?, ?) RETURNING id"
            row = astuple(relation)
            number = int(self._connection.execute(statement, row).fetchone()[0])
            self._relations = None
            self._log("relation", *row)
        return number

    def _log(self, *what: Any) -> None:
        """Carry the chain on."""
        if self._chain is None:
            raise AssertionError
        number, before = self._chain
        said = repr(what).encode("utf-8", "surrogatepass")
        self._chain = number + 1, hashlib.blake2b(before + said, digest_size=16).digest()

    # What is read

    @property
    def revision(self) -> int:
        """Number of the last change."""
        if self._chain is not None:
            return self._chain[0]
        return int(self.rows("SELECT id FROM chain")[0][0])

    @property
    def digest(self) -> str:
        """Hash of all changes so far."""
        if self._chain is not None:
            return self._chain[1].hex()
        return str(self.rows("SELECT lower(hex(hash)) FROM chain")[0][0])

    def relations(self) -> dict[str, tuple[int, Relation]]:
        """Return name -> number and flags of all relations."""
        if self._chain is not None and self._relations is not None:  # nobody else writes
            return self._relations[1]
        version = int(self.rows("PRAGMA data_version")[0][0])  # another process may have declared some
        if self._relations is None or self._relations[0] != version:
            found = {
                name: (number, Relation(name, bool(f), bool(s), bool(t), inverse, bool(p), bool(c)))
                for number, name, f, s, t, inverse, p, c in self.rows("SELECT * FROM relations")
            }
            self._relations = version, found
        return self._relations[1]

    def of_subject(self, entity: int, relation: int | None = None, until: int = ALWAYS) -> list[Assertion]:
        """Return the live assertions about an entity, in order, those after `until` left out."""
        return self._live("a.subject = ?1", entity, relation, until)

    def of_object(self, entity: int, relation: int | None = None, until: int = ALWAYS) -> list[Assertion]:
        """Return the live assertions that lead to an entity, in order, those after `until` left out."""
        which = "a.object = ?1 AND a.relation > 1"  # the bound is for the index: of many, none is read in vain
        return self._live(which if relation is None else f"{which} AND a.relation <= ?3", entity, relation, until)

    def _live(self, which: str, entity: int, relation: int | None, until: int) -> list[Assertion]:
        query, values = f"{_SAID} WHERE {which} AND a.id <= ?2 AND NOT a.gone", [entity, until]
        if relation is not None:
            query, values = f"{query} AND a.relation = ?3", [*values, relation]
        return sorted(Assertion(*row) for row in self.rows(query, *values))

    def names_of_each(self, entities: Iterable[int], until: int = ALWAYS) -> dict[int, list[str]]:
        """Return the names that many entities have by live assertions, those without any left out."""
        query = f"SELECT DISTINCT a.subject, {_VALUE} {_OF_EACH} AND a.relation = 1"
        found: dict[int, list[str]] = {}
        for subject, value in self.rows(query, as_json(entities), until):
            found.setdefault(subject, []).append(value)
        return found

    def claims_of_each(self, entities: Iterable[int], until: int = ALWAYS) -> list[tuple[int, int, int | None, str]]:
        """Return (subject, relation, object, value) of the live assertions about many entities, without who says so."""
        query = f"SELECT a.subject, a.relation, a.object, {_VALUE} {_OF_EACH} ORDER BY a.id"
        return self.rows(query, as_json(entities), until)

    def claims_to_each(self, entities: Iterable[int], until: int = ALWAYS) -> list[tuple[int, int, int]]:
        """Return (subject, relation, object) of the live assertions that lead to many entities."""
        query = """SELECT subject, relation, object FROM assertions
            WHERE object IN (SELECT value FROM json_each(?1)) AND relation > 1 AND id <= ?2 AND NOT gone"""
        return self.rows(query, as_json(entities), until)

    def linked(self, entities: Iterable[int]) -> set[int]:
        """Return those of entities that live same-as assertions are about."""
        query = """SELECT subject FROM assertions
            WHERE relation = 2 AND NOT gone AND subject IN (SELECT value FROM json_each(?1))
            UNION SELECT object FROM assertions
            WHERE relation > 1 AND relation <= 2 AND NOT gone AND object IN (SELECT value FROM json_each(?1))"""
        return {number for (number,) in self.rows(query, as_json(entities))}

    def individuals(self, entities: Iterable[int]) -> dict[int, int]:
        """Return those of entities that are no kinds, with the numbers of their scopes."""
        query = "SELECT id, scope FROM entities WHERE NOT is_kind AND id IN (SELECT value FROM json_each(?))"
        return dict(self.rows(query, as_json(entities)))

    def of_source(self, source: str) -> list[Assertion]:
        """Return the live assertions of a source, in order."""
        query = f"{_SAID} WHERE a.subject IN (SELECT subject FROM spoken_of WHERE source = ?1) AND t.source = ?1"  # noqa: S608
        numbers = self.rows("SELECT id FROM texts WHERE text = ?", source)
        return sorted(Assertion(*row) for (n,) in numbers for row in self.rows(f"{query} AND NOT a.gone", n))

    def every(self, entities: Sequence[int]) -> list[Assertion]:
        """Return all that was ever said of entities, in order."""
        query = f"{_SAID} WHERE a.subject IN (SELECT value FROM json_each(?)) ORDER BY a.id"  # noqa: S608
        return [Assertion(*row) for row in self.rows(query, as_json(entities))]

    def last(self) -> Assertion | None:
        """Return the newest live assertion that is more than a name, and not that two are one; None for none."""
        query = f"{_SAID} WHERE a.relation > ? AND NOT a.gone ORDER BY a.id DESC LIMIT 1"
        return next((Assertion(*row) for row in self.rows(query, max(NAMED, SAME))), None)

    def entity(self, number: int) -> tuple[bool, str] | None:
        """Return whether an entity is a kind, and its scope."""
        rows = self.rows("SELECT is_kind, scope FROM entities WHERE id = ?", number)
        return (bool(rows[0][0]), self.text_of(rows[0][1])) if rows else None

    def names_of(self, entity: int) -> list[str]:
        """Return the names that an entity has, as they were written."""
        return list(dict.fromkeys(assertion.value for assertion in self.of_subject(entity, NAMED)))

    def __iter__(self) -> Iterator[int]:
        """Return the numbers of all entities."""
        return iter(row[0] for row in self.rows("SELECT id FROM entities ORDER BY id"))


def _flags(relation: Relation) -> str:
    """Return what is said of a relation, for messages."""
    said = [name for name in FLAGS if getattr(relation, name)]
    said += [f"inverse {relation.inverse}"] if relation.inverse else []
    return ", ".join(said) or "nothing said of it"
