import itertools
import random

import pytest

from ulm.memory import EntityRegistry
from ulm.memory.registry import Origin, answered
from ulm.symmetric.compositions import Compositions, derived

FLOORS = range(-3, 4)
"""Relations between floors: so many stairs up; one more than three has no name."""

KIN = Compositions({("mother", "brother"): "uncle", ("uncle", "son"): "cousin"})


def stairs(path):
    return [f"up {floors}" for floors in path]


def chains(length, steps):
    paths = itertools.product(steps, repeat=length)
    return [(stairs(path), f"up {sum(path)}") for path in paths if sum(path) in FLOORS]


def long_chains():
    rng = random.Random(1)
    paths = [[rng.choice((-2, -1, 1, 2)) for _ in range(7)] for _ in range(200)]
    return [(stairs(path), f"up {sum(path)}") for path in paths if sum(path) in FLOORS]


def right(table, some):
    return sum(next(iter(table.reduce(path)), None) == whole for path, whole in some) / len(some)


@pytest.fixture(scope="module")
def table():
    steps = (-2, -1, 1, 2)
    shown = [chain for chain in chains(2, steps) if chain[0] not in (["up 2", "up -1"], ["up -2", "up 1"])]
    return Compositions.learn(shown + chains(3, steps), seed=1)


def test_rules_that_no_chain_shows_alone_are_learned(table):
    assert table.rules["up 2", "up -1"] == "up 1"
    assert ("up 2", "up 2") not in table.rules
    assert any("up 0" in pair or "up 3" in pair for pair in table.rules)  # in between alone
    floors = {name: int(name.removeprefix("up ")) for name in table.relations}
    assert all(floors[one] + floors[other] == floors[whole] for (one, other), whole in table.rules.items())


def test_rules_hold_for_longer_chains_and_permuted_rules_do_not(table):
    results = list(table.rules.values())
    random.Random(1).shuffle(results)
    assert right(table, long_chains()) >= 0.95
    assert right(Compositions(dict(zip(table.rules, results, strict=True))), long_chains()) <= 0.4


def test_equal_seeds_learn_equal_rules():
    some = chains(2, (-1, 1))
    assert Compositions.learn(some, seed=3, steps=20).rules == Compositions.learn(some, seed=3, steps=20).rules


@pytest.mark.parametrize("wrong", [[], [(["up 1"], "up 1")]])
def test_chains_that_teach_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="at least two relations"):
        Compositions.learn(wrong)


def test_pair_without_rule_does_not_end_a_derivation():
    table = Compositions({("b", "c"): "d", ("a", "d"): "e"})
    assert table.reduce("abc") == {"e": 1}
    assert table.reduce("ab") == {}
    assert table.reduce("abz") == {}


def test_orders_that_disagree_share():
    table = Compositions({("a", "b"): "x", ("x", "c"): "one", ("b", "c"): "y", ("a", "y"): "two", ("c", "c"): "one"})
    assert table.reduce("abc") == {"one": 0.5, "two": 0.5}
    assert list(table.reduce("abc")) == ["one", "two"]  # more rules end in it
    assert table.reduce("abc", "ax", "cc") == pytest.approx({"one": 2 / 3, "two": 1 / 3})


def test_printed_rules_can_be_read(table):
    assert Compositions.read(str(table)) == table
    assert str(KIN) == "uncle o son -> cousin\nmother o brother -> uncle"


@pytest.mark.parametrize("wrong", ["mother brother uncle", "a o b -> c\na o b -> d", "a o b ->"])
def test_text_that_is_no_table_is_refused(wrong):
    with pytest.raises(ValueError, match="a rule is one line such as"):
        Compositions.read(wrong)


@pytest.fixture
def family():
    registry = EntityRegistry()
    people = [registry.create(name, "person", "tale") for name in ("Ann", "Bea", "Cal", "Dan", "Eve")]
    ann, bea, cal, dan, eve = people
    registry.add_relation(ann, "mother", bea, Origin("tale"))
    registry.add_relation(bea, "brother", cal, Origin("letter"))
    registry.add_relation(cal, "son", dan, Origin("tale"))
    registry.add_relation(dan, "friend", eve, Origin("tale"))
    return registry, people


def test_what_is_not_known_directly_is_unknown_without_a_table(family):
    registry, (ann, bea, cal, dan, _) = family
    assert derived(registry, ann, bea) == {"mother": 1}
    assert derived(registry, ann, cal) == {}
    assert derived(registry, ann, cal, KIN) == {"uncle": 1}
    assert derived(registry, ann, dan, KIN) == {"cousin": 1}


def test_nothing_follows_from_relations_without_rules_or_too_far_away(family):
    registry, (ann, _, _, dan, eve) = family
    assert derived(registry, ann, eve, KIN) == {}
    assert derived(registry, dan, ann, KIN) == {}
    assert derived(registry, ann, dan, KIN, max_hops=2) == {}
    with pytest.raises(ValueError, match="no entity 99"):
        derived(registry, ann, 99, KIN)


def test_longer_ways_count_where_nothing_follows_from_the_shortest(family):
    registry, (ann, bea, cal, dan, _) = family
    registry.add_relation(ann, "son", bea, Origin("tale"))
    registry.add_relation(bea, "son", dan, Origin("tale"))
    assert derived(registry, ann, dan, KIN) == {"cousin": 1}  # no rule for a son's or a mother's son
    registry.add_relation(cal, "brother", cal, Origin("tale"))
    assert derived(registry, ann, cal, KIN) == {"uncle": 1}


def test_circles_end(family):
    registry, (ann, bea, _, _, eve) = family
    registry.add_relation(bea, "son", ann, Origin("tale"))
    assert derived(registry, ann, eve, KIN) == {}


def test_what_is_known_directly_counts_alone(family):
    registry, (ann, _, cal, _, _) = family
    registry.add_relation(ann, "teacher", cal, Origin("tale"))
    assert derived(registry, ann, cal, KIN) == {"teacher": 1}


def test_what_followed_from_a_source_is_forgotten_with_it(family):
    registry, (ann, _, cal, dan, _) = family
    registry.forget("letter")
    assert derived(registry, ann, cal, KIN) == {}
    assert derived(registry, ann, dan, KIN) == {}


def test_derivations_go_through_all_numbers_of_an_entity(family):
    registry, (ann, _, cal, _, _) = family
    calvin, fay = registry.create("Calvin", "person", "note"), registry.create("Fay", "person", "note")
    registry.add_relation(calvin, "son", fay, Origin("note"))
    assert derived(registry, ann, fay, KIN) == {}
    registry.merge(cal, calvin)
    assert derived(registry, ann, fay, KIN) == {"cousin": 1}


def test_look_ups_answer_what_follows_only_with_a_table(family):
    registry, _ = family
    assert answered(registry, "[Ann] : uncle =", {}) == " unknown"
    assert answered(registry, "[Ann] : uncle =", {}, KIN.hop(registry)) == " Cal"
    assert answered(registry, "[Ann] : mother =", {}, KIN.hop(registry)) == " Bea"
    assert answered(registry, "[Ann] : cousin friend =", {}, KIN.hop(registry)) == " Eve"
    assert answered(registry, "[Ann] : grandmother =", {}, KIN.hop(registry)) == " unknown"


def test_look_ups_do_not_answer_what_half_of_the_derivations_say(family):
    registry, (ann, bea, _, _, _) = family
    registry.add_relation(bea, "sister", registry.create("Gus", "person"), Origin("tale"))
    gus = registry.named("Gus")[0]
    registry.add_relation(ann, "aunt", bea, Origin("tale"))
    table = Compositions({("mother", "sister"): "aunt", ("aunt", "sister"): "great aunt"})
    assert derived(registry, ann, gus, table) == {"aunt": 0.5, "great aunt": 0.5}
    assert answered(registry, "[Ann] : great aunt =", {}, table.hop(registry)) == " unknown"
