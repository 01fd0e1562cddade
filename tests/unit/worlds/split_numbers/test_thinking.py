"""Lessons in thinking: traces whose steps are right, of which what fails is not learned, and whose answer counts."""

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


@pytest.fixture(scope="module")
def examples():
    return [LESSONS.example("puzzle-thinker", DerivedRandom(0, "t", i), False)[0] for i in range(150)]


def _line(example):
    """Return what the agent has written in the end, and where what is learned begins."""
    return example.given + example.answer, len(example.given)


def _parts(example):
    """Return for each part of the thoughts: its steps, the numbers that it lists as left, and where it begins."""
    text, at = _line(example)[0].rpartition(":")[0], 0
    for part in text.split("|"):
        steps, _, left = part.partition(";")
        yield steps.split(), [int(word) for word in left.split()], at
        at += len(part) + 1


def _numbers(observation):
    tiles, target = observation.removeprefix("tiles ").split(" target ")
    return [int(tile) for tile in tiles.split()], int(target)


def test_answers_are_right_and_of_training_puzzles(examples):
    for example in examples:
        assert LESSONS.judge(example, example.answer)
        assert not is_held_out(*_numbers(example.observation))
        assert re.fullmatch(PATTERN + r"[0-9()+\-*/]{1,60}", _line(example)[0])


def test_every_result_is_the_one_that_decoding_is_told(examples):
    for example in examples:
        text, _ = _line(example)
        for place in (place for place, character in enumerate(text) if character == "="):
            told = SPLIT.inline(example.observation, text[: place + 1])
            assert re.match(r"[0-9]+", text[place + 1 :])[0] == told


def test_steps_use_what_is_there(examples):
    for example in examples:
        tiles, _ = _numbers(example.observation)
        numbers: list[int] = []
        for steps, left, _ in _parts(example):
            there = [*(tiles if left else numbers)]
            assert len(steps) == (3 if left else 2)
            for step in steps:
                one, other, found = map(int, re.fullmatch(r"(\d+)[-+*/](\d+)=(\d+)", step).groups())
                there.remove(one)
                there.remove(other)
                there.append(found)
            assert sorted(there) == sorted(left or there)
            numbers = left or numbers


def test_what_fails_is_read_and_what_is_learned_is_right(examples):
    """The last first steps and the last try lead to the target; what is learned holds nothing but those."""
    kinds = set()
    for example in examples:
        (_, target), (_, start) = _numbers(example.observation), _line(example)
        tried = [int(steps[-1].rpartition("=")[2]) for steps, left, _ in _parts(example) if not left]
        learned = [bool(left) for _, left, at in _parts(example) if at >= start]
        assert tried[-1] == target
        assert target not in tried[:-1]
        assert learned in ([True, False], [False])
        assert example.answer.startswith("|") == bool(example.given)
        begun = sum(bool(left) for _, left, _ in _parts(example))
        kinds.add((begun, learned[0]))
    assert {(1, True), (1, False), (2, True), (2, False), (3, True)} <= kinds


def test_after_a_dead_end_the_target_cannot_be_made_of_what_is_left(examples):
    for example in examples:
        (_, target), begun = _numbers(example.observation), [left for _, left, _ in _parts(example) if left]
        can = [target in solver.whole_values(tuple(sorted(left))) for left in begun]
        assert can[-1]
        assert not any(can[:-1])


def test_what_is_scored_begins_anew():
    some = [LESSONS.example("puzzle-thinker", DerivedRandom(0, "t", i), True)[0] for i in range(50)]
    assert {example.given for example in some} == {""}


def test_what_is_given_stands_before_what_is_learned(examples):
    example = next(example for example in examples if example.given)
    assert pair(example) == ("think", f"{example.observation}\n{example.given}", f"{example.answer}\n")


def test_an_answer_is_judged_by_its_expression_alone(examples):
    example = examples[0]
    assert LESSONS.judge(example, f"1+1=3:{expression_of(example.answer)}")
    assert LESSONS.judge(example, expression_of(example.answer))
    assert not LESSONS.judge(example, example.answer.partition(":")[0])
    assert not LESSONS.judge(example, f"{example.answer}+1")


def test_traces_fit_into_128_tokens_of_two_characters(examples):
    assert max(len(_line(example)[0]) for example in examples) <= 220
