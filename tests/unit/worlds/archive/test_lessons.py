"""Lessons of archive-v0: what is right is judged so, names and sentences of evaluation are in none."""

from __future__ import annotations

import random

from worlds.archive.grammar import UNKNOWN
from worlds.archive.lessons import ArchiveLessons
from worlds.archive.schema import RELATIONS, TRADES
from worlds.archive.town import FIRMS, is_kept
from worlds.protocol import Example

LESSONS = ArchiveLessons()


def examples(kind: str, count: int = 100, held_out: bool = False) -> list[Example]:
    return [LESSONS.example("archive-agent", random.Random(i), held_out, kind)[0] for i in range(count)]


def test_right_answers_are_right_in_any_order_and_others_are_not() -> None:
    for kind in ("note", "ask", "open", "done"):
        for example in examples(kind, 30):
            assert LESSONS.judge(example, example.answer)
            assert not LESSONS.judge(example, "note [0] trade nothing")
    for example in examples("note", 30):
        claims = example.answer.removeprefix("note ").split(" ; ")
        assert LESSONS.judge(example, f"note {' ; '.join(reversed(claims))}")
        if len(claims) > 1:
            assert 0 < LESSONS.score(example, f"note {' ; '.join(claims[1:])}") < 1


def test_names_of_evaluation_are_in_held_out_examples_alone() -> None:
    endings = {"brothers", "works", "mills", "trading"}
    for held_out in (False, True):
        for example in examples("note", 60, held_out):
            names = [part.partition("]")[0].split()[1:] for part in example.observation.split("[")[1:]]
            words = {word for name in names for word in name if not word.endswith(".")} - endings
            assert all(is_kept(word) == held_out for word in words)


def test_no_lesson_has_a_sentence_that_is_held_out() -> None:
    kept = {part.strip() for r in RELATIONS.values() for w in r.held_out for part in w.split("{s}")}
    kept = {part for text in kept for part in (piece.strip() for piece in text.split("{o}")) if len(part.split()) > 3}
    texts = [example.observation for example in examples("note", 300)]
    assert kept
    assert not [part for part in kept for text in texts if part in text]


def test_a_look_up_of_a_lesson_is_answered_and_only_one() -> None:
    for example in examples("ask", 50):
        before, mark, after = example.answer.partition(" =")
        assert LESSONS.inline(f"{example.observation}\nwait", before + mark) == after
        assert LESSONS.inline(example.observation, before) is None
        assert LESSONS.inline("doc 3 year 8 : some", before + mark) is None


def test_a_look_up_is_answered_with_whatever_a_registry_may_say() -> None:
    answers = {example.answer.rpartition("= ")[2] for example in examples("ask", 200)}
    assert answers & set(TRADES)
    assert {answer.split()[-1] for answer in answers} >= {UNKNOWN, *FIRMS}
