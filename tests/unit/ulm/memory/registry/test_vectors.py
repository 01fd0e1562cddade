"""Vectors of entities: who is like whom, and what an update or a forgotten source does to that."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from ulm.memory.registry import EntityRegistry, Origin, Relation
from ulm.memory.registry.vectors import WIDTH, EntityVectors

PAGE, OTHER = Origin("page 1"), Origin("page 2")


@pytest.fixture
def registry() -> EntityRegistry:
    """Return a registry of animals that have some things in common, and of many others."""
    made = EntityRegistry()
    made.declare(Relation("eats", inverse="eaten_by"))
    rng = random.Random(1)
    foods = [made.get_or_create(f"food {n}", "food", PAGE) for n in range(40)]
    for n in range(60):
        one = made.get_or_create(f"beast {n}", "animal", PAGE)
        for food in rng.sample(foods, 3):
            made.add_relation(one, "eats", food, PAGE)
    for name, origin in (("cat", PAGE), ("feline", OTHER)):
        one = made.get_or_create(name, "animal", origin)
        for word in ("milk", "mouse", "fish"):
            made.add_relation(one, "eats", made.get_or_create(word, "food", origin), origin)
        made.add_property(one, "says", "meow", origin)
    return made


def number(registry: EntityRegistry, name: str) -> int:
    (found,) = registry.named(name)
    return found


def fresh(registry: EntityRegistry, entity: int) -> np.ndarray:
    """Return a vector as one computes it who sees the registry for the first time."""
    return EntityVectors(registry).of(entity)


def test_a_synonym_is_found_by_what_stands_beside_it_and_not_by_its_name(registry: EntityRegistry) -> None:
    cat, feline = number(registry, "cat"), number(registry, "feline")
    assert registry.find_similar_entities(cat, k=1)[0][0] == feline
    by_name = EntityVectors(registry, weights=(1.0, 0.0, 0.0))
    assert feline not in [one for one, _ in by_name.nearest(by_name.of(cat), k=10)]


def test_names_that_are_written_alike_are_near(registry: EntityRegistry) -> None:
    mara = registry.create("Mara Voss", "person", origin=PAGE)
    for name in ("Mara Vossen", "Tom Brask", "Ida Lund"):
        registry.create(name, "person", origin=OTHER)
    (near, cosine), *_ = registry.find_similar_entities(mara, "person", threshold=-1.0)
    assert registry.names(near) == ("Mara Vossen",)
    assert 0.5 < cosine < 1.0


def test_type_number_and_threshold_narrow_what_is_found(registry: EntityRegistry) -> None:
    cat = number(registry, "cat")
    found = registry.find_similar_entities(registry.embedding(cat), "food", k=7, threshold=-1.0)
    assert len(found) == 7
    assert {registry.type_of(one) for one, _ in found} == {"food"}
    assert [cosine for _, cosine in found] == sorted((cosine for _, cosine in found), reverse=True)
    assert registry.find_similar_entities(cat, "boat") == registry.find_similar_entities(cat, k=0) == []
    assert all(cosine >= 0.4 for _, cosine in registry.find_similar_entities(cat, k=99, threshold=0.4))


def test_search_finds_what_comparing_with_all_finds(registry: EntityRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    everybody = list(registry)
    vector_ND = np.stack([registry.embedding(one) for one in everybody])
    assert np.allclose(np.linalg.norm(vector_ND, axis=1), 1, atol=1e-5)
    monkeypatch.setattr("ulm.memory.registry.vectors.BLOCK", 7)
    for asked in everybody[::9]:
        cosine_N = np.round(vector_ND @ registry.embedding(asked), 6)
        wanted = sorted(zip(-cosine_N, everybody, strict=True))[:6]
        assert [one for one, _ in registry.find_similar_entities(asked, k=5, threshold=-1.0)] == [
            one for _, one in wanted if one != asked
        ][:5]


def test_an_updated_vector_counts_until_its_source_is_forgotten(registry: EntityRegistry, tmp_path: Path) -> None:
    cat, feline = number(registry, "cat"), number(registry, "feline")
    before, wanted = registry.embedding(cat), np.arange(1.0, WIDTH + 1)
    said = registry.update_embedding(cat, wanted, Origin("trainer", tick=4))
    assert (said.relation, said.source, said.tick) == (":vector", "trainer", 4)
    assert np.allclose(registry.embedding(cat), wanted / np.linalg.norm(wanted), atol=1e-6)
    assert registry.find_similar_entities(wanted, k=1) == [(cat, 1.0)]
    assert not np.array_equal(before, registry.embedding(cat))
    assert ":vector" not in registry.get_entity(cat).properties
    registry.save(tmp_path / "r.db")
    assert np.array_equal(EntityRegistry.load(tmp_path / "r.db").embedding(cat), registry.embedding(cat))
    registry.merge(feline, cat, Origin("editor"))
    assert np.array_equal(registry.embedding(feline), registry.embedding(cat))
    registry.forget("trainer")
    registry.forget("editor")
    assert np.array_equal(registry.embedding(cat), before)


@pytest.mark.parametrize("wrong", [[1.0] * 63, [0.0] * WIDTH, [np.nan] * WIDTH, [[1.0] * WIDTH], []])
def test_vectors_that_are_none_are_refused_and_nothing_is_written(registry: EntityRegistry, wrong: list) -> None:
    cat, before = number(registry, "cat"), registry.digest
    for call in (lambda: registry.update_embedding(cat, wrong), lambda: registry.find_similar_entities(wrong)):
        with pytest.raises(ValueError, match="a vector of 256 finite numbers"):
            call()
    for call in (
        lambda: registry.update_embedding(9999, [1.0] * WIDTH),
        lambda: registry.embedding(9999),
        lambda: registry.find_similar_entities(9999),
    ):
        with pytest.raises(ValueError, match="no entity 9999"):
            call()
    with pytest.raises(ValueError, match="cannot be called ':vector'"):
        registry.add_property(cat, ":vector", "AAAA")
    assert registry.digest == before


def test_vectors_may_be_as_wide_as_those_of_a_model_are(tmp_path: Path) -> None:
    registry = EntityRegistry(tmp_path / "r.db", vector_width=576)
    cat = registry.get_or_create("cat")
    assert registry.embedding(cat).shape == (576,)
    registry.update_embedding(cat, [1.0] * 576)
    registry.close()
    with pytest.raises(ValueError, match="open the registry with vector_width=576, or forget"):
        EntityRegistry.load(tmp_path / "r.db").embedding(cat)
    with pytest.raises(ValueError, match="a multiple of 8, got 10"):
        EntityRegistry(vector_width=10)


def test_what_is_taken_in_step_by_step_is_what_is_seen_at_once(registry: EntityRegistry) -> None:
    rng = random.Random(3)
    for step in range(150):
        some = list(registry)
        one, other, source = rng.choice(some), rng.choice(some), f"page {rng.randrange(9)}"
        what, origin = rng.choice(["name", "value", "relation", "merge", "forget", "vector", "new"]), Origin(source)
        if what == "name":
            registry.add_name(one, f"name {step} of the longer kind", origin=origin)
        elif what == "value":
            registry.add_property(one, "says", rng.choice(["moo", "baa"]), origin)
        elif what == "relation":
            registry.add_relation(one, "eats", other, origin)
        elif what == "merge":
            registry.merge(one, other, origin)
        elif what == "forget":
            registry.forget(source)
        elif what == "vector":
            registry.update_embedding(one, [rng.gauss(0, 1) for _ in range(WIDTH)], origin)
        else:
            registry.get_or_create(f"new {step}", "animal", origin)
        if step % 5 == 0:
            asked = rng.choice(list(registry))
            assert np.array_equal(registry.embedding(asked), fresh(registry, asked)), f"step {step}"
    seen = EntityVectors(registry)
    assert all(np.array_equal(registry.embedding(one), seen.of(one)) for one in registry)
    every = registry.find_similar_entities(seen.of(next(iter(registry))), k=9999, threshold=-1.0)
    assert {one for one, _ in every} == set(registry)


def test_what_is_rolled_back_leaves_no_vector(registry: EntityRegistry) -> None:
    cat = number(registry, "cat")
    before, everybody = registry.embedding(cat), set(registry)

    def change_and_fail() -> None:
        with registry.writing():
            registry.add_property(cat, "says", "woof", OTHER)
            ghost = registry.get_or_create("ghost", "animal", OTHER)
            assert not np.array_equal(registry.embedding(cat), before)
            assert registry.find_similar_entities(registry.embedding(ghost), k=1) == [(ghost, 1.0)]
            raise KeyError

    with pytest.raises(KeyError):
        change_and_fail()
    assert np.array_equal(registry.embedding(cat), before)
    assert {one for one, _ in registry.find_similar_entities(before, k=999, threshold=-1.0)} == everybody


def test_a_vector_follows_from_what_is_known_and_not_from_numbers_or_order() -> None:
    made = []
    for order in (1, -1):
        registry = EntityRegistry()
        registry.declare(Relation("eats", inverse="eaten_by"))
        for name in ("cat", "milk", "王芳", "a b")[::order]:
            registry.get_or_create(name, "thing", PAGE)
        for name in ("milk", "王芳")[::order]:
            registry.add_relation(number(registry, "cat"), "eats", number(registry, name), PAGE)
        made.append(registry)
    for name in ("cat", "milk", "王芳", "a b"):
        one, other = (registry.embedding(number(registry, name)) for registry in made)
        assert np.array_equal(one, other)
    assert number(made[0], "cat") != number(made[1], "cat")
