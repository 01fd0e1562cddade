"""Lessons in thinking: traces whose steps are right, whose tries fail but for the last, and whose answer counts."""

from __future__ import annotations

import re

import pytest

from worlds import load_lessons, world_class
from worlds.numbers.puzzles import is_held_out
from worlds.numbers.thoughts import PATTERN, expression_of
from worlds.seeds import DerivedRandom

SPLIT = world_class("split-numbers-v0")
LESSONS = load_lessons("split-numbers-v0")


@pytest.fixture(scope="module")
def examples():
    return [LESSONS.example("puzzle-thinker", DerivedRandom(0, "t", i), False)[0] for i in range(150)]


def _parts(example):
    """Return prefix steps, numbers left, tries (as steps), and the target."""
    thoughts = example.answer.rpartition(":")[0]
    begun, *tries = thoughts.split("|")
    steps, _, left = begun.partition(";")
    target = int(example.observation.split(" target ")[1])
    return steps.split(), [int(word) for word in left.split()], [text.split() for text in tries], target


def test_answers_are_right_and_of_training_puzzles(examples):
    for example in examples:
        assert LESSONS.judge(example, example.answer)
        tiles, target = example.observation.removeprefix("tiles ").split(" target ")
        assert not is_held_out([int(tile) for tile in tiles.split()], int(target))
        assert re.fullmatch(PATTERN + r"[0-9()+\-*/]{1,60}", example.answer)


def test_every_result_is_the_one_that_decoding_is_told(examples):
    for example in examples:
        text = example.answer
        for place in (place for place, character in enumerate(text) if character == "="):
            told = SPLIT.inline(example.observation, text[: place + 1])
            assert re.match(r"[0-9]+", text[place + 1 :])[0] == told


def test_three_steps_leave_three_numbers_that_are_made_of_the_tiles(examples):
    for example in examples:
        steps, left, _, _ = _parts(example)
        numbers = [int(tile) for tile in example.observation.split(" target ")[0].split()[1:]]
        assert len(steps) == 3
        for step in steps:
            one, other, found = map(int, re.fullmatch(r"(\d+)[-+*/](\d+)=(\d+)", step).groups())
            numbers.remove(one)
            numbers.remove(other)
            numbers.append(found)
        assert sorted(numbers) == sorted(left)


def test_only_the_last_try_makes_the_target_and_no_value_is_tried_twice(examples):
    failures = []
    for example in examples:
        _, left, tries, target = _parts(example)
        results = [int(steps[-1].rpartition("=")[2]) for steps in tries]
        assert results[-1] == target
        assert target not in results[:-1]
        assert len(set(results)) == len(results)
        for first, second in tries:
            used = [int(word) for word in re.findall(r"\d+", first.partition("=")[0])]
            used += [int(word) for word in re.findall(r"\d+", second.partition("=")[0])]
            used.remove(int(first.rpartition("=")[2]))
            assert sorted(used) == sorted(left)
        failures.append(len(tries) - 1)
    assert set(failures) == {0, 1, 2, 3, 4, 5}


def test_an_answer_is_judged_by_its_expression_alone(examples):
    example = examples[0]
    assert LESSONS.judge(example, f"1+1=3:{expression_of(example.answer)}")
    assert LESSONS.judge(example, expression_of(example.answer))
    assert not LESSONS.judge(example, example.answer.partition(":")[0])
    assert not LESSONS.judge(example, f"{example.answer}+1")


def test_traces_fit_into_128_tokens_of_two_characters(examples):
    assert max(len(example.answer) for example in examples) < 230
