"""Lessons in thinking: searches whose steps are right, of which what fails is not learned, and whose answer counts."""

from __future__ import annotations

import re

import pytest

from swarm.train.lessons import pair
from worlds import load_lessons, world_class
from worlds.numbers import solver
from worlds.numbers.puzzles import is_held_out
from worlds.numbers.thoughts import PATTERN, expression_of
from worlds.seeds import DerivedRandom

SPLIT = world_class("split-numbers-v0")
LESSONS = load_lessons("split-numbers-v0")
STEP = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")


@pytest.fixture(scope="module")
def examples():
    return [LESSONS.example("puzzle-thinker", DerivedRandom(0, "t", i), False)[0] for i in range(200)]


def _puzzle(example):
    tiles, target = example.observation.removeprefix("tiles ").split(" target ")
    return [int(tile) for tile in tiles.split()], int(target)


def _searches(example):
    """Return the searches that failed, and the one that is learned; each as steps to a value, note, and the rest."""
    found = []
    for search in [*filter(None, example.given.split("|")), example.answer.removeprefix("|")]:
        begun, _, more = search.partition(";")
        note, *rest = more.split()
        found.append((begun.split(), note, rest))
    return found[:-1], found[-1]


def test_answers_are_right_and_of_training_puzzles(examples):
    for example in examples:
        assert LESSONS.judge(example, example.given + example.answer)
        assert not is_held_out(*_puzzle(example))
        assert re.fullmatch(PATTERN, example.given + example.answer)


def test_every_result_is_the_one_that_decoding_is_told(examples):
    for example in examples:
        text = example.given + example.answer
        for place in (place for place, character in enumerate(text) if character == "="):
            told = SPLIT.inline(example.observation, text[: place + 1])
            assert re.match(r"[0-9]+", text[place + 1 :])[0] == told


def test_a_note_is_of_what_the_other_three_tiles_have_to_make(examples):
    for example in examples:
        (tiles, target), (failed, right) = _puzzle(example), _searches(example)
        for begun, note, rest in [*failed, right]:
            left, made = list(tiles), []
            for step in begun:
                one, _, other, result = STEP.fullmatch(step).groups()
                for number in map(int, (one, other)):
                    (made if number in made else left).remove(number)
                made.append(int(result))
            (value,) = made
            assert len(left) == 3
            one, _, other, sub_target = STEP.fullmatch(note).groups()
            assert {int(one), int(other)} == {value, target}
            makes = solver.whole_values(tuple(sorted(left)))
            assert sub_target != "24"  # no lesson asks for it
            if rest is right[2]:
                assert int(sub_target) in makes
                assert [STEP.fullmatch(step)[4] for step in rest[-2:]] == [sub_target, str(target)]
            elif rest:
                assert STEP.fullmatch(rest[-1])[4] != sub_target  # a miss
            else:
                assert int(sub_target) not in makes


def test_what_failed_is_read_and_not_learned(examples):
    seen = set()
    for example in examples:
        failed, _ = _searches(example)
        seen.add((len(failed), any(rest for *_, rest in failed)))
        assert example.answer.count("|") == example.answer.startswith("|") == bool(failed)
    assert {(0, False), (1, False), (1, True), (2, False), (3, False)} <= seen


def test_what_is_scored_begins_anew():
    some = [LESSONS.example("puzzle-thinker", DerivedRandom(0, "t", i), True)[0] for i in range(50)]
    assert {example.given for example in some} == {""}


def test_what_is_given_stands_before_what_is_learned(examples):
    example = next(example for example in examples if example.given)
    assert pair(example) == ("think", f"{example.observation}\n{example.given}", f"{example.answer}\n")


def test_an_answer_is_judged_by_its_last_search(examples):
    example = next(example for example in examples if not example.given)
    assert LESSONS.judge(example, f"1+1=3|{example.answer}")
    assert LESSONS.judge(example, expression_of(example.answer))
    assert not LESSONS.judge(example, example.answer.rpartition(" ")[0])
    assert not LESSONS.judge(example, f"{example.answer}|1+1=2")
    assert not LESSONS.judge(example, f"{example.answer} x")


def test_traces_fit_into_128_tokens_of_two_characters(examples):
    assert max(len(example.given + example.answer) for example in examples) <= 220
