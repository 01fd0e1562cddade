"""Answers of language models as text: total, linear, and nothing lost without a word."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.coordinator.answers import Reading, read_directives

AGENTS = ("a0", "a1", "a2", "a3")


def read(text: str, is_cut: bool = False) -> Reading:
    return read_directives(text, AGENTS, lambda agent, said: said or None, is_cut)


PIECES = [
    "a0",
    "a1",
    "a9",
    ": ",
    '"',
    "'",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\n",
    "- ",
    "**",
    "```json\n",
    "go",
    "none",
    "|",
    "\\",
]


@given(st.lists(st.sampled_from(PIECES)).map("".join), st.booleans())
def test_any_answer_is_read(text: str, is_cut: bool) -> None:
    said = read(text, is_cut)
    assert set(said.directives) <= set(AGENTS)
    assert said.fault is None or said.fault.isprintable()


@pytest.mark.parametrize("part", ["[", "{", '{"a0":', "'", '"', "a0: ", "a0,", "{'", "['a", "\\", " ", "*", "```"])
def test_no_answer_takes_long(part: str) -> None:
    began_s = time.process_time()
    read(part * (65_536 // len(part)))
    assert time.process_time() - began_s < 5


def test_half_an_entry_of_an_answer_that_was_cut_is_left_out() -> None:
    assert read("a0: go 12\na1: go 1", is_cut=True) == Reading({"a0": "go 12"})
    assert read('{"a0": "go 12", "a1": "go 1', is_cut=True) == Reading({"a0": "go 12"})
    assert read("{'a0': 'go 12', 'a1': 'go 1", is_cut=True) == Reading({"a0": "go 12"})
    assert read("a0: go 12\na1: go 1") == Reading({"a0": "go 12", "a1": "go 1"})
    assert "raise coordinator.max_new_tokens" in str(read("a0: go 1", is_cut=True).fault)


def test_the_first_directive_of_an_agent_counts() -> None:
    assert read('{"a0": "go", "a0": "wait"}').directives == {"a0": "go"}
    assert read("a1: \na1: go\na1: wait").directives == {"a1": "go"}


def test_agents_named_together_are_told_the_same() -> None:
    assert read("a2, a0 and a1: wait").directives == dict.fromkeys(("a0", "a1", "a2"), "wait")


def test_what_looks_like_marks_is_kept_where_it_belongs_to_a_directive() -> None:
    assert read("a0: [6]\na1: 24-[6]\na2: *[31]").directives == {"a0": "[6]", "a1": "24-[6]", "a2": "*[31]"}


def test_apostrophes_end_no_text() -> None:
    assert read("I don't doubt it: {'a0': 'don't go', 'a1': 'it's 7'}").directives == {"a0": "don't go", "a1": "it's 7"}
