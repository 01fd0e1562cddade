"""Propositions as text, and answers from a registry, with time and with rules."""

from __future__ import annotations

import re

import pytest

from ulm.memory.registry import EntityRegistry, Origin, Relation
from ulm.symmetric.handles import Handles
from ulm.symmetric.mining import RuleMiner
from ulm.symmetric.questions import Statement, answer, parse, pattern, tell
from ulm.symmetric.timeline import Rule, Timeline

RULES = (
    Rule("at", ("carried_by", "at")),
    Rule("eats", ("kind", "eats")),
    Rule("size", ("kind", "~kind", "size")),
)


@pytest.fixture
def registry() -> EntityRegistry:
    made = EntityRegistry()
    for one in (
        Relation("at", functional=True),
        Relation("carried_by", functional=True),
        Relation("kind", functional=True, constant=True),
        Relation("eats", functional=True, constant=True),
        Relation("size", functional=True, constant=True),
        Relation("up", inverse="down"),
        Relation("works_for", functional=True, inverse="employs"),
        Relation("wed_to", functional=True, symmetric=True),
        Relation("buyer", functional=True, constant=True),
        Relation("ware", functional=True, constant=True),
    ):
        made.declare(one)
    return made


def say(registry: EntityRegistry, *lines: str) -> None:
    """Tell `ann at quay`, one line after the other; each is a source of its own."""
    for number, line in enumerate(lines, start=registry.revision):
        tell(registry, *_read(line), Origin(line, tick=number))


def ask(registry: EntityRegistry, question: str) -> str:
    return ",".join(answer(Timeline(registry, RULES), *_read(question)))


def _read(line: str) -> tuple[Statement, list[str]]:
    names = list(dict.fromkeys(re.findall(r"<(\w+)>", line)))
    found = parse(re.sub(r"<(\w+)>", lambda match: f"[{names.index(match[1])}]", line))
    assert found is not None
    return found, names


def test_a_text_of_propositions_is_read_and_written() -> None:
    for text in ("[0] at [1]", "[0] at ? before [1]", "* buyer [0] ; * ware ?", "[0] at [1] @3", "[0] ? [1]"):
        assert str(parse(text)) == text
        assert re.fullmatch(pattern(2, ["at", "buyer", "ware"]), text + "\n")


@pytest.mark.parametrize(
    "text", ["", "[0] at", "[0] at [1] [2]", "[0] at [1] ;", "ann at quay", "[0] AT [1]", "[0] at [1] @"]
)
def test_what_makes_no_sense_is_nothing(text: str) -> None:
    assert parse(text) is None


def test_claims_about_mentions_that_are_not_there_are_left_out(registry: EntityRegistry) -> None:
    said = parse("[0] at [7] ; [0] at [1] ; [1] at ?")
    assert said
    tell(registry, said, ["ann", "quay"], Origin("page"))
    assert registry.num_entities == 2
    assert ask(registry, "<ann> at ?") == "quay"


def test_what_is_carried_goes_along_and_stays_where_it_is_put_down(registry: EntityRegistry) -> None:
    say(registry, "<ann> at <quay>", "<coin> carried_by <ann>", "<ann> at <mill>")
    assert ask(registry, "<coin> at ?") == "mill"
    say(registry, "<coin> not_carried_by <ann>", "<ann> at <inn>", "<bob> at <inn>")
    assert ask(registry, "<coin> at ?") == "mill"
    assert ask(registry, "<coin> carried_by ?") == ""
    assert ask(registry, "<coin> at ? before <mill>") == "quay"
    assert ask(registry, "<ann> at ? before <quay>") == ""


def test_a_forgotten_sentence_was_never_read(registry: EntityRegistry) -> None:
    say(registry, "<ann> at <quay>", "<coin> carried_by <ann>", "<ann> at <mill>")
    registry.forget("<ann> at <mill>")
    assert ask(registry, "<coin> at ?") == "quay"
    registry.forget("<coin> carried_by <ann>")
    assert ask(registry, "<coin> at ?") == ""


def test_a_merge_joins_what_is_known_of_two_and_a_split_parts_it(registry: EntityRegistry) -> None:
    say(registry, "<annie> at <quay>", "<coin> carried_by <ann>")
    ends = registry.named("ann")[0], registry.named("annie")[0]
    registry.merge(*ends, Origin("a letter"))
    assert ask(registry, "<ann> at ?") == "quay"
    registry.split(*ends)
    assert ask(registry, "<ann> at ?") == ""


def test_time_that_is_said_counts_not_the_order_of_telling(registry: EntityRegistry) -> None:
    say(registry, "<ann> at <inn> @3", "<ann> at <quay> @1", "<ann> at <mill> @2")
    assert ask(registry, "<ann> at ?") == "inn"
    assert ask(registry, "<ann> at ? before <inn>") == "mill"


def test_a_new_value_ends_the_old_one_from_both_sides(registry: EntityRegistry) -> None:
    say(registry, "<ann> works_for <mill>", "<ann> works_for <inn>", "<ann> wed_to <bob>", "<cid> wed_to <bob>")
    assert [ask(registry, f"<{firm}> employs ?") for firm in ("mill", "inn")] == ["", "ann"]
    assert [ask(registry, f"<{who}> wed_to ?") for who in ("ann", "bob", "cid")] == ["", "cid", "bob"]


def test_yes_no_and_maybe(registry: EntityRegistry) -> None:
    say(registry, "<ann> at <quay>", "<bob> not_at <quay>", "<mill> kind <house>")
    assert [ask(registry, f"<ann> at <{place}>") for place in ("quay", "mill")] == ["yes", "no"]
    assert [ask(registry, f"<bob> at <{place}>") for place in ("quay", "mill")] == ["no", "maybe"]
    assert ask(registry, "<cid> at <quay>") == "maybe"
    say(registry, "<bob> at <quay>")
    assert ask(registry, "<bob> at <quay>") == "yes"


def test_counts_and_lists_hold_what_is_held_now_in_the_order_of_taking(registry: EntityRegistry) -> None:
    say(registry, "<pin> carried_by <ann>", "<coin> carried_by <ann>", "<key> carried_by <ann>")
    say(registry, "<coin> not_carried_by <ann>", "<key> carried_by <bob>")
    assert [ask(registry, f"# carried_by <{who}>") for who in ("ann", "bob", "cid")] == ["1", "1", "0"]
    assert ask(registry, "? carried_by <ann>") == "pin"
    say(registry, "<coin> carried_by <ann>", "<pin> carried_by <ann>")
    assert ask(registry, "? carried_by <ann>") == "pin,coin"


def test_an_event_is_found_by_all_that_is_said_of_it_the_last_one_first(registry: EntityRegistry) -> None:
    say(registry, "* buyer <ann> ; * ware <pin>", "* buyer <bob> ; * ware <coin>", "* buyer <ann> ; * ware <key>")
    say(registry, "* buyer <bob> ; * ware <pin>")
    assert ask(registry, "* buyer <ann> ; * ware ?") == "key"
    assert ask(registry, "* ware <pin> ; * buyer ?") == "bob"
    assert ask(registry, "* buyer <cid> ; * ware ?") == ""


def test_kinds_hand_on_what_they_have_and_members_what_they_share(registry: EntityRegistry) -> None:
    say(registry, "<cow> eats <hay>", "<lou> kind <cow>", "<max> kind <cow>", "<max> size <big>", "<dot> kind <hen>")
    assert ask(registry, "<lou> eats ?") == "hay"
    assert ask(registry, "<lou> size ?") == "big"
    assert ask(registry, "<dot> size ?") == ""
    say(registry, "<lou> size <small>")
    assert ask(registry, "<lou> size ?") == "small"


def test_a_way_is_told_by_its_relations(registry: EntityRegistry) -> None:
    say(registry, "<attic> up <loft>", "<attic> down <hall>", "<cellar> up <hall>")
    assert ask(registry, "<loft> ? <cellar>") == "down,down,down"
    assert ask(registry, "<hall> ? <loft>") == "up,up"
    assert ask(registry, "<hall> ? <moon>") == ""


def test_rules_that_run_in_circles_end(registry: EntityRegistry) -> None:
    say(registry, "<ann> at <quay>", "<ann> carried_by <bob>", "<bob> carried_by <ann>", "<bob> at <mill>")
    assert ask(registry, "<ann> at ?") in ("quay", "mill")


def test_rules_are_found_in_answers_and_not_in_shuffled_ones() -> None:
    found = []
    for shift in (0, 1):
        miner = RuleMiner()
        for number in range(12):
            registry = EntityRegistry()
            registry.declare(Relation("kind", functional=True, constant=True))
            registry.declare(Relation("eats", functional=True, constant=True))
            say(registry, "<cow> eats <hay>", "<hen> eats <corn>")
            kinds = ("cow", "hen") if number % 2 else ("hen", "cow")
            say(registry, f"<lou> kind <{kinds[0]}>", f"<max> kind <{kinds[1]}>")
            food = ("corn", "hay")[(number % 3 + shift * number) % 2] if shift else ("hay" if number % 2 else "corn")
            miner.add(Timeline(registry), registry.named("lou")[0], "eats", registry.named(food)[0])
        found.append([str(rule) for rule, _, _ in miner.rules()])
    assert found == [["eats <- kind eats"], []]


def test_mentions_are_what_labels_name_and_what_nobody_has_seen() -> None:
    handles = Handles([("Ann sat by the mice.", "[ann] near [mice/mouse]"), ("She ran.", "[ann] ran [ann]")])
    reading = handles.read("Zoe ran by the mice.", "Ann sat.")
    assert reading.prompt == "[0] ran by the [1] . | [2] sat . :"
    assert reading.names == ("zoe", "mouse", "ann")
    assert (reading.own, reading.name_of("[1]"), reading.name_of("[9]")) == (2, "mouse", "[9]")
    assert reading.labelled("[zoe] near [mice/mouse]") == "[0] near [1]"
