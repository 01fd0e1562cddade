"""Thoughts before an expression: what is filled in, and that only the expression counts."""

from __future__ import annotations

import re

import pytest

from worlds import make, world_class
from worlds.numbers.puzzles import Puzzle
from worlds.numbers.thoughts import expression_of, result, without_failures
from worlds.protocol import Info

NUMBERS = world_class("numbers-v0")
THOUGHT = "6*4=24;24 1 3|24*3=72 72+1=73|24+1=25 25-3=22:6*4+1-3"


@pytest.mark.parametrize(
    ("text", "follows"),
    [
        ("3*7=", "21"),
        ("13*9=117 117-8=", "109"),
        ("6*4=24;24 1 3|24/3=", "8"),
        ("|1+2=", "3"),
        ("3-7=", "?"),  # no whole number from 0 on
        ("7/2=", "?"),
        ("7/0=", "?"),
        ("0/7=", "0"),
        ("3*7", None),
        ("3*7=21", None),
        ("=", None),
        ("x3*7=", None),
        ("(3*7)=", None),
        ("2+3*7=", None),  # two steps in one
        ("99999999*2=", None),  # too long a number
        ("3*7=\n", None),
        ("", None),
    ],
)
def test_what_follows_a_step(text, follows):
    assert result(text) == follows
    assert NUMBERS.inline("tiles 1 3 4 6 target 24", text) == follows
    assert world_class("split-numbers-v0").inline("", text) == follows


def _world(**options):
    world = make("numbers-v0", 1, {"own_tasks": True, **options})
    world.reset(0)
    world.puzzles["a0"] = Puzzle((1, 3, 4, 6), 24)
    return world


def test_only_the_expression_behind_the_thoughts_counts():
    world = _world(think=True)
    assert world.step({"a0": THOUGHT}).infos["a0"] == {"feedback": "= 22", "valid": True}
    assert world.step({"a0": "1+1=5:6/(1-3/4)"}).rewards == {"a0": 1.0}


@pytest.mark.parametrize("action", [THOUGHT.partition(":")[0], "6*4=24:", ":"])
def test_thoughts_without_an_expression_are_illegal(action):
    assert _world(think=True).step({"a0": action}).infos["a0"]["valid"] is False


def test_a_plain_expression_needs_no_thoughts():
    assert _world(think=True).step({"a0": "6/(1-3/4)"}).rewards == {"a0": 1.0}


def test_where_thoughts_are_not_allowed_they_are_illegal():
    assert _world().step({"a0": "1+1=2:6/(1-3/4)"}).infos["a0"]["valid"] is False


def test_the_pattern_allows_thoughts_where_the_options_do():
    patterns = _world(think=True).action_pattern("a0"), _world().action_pattern("a0")
    assert [bool(re.fullmatch(pattern, THOUGHT)) for pattern in patterns] == [True, False]
    assert all(re.fullmatch(pattern, "6/(1-3/4)") for pattern in patterns)


def test_hindsight_keeps_the_thoughts_that_led_there_and_no_failure():
    pairs = NUMBERS.relabel(NUMBERS.Options(), "tiles 1 3 4 6 target 24", THOUGHT, Info(feedback="= 22", valid=True))
    assert pairs == [("tiles 1 3 4 6 target 22", "6*4=24;24 1 3|24+1=25 25-3=22:6*4+1-3")]
    assert without_failures("1+1=2:1+1") == "1+1=2:1+1"
    assert without_failures("6*4=24;24 1 3|24+1=25|6-4=2;2 1 3|2+1=3|2*1=2:(6-4)*1") == "6-4=2;2 1 3|2*1=2:(6-4)*1"
    assert expression_of(pairs[0][1]) == "6*4+1-3"
