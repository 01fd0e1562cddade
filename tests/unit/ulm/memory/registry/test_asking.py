"""Look-ups as text: who is meant, where the path leads, and what is said where nobody knows."""

from __future__ import annotations

import pytest

from ulm.memory.registry import Claim, EntityRegistry, Identity, Relation, answered, mentions_of

FLAGS = {
    "trade": ("functional", "constant", "is_property"),
    "works_for": ("functional",),
    "seat": ("functional",),
}


@pytest.fixture
def registry() -> EntityRegistry:
    made = EntityRegistry(identity=Identity.load())
    for name, flags in FLAGS.items():
        made.declare(Relation.of(name, flags))
    made.note(
        [
            Claim("doc 1", "mara voss", "person", "trade", "smith", "", 8),
            Claim("doc 1", "mara voss", "person", "works_for", "brask mills", "firm", 8),
            Claim("doc 2", "mara voss", "person", "trade", "weaver", "", 8),
            Claim("doc 2", "mara voss", "person", "works_for", "holm works", "firm", 8),
            Claim("doc 3", "brask mills", "firm", "seat", "tarn", "place", 8),
            Claim("doc 4", "lena ahl", "person", "works_for", "brask mills", "firm", 8),
        ]
    )
    return made


PROMPT = "asked q1 : what is the seat of the firm of [0 mara voss] the smith , or of [1 lena ahl] ?\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("answer [1] : works_for =", " brask mills"),
        ("answer [1] : works_for seat =", " tarn"),
        ("answer [0] trade smith : works_for seat =", " tarn"),
        ("answer [0] trade weaver : works_for =", " holm works"),
        ("answer [0] trade weaver : works_for seat =", " unknown"),
        ("answer [0] : works_for =", " unknown"),  # two of this name work for two firms
        ("answer [0] trade baker : works_for =", " unknown"),
        ("[lena ahl] : works_for =", " brask mills"),
        ("[l. ahl] : works_for =", " brask mills"),
        ("[nobody] : works_for =", " unknown"),
        ("[7] : works_for =", " unknown"),
        ("[lena ahl] : owns =", " unknown"),
        ("[0] trade smith : trade =", " smith"),
        ("answer [0] : works_for", None),
        ("answer 3*7=", None),
        ("[0] works_for =", None),
        ("[] : works_for =", None),
        ("[ ] : works_for =", " unknown"),
    ],
)
def test_a_look_up_is_answered(registry: EntityRegistry, text: str, said: str | None) -> None:
    assert answered(registry, text, mentions_of(PROMPT)) == said


def test_what_is_forgotten_is_answered_no_more(registry: EntityRegistry) -> None:
    registry.forget("doc 3")
    assert answered(registry, "[lena ahl] : works_for seat =", {}) == " unknown"
    assert answered(registry, "[lena ahl] : works_for =", {}) == " brask mills"


def test_namesakes_are_kept_apart_and_short_names_are_linked(registry: EntityRegistry) -> None:
    assert len(registry.named("mara voss")) == 2
    registry.note(
        [
            Claim("doc 5", "m. voss", "person", "trade", "weaver", "", 8),
            Claim("doc 5", "m. voss", "person", "works_for", "holm works", "firm", 8),
        ]
    )
    (weaver,) = registry.named("m. voss")
    assert registry.get_entity(weaver).names == ("mara voss", "m. voss")
    assert registry.get_entity(weaver).properties["trade"] == ("weaver",)


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(ValueError, match="has no flag 'rare'; there are functional"):
        Relation.of("works_for", ("rare",))
    with pytest.raises(ValueError, match="make it functional, too"):
        EntityRegistry().declare(Relation("born_in", constant=True))
