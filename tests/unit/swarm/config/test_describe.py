"""The walk over sections tells what a file may say: every key once, its values in words, its default as YAML."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from swarm.config.describe import describe, json_schema, values_of
from swarm.config.section import Section


class Cat(Section):
    """An animal that purrs."""

    kind: Literal["cat"] = "cat"

    lives: int = Field(9, ge=1)
    """Lives left."""

    name: str
    """What it is called."""


class Dog(Section):
    """An animal that barks."""

    kind: Literal["dog"] = "dog"

    name: str
    """What it is called."""


Animal = Annotated[Cat | Dog, Field(discriminator="kind")]


class Bed(Section):
    """A place to sleep."""

    width: float = Field(0.5, gt=0)
    """Width in
    metres."""


class House(Section):
    """Where animals live."""

    animal: Animal
    """Who lives here."""

    guest: Animal | None = None
    """Who is here today."""

    bed: Bed = Bed()
    """Where it sleeps."""

    spare: Bed = Bed(width=1)
    """Where others sleep."""

    rooms: dict[str, Bed] = Field(default_factory=dict)
    """Further beds, by room."""

    doors: tuple[Bed, ...] | None = None
    """Lie across them."""


def test_sections_come_from_the_top_down_and_in_one_place_each() -> None:
    assert [(section.name, section.kind) for section in describe(House)] == [
        ("", None),
        ("animal", None),
        ("animal", "cat"),
        ("animal", "dog"),
        ("bed", None),
    ]
    assert describe(House)[2].about == "An animal that purrs."


def test_what_all_kinds_share_is_described_once() -> None:
    shared, cat, dog = describe(House)[1:4]
    assert ([one.name for one in shared.settings], shared.kind) == (["animal.name"], None)
    assert [one.name for one in cat.settings] == ["animal.lives"]
    assert not dog.settings


def test_a_setting_has_its_values_default_and_meaning() -> None:
    rows = {one.name: one for section in describe(House) for one in section.settings}
    assert (rows["animal.name"].default, rows["animal.lives"].default) == (None, "9")
    assert rows["bed.width"].meaning == "Width in metres."
    assert rows["bed.width"].values == "a number > 0"
    assert rows["guest"].values == "a section with `kind`, one of cat, dog or null, as in animal"
    assert (rows["bed"].default, rows["spare"].default) == ("", "{width: 1}")
    assert rows["spare"].values == "a section, as in bed"
    assert rows["rooms"].values == "a section for each name, as in bed"
    assert rows["doors"].values == "a list of sections or null, as in bed"
    assert [one.name for one in rows.values() if one.is_section] == ["bed", "spare", "rooms", "doors"]


def test_kinds_of_a_file_are_told_apart_at_its_top() -> None:
    top, cat, _ = describe(Cat, Dog)
    assert (top.settings[0].name, top.settings[0].values, top.settings[0].default) == ("kind", "one of cat, dog", None)
    assert (cat.name, cat.kind) == ("", "cat")


@pytest.mark.parametrize(
    ("annotation", "rules", "words"),
    [
        (int, [Field(ge=0, lt=2**63)], "a whole number >= 0 and < 2^63"),
        (bool, [], "true or false"),
        (str | None, [Field(pattern="^a$")], "text that matches ^a$ or null"),
        (Literal["a", "b"], [], "one of a, b"),
        (list[Annotated[int, Field(ge=1)]], [Field(min_length=1)], "a list of at least 1, each a whole number >= 1"),
        (tuple[float, float], [], "a list of 2, each a number"),
        (tuple[str, ...], [], "a list"),
        (Annotated[int, Field(ge=9)] | str, [], "a whole number >= 9 or text"),
        (int | float | str, [], "a number or text"),
        (dict[str, Any], [], "a section of keys and values"),
        (dict[str, float], [], "a section of keys and values, each a number"),
    ],
)
def test_values_are_told_in_words(annotation: Any, rules: list[Any], words: str) -> None:
    assert values_of(annotation, [limit for rule in rules for limit in rule.metadata]) == words


def test_a_schema_asks_for_the_tag_of_a_union_and_knows_no_other_keys() -> None:
    schema = json_schema(House)
    assert schema["$defs"]["Cat"]["required"] == ["kind", "name"]
    assert schema["$defs"]["Dog"]["additionalProperties"] is False
    assert schema["properties"]["animal"]["description"] == "Who lives here."
    assert len(json_schema(Cat, Dog)["oneOf"]) == 2
