"""What held when: the live assertions of a registry in order of time, with what follows from them.

- A functional relation keeps its value until another is said, or until it is denied: `not_in` denies `in`.
- A rule says what a relation follows from, such as `in` from `held_by` and `in`. A relation that changes follows at
  every time, and stays when its reason ends: what is put down is where it was carried to. A constant one follows when
  it is asked for, and only where nothing is said of it.
- Where a step leads to several, the one that was said last comes first.
- All is a pure function of live assertions: a source that is forgotten was never read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from ulm.memory.registry import Relation
from ulm.memory.registry.store import NAMED, SAME
from ulm.memory.registry.view import RegistryView, Value

DENIES = "not_"
"""What the name of a relation begins with that denies another one."""

BACK = "~"
"""What a step begins with that follows a relation from its object to its subjects."""

Links = dict[Value, int]
"""What a step leads to, and when that was said, counted over all that was said."""


class Rule(NamedTuple):
    """A relation that follows from others.

    Attributes:
        relation: what follows.
        path: relations to follow one after the other; `~` before a name goes from object to subjects.
    """

    relation: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.relation} <- {' '.join(self.path)}"


class _Fact(NamedTuple):
    """A live assertion, in order of time."""

    valid_from: int
    number: int
    subject: int
    relation: str
    value: Value


class Timeline:
    """All times of a registry, up to now.

    Args:
        view: what is known.
        rules: what follows from what.

    Attributes:
        view: what is known.
    """

    def __init__(self, view: RegistryView, rules: Sequence[Rule] = ()) -> None:
        self.view = view
        self._rules = rules
        self._flags = {name: flags for name, (_, flags) in view.store.relations().items()}
        self._now: dict[Value, dict[str, Links]] = defaultdict(lambda: defaultdict(dict))
        self._past: dict[tuple[int, str], list[Value]] = defaultdict(list)
        self._denied: dict[tuple[int, str], set[Value]] = defaultdict(set)
        self._first: dict[tuple[Value, str, Value], int] = {}
        self._count = 0
        changing = [rule for rule in rules if self._is_changing(rule.relation)]
        for _, facts in groupby(self._facts(), key=lambda fact: fact.valid_from):
            said = [self._take(fact) for fact in facts]
            self._derive(changing, set(said))

    def _is_changing(self, relation: str) -> bool:
        flags = self._flags.get(relation, Relation(relation))
        return flags.functional and not flags.constant

    def _facts(self) -> list[_Fact]:
        """Return all that is said, in order of time."""
        names = {number: name for name, (number, _) in self.view.store.relations().items()}
        first = {number: self.view.representative(number) for number in self.view.store if self.view.is_live(number)}
        found = []
        for number, subject in first.items():
            for one in self.view.store.of_subject(number):
                if one.relation not in (NAMED, SAME) and (one.other is None or one.other in first):
                    value = one.value if one.other is None else first[one.other]
                    found.append(_Fact(one.valid_from, one.id, subject, names[one.relation], value))
        return sorted(found)

    def _take(self, fact: _Fact) -> tuple[int, str]:
        """Take in what is said, and return of whom and what it speaks."""
        relation = fact.relation.removeprefix(DENIES)
        key = fact.subject, relation
        if relation == fact.relation:
            self._set(*key, fact.value)
        else:
            self._denied[key].add(fact.value)
            self._unlink(*key, fact.value)
        return key

    def _set(self, entity: int, relation: str, value: Value) -> None:
        key, flags = (entity, relation), self._flags.get(relation, Relation(relation))
        if flags.functional:
            ends = [entity, value] if flags.symmetric else [entity]  # a marriage ends for both
            for end in ends:
                for old in list(self._links(end, relation)):
                    self._unlink(end, relation, old)
            if self._past[key][-1:] != [value]:
                self._past[key].append(value)
            self._denied[key].clear()
        self._denied[key].discard(value)
        self._count += 1
        for start, step, end in self._ways(entity, relation, value):
            self._now[start][step][end] = self._count
            self._first.setdefault((start, step, end), self._count)

    def _unlink(self, entity: Value, relation: str, value: Value) -> None:
        for start, step, end in self._ways(entity, relation, value):
            self._now[start][step].pop(end, None)

    def _ways(self, entity: Value, relation: str, value: Value) -> list[tuple[Value, str, Value]]:
        """Return all steps that a fact allows."""
        flags = self._flags.get(relation, Relation(relation))
        found = [(entity, relation, value), (value, BACK + relation, entity)]
        if back := relation if flags.symmetric else flags.inverse:
            found += [(value, back, entity), (entity, BACK + back, value)]
        return found

    def _derive(self, rules: Sequence[Rule], said: set[tuple[int, str]]) -> None:
        """Apply rules until nothing changes; what was said at this time is left as it was said.

        Rules may run in circles, so no relation of an entity changes twice.
        """
        todo = True
        while todo:
            todo = False
            for relation, path in rules:
                starts = [e for e in self._now if isinstance(e, int) and (e, relation) not in said]
                for entity in starts:
                    value = next(self.follow(entity, path), None)
                    if value is not None and value not in self._now[entity][relation]:
                        self._set(entity, relation, value)
                        said.add((entity, relation))
                        todo = True

    def _links(self, start: Value, step: str) -> Links:
        return self._now.get(start, {}).get(step, {})

    def steps(self, start: Value, step: str) -> list[Value]:
        """Return what a step leads to now, what was said last first."""
        links = self._links(start, step)
        return sorted(links, key=lambda value: -links[value])

    def relations_of(self, start: Value) -> list[str]:
        """Return the steps that lead anywhere from here now."""
        return sorted(step for step, links in self._now.get(start, {}).items() if links)

    def follow(self, start: Value, path: Sequence[str]) -> Iterator[Value]:
        """Yield where a path leads now, by what was said last first."""
        if not path:
            yield start
            return
        for value in self.steps(start, path[0]):
            yield from self.follow(value, path[1:])

    def values(self, entity: int, relation: str) -> list[Value]:
        """Return what an entity has under a relation now, in the order in which it first had it, or what follows."""
        said = sorted(self._links(entity, relation), key=lambda value: self._first[entity, relation, value])
        if said or self._is_changing(relation):
            return said
        ends = (next(self.follow(entity, rule.path), None) for rule in self._rules if rule.relation == relation)
        return [end for end in ends if end is not None][:1]

    def before(self, entity: int, relation: str, value: Value) -> list[Value]:
        """Return what an entity had under a functional relation before it last had a value; [] for nothing known."""
        past = self._past.get((entity, relation), [])
        at = max((number for number, one in enumerate(past) if one == value), default=0)
        return past[at - 1 : at] if at else []

    def holds(self, entity: int, relation: str, value: Value) -> bool | None:
        """Return whether an entity has a value under a relation now; None where nobody knows."""
        values = self.values(entity, relation)
        if value in values:
            return True
        flags = self._flags.get(relation, Relation(relation))
        if (values and flags.functional) or value in self._denied.get((entity, relation), ()):
            return False
        return None
