"""Lessons of codebook-v0: documents of several episodes, whose answers follow from what was read in them."""

from __future__ import annotations

import random

from worlds.codebook.lessons import CodebookLessons
from worlds.codebook.world import NOTE

LESSONS = CodebookLessons()


def documents(count=80):
    return [LESSONS.example("codebook-agent", random.Random(number), False) for number in range(count)]


def test_every_answer_follows_from_what_the_document_told_before_and_the_last_value_counts():
    for calls in documents():
        told = {}
        for call in calls:
            told |= dict(NOTE.findall(f"{call.observation}\n{call.directive}"))
            if call.kind in ("recurring", "changed", "one-off"):
                key = call.observation.removeprefix("ask ")
                assert call.answer == f"open {key} {told[key]}"
            elif call.kind == "class":
                key, head = call.observation.removeprefix("ask first "), call.observation.split()[2]
                shared = {value.split()[0] for known, value in told.items() if known.split()[0] == head}
                assert shared == {call.answer.removeprefix(f"open {key} ")}
            elif call.kind == "read":
                assert call.observation.removeprefix("ask ") not in told


def test_memory_of_earlier_episodes_is_taught():
    """Many answers stand in the news of an episode before, and in none of the same."""
    earlier = total = 0
    for calls in documents():
        told, now = set(), set()
        for call in calls:
            if call.observation.startswith("news 1 of"):
                told, now = told | now, set()
            now |= set(NOTE.findall(f"{call.observation}\n{call.directive}"))
            if call.kind in ("recurring", "changed"):
                note = tuple(" ".join(call.answer.split()[part : part + 2]) for part in (1, 3))
                total += 1
                earlier += note in told - now
    assert total > 200
    assert earlier / total > 0.5


def test_documents_show_all_kinds_and_no_two_the_same_codebook():
    shown = documents()
    kinds = {call.kind for calls in shown for call in calls}
    assert kinds == set(LESSONS.tasks["codebook-agent"])
    firsts = [NOTE.findall(calls[0].observation) for calls in shown]
    assert len({note for notes in firsts for note in notes}) > 0.99 * sum(map(len, firsts))
