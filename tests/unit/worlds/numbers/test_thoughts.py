"""Answers in steps: what is filled in, and what counts."""

from __future__ import annotations

import re

import pytest

from worlds import make, world_class
from worlds.numbers.puzzles import Puzzle
from worlds.numbers.thoughts import last_search, result
from worlds.protocol import Info

NUMBERS = world_class("numbers-v0")
THOUGHT = "6*4=24 24*3=72;24-72=?|6*4=24 24+1=25;25-22=3 25-3=22"


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


def _judged(action):
    result = _world(think=True).step({"a0": action})
    return result.infos["a0"]["feedback"], result.rewards["a0"]


@pytest.mark.parametrize(
    ("action", "feedback"),
    [
        (THOUGHT, "= 22"),
        ("4+6=10 10+1=11 11+3=14", "= 14"),
        ("3-1=2 4*6=24 24*2=48", "= 48"),
        ("4*6=24 3-1=2;24/2=12 2*24=48", "= 48"),
        ("1+3=4 4*4=16 16+6=22", "= 22"),  # a tile and a result of one name
        ("1+1=5|6/(1-3/4)", "= 24"),
        ("6/(1-3/4)", "= 24"),
        ("4*6=25 3-1=2 25*2=48", "= 48"),  # what is claimed names a number, and is not believed
    ],
)
def test_the_steps_of_the_last_search_are_the_answer(action, feedback):
    assert _judged(action) == (feedback, float(feedback == "= 24"))


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("6*4=24 3-1=2", "the steps come to 2 numbers, not to one"),
        (";6*4=24", "the steps come to 0 numbers, not to one"),
        ("6*4=24 24*3=72", "tile 1 is not used"),
        ("6*4=24 24*3=72 72*2=144", "2 is not a tile"),
        ("6*4=24|", "empty"),
        ("6*4=", "cannot read the step at '6*4='"),
        ("3-4=? 6+1=7", "cannot read the step at '3-4=? 6+1=7'"),
        ("6*4=24 x", "cannot read the step at 'x'"),
        ("6*4=24  3-1=2", "cannot read the step at '3-1=2'"),
        ("4-4=0 6/0=7", "division by zero"),
    ],
)
def test_steps_that_come_to_nothing_are_illegal(action, why):
    feedback, reward = _judged(action)
    assert feedback.startswith("illegal: ")
    assert reward == 0.0
    assert why in feedback


def test_where_steps_are_not_allowed_they_are_illegal():
    assert _world().step({"a0": "1+3=4 4*4=16 16+6=22"}).infos["a0"]["valid"] is False


def test_the_pattern_allows_steps_where_the_options_do():
    patterns = _world(think=True).action_pattern("a0"), _world().action_pattern("a0")
    assert [bool(re.fullmatch(pattern, THOUGHT)) for pattern in patterns] == [True, False]
    assert all(re.fullmatch(pattern, "6/(1-3/4)") for pattern in patterns)


def test_hindsight_keeps_the_search_that_hit_and_nothing_of_a_miss():
    def told(target):
        seen = f"tiles 1 3 4 6 target {target}"
        return NUMBERS.relabel(NUMBERS.Options(), seen, THOUGHT, Info(feedback="= 22", valid=True))

    assert told(22) == [("tiles 1 3 4 6 target 22", last_search(THOUGHT))]
    assert told(24) == []
