"""A registry's view follows from live assertions alone: whatever is forgotten or split leaves no trace in it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from fakes.identity import plain_identity
from hypothesis import given, settings
from hypothesis import strategies as st

from ulm.memory.registry import EntityRegistry, Origin, Relation

SOURCES = ["page 1", "page 2", "page 3", "page 4"]
NAMES = ["Mara", "Mara Voss", "Tom", "tarn", "Brask", "İda", "王芳"]
DECLARED = [
    Relation("works_for", functional=True, inverse="employs"),
    Relation("married_to", functional=True, symmetric=True),
    Relation("knows", symmetric=True),
    Relation("part_of", transitive=True),
    Relation("colour", functional=True, is_property=True),
    Relation("likes", is_property=True),
]
Log = list[tuple[Any, ...]]
LOGS = [pytest.param(50), pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
"""How many random logs."""


def draw_log(rng: random.Random, length: int) -> Log:
    """Return claims about entities, which are named by when they were first spoken of."""
    log: Log = []
    for _ in range(length):
        source, at = rng.choice(SOURCES), rng.randrange(3)
        what = rng.choice(["kind", "individual", "name", "value", "relation", "relation", "merge"])
        said = rng.choice([relation for relation in DECLARED if relation.is_property == (what == "value")])
        log.append((what, source, at, rng.random(), rng.random(), rng.choice(NAMES), said))
    return log


def told(log: Log, without: str | None = None) -> tuple[EntityRegistry, dict[int, int]]:
    """Return a registry after a log, and its number for each entity that the log speaks of.

    Whoever speaks of an entity calls it by a name; who is the first of those that are read speaks of a new one.
    """
    registry = EntityRegistry()
    for relation in DECLARED:
        registry.declare(relation)
    made: list[tuple[int, str, str]] = []  # place in the log, kind or individual, name
    numbers: dict[int, int] = {}
    for place, (what, source, at, one, other, name, said) in enumerate(log):
        origin = Origin(source, f"a{at}", at)

        def spoken_of(share: float, origin: Origin = origin) -> int:
            place, kind, called = made[int(share * len(made))]
            if place not in numbers:
                new = registry.get_or_create if kind == "kind" else registry.create
                numbers[place] = new(called, origin=origin)
            registry.add_name(numbers[place], called, origin=origin)
            return numbers[place]

        if what in ("kind", "individual") or not made:
            made.append((place, what, f"{name} {place}"))
            one = 1 - 1e-9
        if source == without:
            continue
        if what == "merge":
            parts = spoken_of(one), spoken_of(other)
            if len({registry.get_entity(part).is_kind for part in parts}) == 1:
                registry.merge(*parts, origin)
        elif what == "value":
            registry.add_property(spoken_of(one), said.name, name, origin)
        elif what == "relation":
            registry.add_relation(spoken_of(one), said.name, spoken_of(other), origin)
        elif what == "name":
            registry.add_name(spoken_of(one), f"{name} {place}", origin=origin)
        else:
            registry.add_name(spoken_of(one), f"{name} {place}", "thing", origin)
    return registry, numbers


def view(registry: EntityRegistry, numbers: dict[int, int]) -> dict[Any, Any]:
    """Return all that holds now, in which entities are called by their places in the log."""
    called = {registry.representative(number): min(p for p in numbers if numbers[p] in registry.get_entity(number).ids)
              for number in numbers.values()}  # fmt: skip
    found = {}
    for number in registry:
        entity = registry.get_entity(number)
        relations = {name: sorted(called[other] for other in others) for name, others in entity.relations.items()}
        what = (entity.entity_type, entity.is_kind, sorted(entity.names), dict(entity.properties), relations)
        told = (sorted(entity.contested), sorted(entity.sources), registry.embedding(number).tobytes())
        found[called[number]] = (*what, *told)
    return found


def live(registry: EntityRegistry, numbers: dict[int, int]) -> dict[int, int]:
    return {place: number for place, number in numbers.items() if registry.history(number) and registry.is_live(number)}


@pytest.mark.parametrize("logs", LOGS)
def test_forgetting_a_source_is_never_having_read_it(logs: int) -> None:
    for seed in range(logs):
        rng = random.Random(seed)
        log, source = draw_log(rng, 14), rng.choice(SOURCES)
        registry, numbers = told(log)
        registry.forget(source)
        never, others = told(log, without=source)
        assert view(registry, live(registry, numbers)) == view(never, others), f"log {seed} without {source}"


@pytest.mark.parametrize("logs", LOGS)
def test_a_merge_that_is_split_leaves_nothing(logs: int) -> None:
    for seed in range(logs):
        rng = random.Random(seed)
        registry, numbers = told(draw_log(rng, 12))
        before = view(registry, numbers)
        some = sorted(set(numbers.values()))
        one, other = rng.choice(some), rng.choice(some)
        entities = registry.get_entity(one), registry.get_entity(other)
        if entities[0].id == entities[1].id or entities[0].is_kind != entities[1].is_kind:
            continue
        registry.merge(one, other, Origin("editor"))
        assert view(registry, numbers) != before
        registry.split(one, other)
        assert view(registry, numbers) == before, f"log {seed}"


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000))
def test_equal_logs_have_equal_hashes(seed: int) -> None:
    log = draw_log(random.Random(seed), 10)
    assert told(log)[0].digest == told(log)[0].digest
    assert (
        told(log)[0].digest != told(log[:-1] + draw_log(random.Random(seed + 1), 1))[0].digest or log[-1][0] == "merge"
    )


@pytest.mark.parametrize("logs", LOGS)
def test_forgetting_a_source_undoes_what_was_decided_by_it(logs: int) -> None:
    for seed in range(logs):
        rng = random.Random(seed)
        log = [
            (
                rng.choice(["Mara Voss", "Mara Vos", "M. Voss", "Tom"]),
                f"page {rng.randrange(5)}",
                rng.choice(["Brask", "Tarn"]),
            )
            for _ in range(10)
        ]
        source = rng.choice(log)[1]
        views = []
        for left_out in (None, source):
            registry = EntityRegistry(identity=plain_identity())
            for relation in DECLARED:
                registry.declare(relation)
            own: dict[int, int] = {}
            for place, (name, page, firm) in enumerate(log):
                if page != left_out:
                    origin = Origin(page)
                    own[place] = registry.resolve(name, "person", page, [("works_for", firm)], origin).entity
                    other = registry.resolve(firm, "firm", page, (), origin).entity
                    registry.add_relation(own[place], "works_for", other, origin)
            if left_out is None:
                registry.forget(source)
            kept = {place: number for place, number in own.items() if log[place][1] != source}
            together = {
                place: min(p for p in kept if kept[p] in registry.get_entity(number).ids)
                for place, number in kept.items()
            }
            views.append(
                (together, sorted((registry.get_entity(e).names, len(registry.get_entity(e).ids)) for e in registry))
            )
        assert views[0] == views[1], f"log {seed} without {source}"
