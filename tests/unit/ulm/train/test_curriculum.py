"""Levels follow what is mastered, controls do not, and a resumed training reads the same documents."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from ulm.train.curriculum import EVERY, PATIENCE, Curriculum

LEVELS = [lambda number, level=level: np.array([level, number]) for level in range(4)]
MODEL: Any = None


def curriculum(order: Any = "adaptive", mastered: float = 0.9, steps: int = 8 * EVERY, **changes: Any) -> Curriculum:
    return Curriculum(LEVELS, order, steps, 1, lambda model, level: mastered, **changes)


def levels_of(here: Curriculum, numbers: range) -> Counter[int]:
    return Counter(int(here(number)[0]) for number in numbers)


def went(here: Curriculum, looks: int) -> list[int]:
    """The level after each look."""
    found = []
    for look in range(looks):
        here.after(EVERY * (look + 1) - 1, 100 * (look + 1), MODEL)
        found.append(here.level)
    return found


def test_it_goes_up_where_recall_is_high_and_down_where_it_is_low() -> None:
    assert went(curriculum(), 6) == [1, 2, 3, 3, 3, 3]
    assert went(curriculum(mastered=0.6), 3) == [0, 0, 0]
    here = curriculum()
    went(here, 2)
    here._probe = lambda model, level: 0.1
    assert went(here, 3) == [1, 0, 0]


def test_most_documents_are_of_the_present_level_and_some_of_all() -> None:
    here = curriculum()
    went(here, 2)  # level 1 from document 100 on, 2 from 200 on
    early, late = levels_of(here, range(100)), levels_of(here, range(200, 1200))
    assert early[0] > 70
    assert late[2] > 750
    assert set(late) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("order", "levels"),
    [("linear", [0, 1, 1, 2, 2, 3, 3, 3]), ("reversed", [3, 2, 2, 1, 1, 0, 0, 0]), ("uniform", [0] * 8)],
)
def test_controls_follow_the_step_alone(order: str, levels: list[int]) -> None:
    assert went(curriculum(order, mastered=0.0), 8) == levels


def test_a_shuffled_sequence_has_the_same_levels_in_another_order() -> None:
    sequence = [0, 0, 1, 1, 2, 2, 3, 3]
    found = went(curriculum("shuffled", sequence=sequence), 8)
    assert sorted(found) == sequence
    assert found != sequence


def test_uniform_takes_all_levels_alike() -> None:
    found = levels_of(curriculum("uniform"), range(2000))
    assert min(found.values()) > 400


def test_a_level_that_is_not_mastered_is_said_once() -> None:
    here = curriculum(mastered=0.6)
    lines = [here.after(EVERY * (look + 1) - 1, 0, MODEL) for look in range(3 * PATIENCE)]
    assert [line for line in lines if line] == [
        f"the curriculum has been at level 1 of 4 for {PATIENCE * EVERY} steps and goes on there"
    ]
    assert here.after(5, 0, MODEL) is None


def test_a_restored_curriculum_reads_the_same_documents() -> None:
    here, other = curriculum(), curriculum()
    went(here, 3)
    other.restore(here.state())
    assert [here(n).tolist() for n in range(500)] == [other(n).tolist() for n in range(500)]
    assert other.level == here.level


def test_what_an_order_needs_is_asked_for() -> None:
    for arguments, words in (
        (([], "linear", 1, 1), "needs levels"),
        ((LEVELS, "adaptive", 1, 1), "needs a probe"),
        ((LEVELS, "shuffled", 1, 1), "needs the sequence"),
    ):
        with pytest.raises(ValueError, match=words):
            Curriculum(*arguments)  # type: ignore[arg-type]
