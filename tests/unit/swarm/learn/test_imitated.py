"""Which answers are kept, what is asked for, and that a state brings all of it back."""

from __future__ import annotations

import json
import random

from swarm.learn.imitated import Imitated, Judged, choose
from swarm.learn.samples import Sample


def judged(answer: str, *told: tuple[str, str], right: bool = False, observation: str = "asked") -> Judged:
    return Judged(f"{observation}\n", observation, answer, right, told)


def test_what_was_made_before_it_was_asked_for_is_right_once_it_is() -> None:
    found = Imitated(3)
    found.take(judged("1", ("later", "1")), (), lambda _: False)
    assert not found.knows("later")
    found.pose("later")
    assert found.right == {"later\n": ["1"]}
    found.take(judged("2", ("later", "2")), ("later",), lambda _: False)
    assert found.right == {"later\n": ["1", "2"]}


def test_nothing_is_kept_of_what_is_barred_whether_it_was_right_or_relabelled() -> None:
    found = Imitated(3)
    hit = judged("1", ("asked", "1"), right=True)
    assert found.take(hit, (), lambda observation: observation == "asked") == 1
    assert not found.right
    assert not found.relabelled


def test_a_right_answer_without_relabelling_is_imitated_as_it_was_given() -> None:
    found = Imitated(3)
    found.take(judged("go", right=True), ("asked",), lambda _: False)
    assert found.own() == [Sample("asked\n", "go\n")]


def test_a_state_brings_back_answers_and_other_goals() -> None:
    found, other = Imitated(2), Imitated(2)
    for answer in ("1+1", "1+1", "2"):
        found.take(judged(answer, ("two", answer), ("asked", "x")), ("asked",), lambda _: False)
    other.restore(json.loads(json.dumps(found.state())))
    assert len(found.hindsight()) == 2
    assert (other.own(), other.hindsight()) == (found.own(), found.hindsight())


def test_kinds_that_are_empty_leave_their_share_to_the_others() -> None:
    kinds = {"own": [], "hindsight": [Sample("p", "a")]}
    assert choose(kinds, {"own": 1.0, "hindsight": 0.0}, random.Random(0)) == Sample("p", "a")
