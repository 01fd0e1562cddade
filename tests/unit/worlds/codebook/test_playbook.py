"""codebook-v0's coordination: a value that opened a vault goes to the others that are asked for its key."""

from __future__ import annotations

import pytest

from worlds.codebook.playbook import CodebookPlaybook
from worlds.protocol import Briefing, Report, Situation

BOOK = CodebookPlaybook()
OPENED = "a0: opened moru kavi mine bora ; ask dulo reta"


def _situation(*reports):
    told = tuple(Report(tick, *text.split(": ", 1)) for tick, text in enumerate(reports))
    return Situation("open all 4 vaults", ("a0", "a1", "a2"), told)


def test_a_value_goes_to_all_others_that_are_asked_for_its_key():
    situation = _situation("a1: ask moru kavi", "a2: ask dulo reta", OPENED)
    assert BOOK.rules(situation) == {"a1": "note moru kavi mine bora"}
    situation = _situation(OPENED, "a1: ask moru kavi", "a2: opened dulo reta zuba mo ; ask moru kavi")
    told = BOOK.rules(situation)
    assert told == {
        "a0": "note dulo reta zuba mo",
        "a1": "note moru kavi mine bora",
        "a2": "note moru kavi mine bora",
    }
    (briefing,) = BOOK.briefings(situation)
    assert BOOK.parse(briefing.prompt, briefing) == told


def test_nobody_is_told_what_it_is_not_asked_for_or_opened_itself():
    assert BOOK.rules(_situation(OPENED)) == {}
    assert BOOK.rules(_situation("a1: ask moru kavi", OPENED, "a1: ask dulo reta")) == {}
    assert BOOK.rules(_situation("a1: ask moru kavi", OPENED, "a1: opened moru kavi mine bora")) == {}
    assert BOOK.rules(_situation(OPENED, "a1: ask first moru kavi")) == {}
    assert BOOK.rules(_situation("a0: opened moru kavi mine bora ; ask moru kavi")) == {}
    assert BOOK.briefings(_situation(OPENED)) == []


@pytest.mark.parametrize("text", ["", "opened", "opened moru", "ask", "opened moru kavi\nask moru", "ask x " * 99])
def test_garbage_directs_nobody(text):
    assert BOOK.rules(_situation(f"a0: {text}", "a1: ask moru kavi")) == {}
    assert BOOK.parse(text, Briefing(("a1",), "")) == {}
