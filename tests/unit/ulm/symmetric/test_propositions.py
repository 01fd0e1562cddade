"""Propositions as text: read whatever is written, refuse what makes no sense, number handles as a text has them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulm.decode.constraint import Constraint
from ulm.symmetric.propositions import (
    Numbering,
    Proposition,
    handles_of,
    in_order_of,
    is_whole,
    path_pattern,
    pattern,
    read,
    shared_and_all,
    without_names,
    written,
)
from ulm.tokenizer import Tokenizer

RELATIONS = ("seat", "works_for")
WORKS, SEAT = Proposition(0, "works_for", 2), Proposition(2, "seat", 1)
some = st.lists(
    st.builds(Proposition, st.integers(0, 9), st.sampled_from(RELATIONS), st.integers(0, 9)), max_size=8, unique=True
)


@given(some)
def test_what_is_written_is_read_and_fits_the_pattern(propositions: list[Proposition]) -> None:
    text = written(propositions)
    assert read(text, range(10), RELATIONS) == (propositions, [])
    assert re.fullmatch(pattern(RELATIONS, range(10)), text + "\n")


@given(st.text(alphabet="[]0123 ;_=?seatworkf\n"))
def test_any_text_is_read(text: str) -> None:
    found, wrong = read(text, {0, 1}, RELATIONS)
    assert {one.relation for one in found} <= set(RELATIONS)
    assert all("\n" not in line for line in wrong)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[0] works_for", "not a proposition"),
        ("[0] works_for [7]", r"no \[7\] in this text"),
        ("[0] hates [2]", "unknown relation hates"),
        ("[0 mara] works_for [2]", "not a proposition"),
    ],
)
def test_a_senseless_part_is_told_and_the_others_are_kept(text: str, wrong: str) -> None:
    found, told = read(f"{written([WORKS])} ; {text} ; {written([WORKS, SEAT])}", {0, 1, 2}, RELATIONS)
    assert found == [WORKS, SEAT]
    assert len(told) == 1
    assert re.match(wrong, told[0])


def test_a_pattern_allows_given_handles_and_relations_alone() -> None:
    allowed = re.compile(pattern(RELATIONS, {0, 2}))
    assert allowed.fullmatch("[0] works_for [2] ; [2] seat [0]\n")
    assert allowed.fullmatch("\n")
    for text in ("[1] seat [0]\n", "[0] hates [2]\n", "[0] seat [2] ;\n", "[0] seat [2]"):
        assert not allowed.fullmatch(text)
    path = re.compile(path_pattern(RELATIONS, {0}))
    assert path.fullmatch("[0] : works_for seat =")
    assert not path.fullmatch("[0] : =")


@pytest.mark.parametrize("make", [pattern, path_pattern])
def test_a_pattern_needs_handles_and_relations_that_can_be_written(make: object) -> None:
    for relations, handles, message in (
        (RELATIONS, (), "at least one handle"),
        ((), (0,), "at least one relation"),
        (("works for",), (0,), "'works for' cannot be written"),
    ):
        with pytest.raises(ValueError, match=message):
            make(relations, handles)  # type: ignore[operator]


def test_names_of_relations_are_taken_literally_by_constrained_decoding() -> None:
    tokenizer = Tokenizer.bytes()
    matcher = Constraint.from_regex(pattern(("a.b",), {0}), tokenizer).matcher()
    for token in tokenizer.encode("[0] a"):
        matcher.advance(token)
    assert [tokenizer.decode([int(i)]) for i in matcher.allowed().nonzero()[0]] == ["."]


TEXT = "[7 Mara Voss] , who lives in [3] , works for [12 Brask] . [3] is old ."


def test_numbers_are_by_order_of_the_text_and_are_taken_back() -> None:
    numbering = Numbering(TEXT)
    assert handles_of(TEXT) == [7, 3, 12]
    assert numbering.numbered(TEXT) == "[0 Mara Voss] , who lives in [1] , works for [2 Brask] . [1] is old ."
    assert numbering.original(numbering.numbered(TEXT)) == TEXT
    assert numbering.numbered("[12] seat [3] ; [40] seat [7]") == "[2] seat [1] ; [3] seat [0]"
    assert without_names(TEXT) == "[7] , who lives in [3] , works for [12] . [3] is old ."


@given(st.permutations(range(4)))
def test_a_text_reads_the_same_whatever_its_handles_are_called(names: list[int]) -> None:
    form = "[{}] lives in [{}] , as [{}] does ; [{}] is far ."
    assert Numbering(form.format(*names)).numbered(form.format(*names)) == form.format(0, 1, 2, 3)


def test_propositions_follow_the_text() -> None:
    late, early = Proposition(12, "seat", 3), Proposition(7, "lives_in", 3)
    assert in_order_of(TEXT, [late, early]) == [early, late]


def test_a_pair_is_whole_if_both_sides_speak_of_the_same() -> None:
    assert is_whole("[0] works for [2] of [1]", [WORKS, SEAT])
    assert not is_whole("[0] works for [2] of [1]", [WORKS])
    assert not is_whole("[0] works for [2]", [WORKS, SEAT])
    assert not is_whole("[0] works for itself", [Proposition(0, "works_for", 0)])
    assert not is_whole("nobody", [])


def test_f1_counts_what_two_sets_share() -> None:
    assert shared_and_all([WORKS, WORKS, SEAT], [SEAT]) == (2, 3)
    assert shared_and_all([], [SEAT]) == (0, 1)
