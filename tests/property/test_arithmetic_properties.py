"""Arithmetic and solver against an independent judge: Python's own grammar with exact fractions."""

from __future__ import annotations

import ast
import operator
import random
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from worlds.numbers import solver
from worlds.numbers.arithmetic import ExpressionError, parse
from worlds.numbers.puzzles import check_tiles

_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_TARGETS = st.integers(min_value=0, max_value=10_000)
_POSITIVE = st.integers(min_value=1, max_value=300)
_unhurried = settings(deadline=None)  # a busy machine must not fail a test


def _python_value(text):
    """Evaluate with Python's parser, in fractions, without `eval`."""

    def value(node):
        if isinstance(node, ast.Constant):
            return Fraction(node.value)
        return _OPERATORS[type(node.op)](value(node.left), value(node.right))

    return value(ast.parse(text.strip(), mode="eval").body)


def _tiles(most):
    return st.lists(st.integers(min_value=0, max_value=13), min_size=1, max_size=most).map(sorted).map(tuple)


_numbers = st.integers(min_value=0, max_value=999).map(str)
_spaces = st.sampled_from(["", "", " "])
_texts = st.recursive(
    _numbers,
    lambda inner: st.one_of(
        st.tuples(inner, _spaces, st.sampled_from("+-*/"), _spaces, inner).map("".join),
        inner.map(lambda text: f"({text})"),
    ),
    max_leaves=12,
)


@_unhurried
@given(_texts)
def test_parser_agrees_with_python_on_every_expression(text):
    try:
        expected = _python_value(text)
    except ZeroDivisionError:
        with pytest.raises(ExpressionError, match="division by zero"):
            parse(text).value()
    else:
        assert parse(text).value() == expected


@_unhurried
@given(st.text(alphabet="0123456789+-*/() .e_", max_size=30))
def test_what_the_parser_accepts_python_accepts_with_the_same_value(text):
    try:
        value = parse(text).value()
    except ExpressionError:
        return
    # Python refuses leading zeros, which the parser reads as plain digits.
    assume(not any(len(w) > 1 and w[0] == "0" for w in "".join(c if c.isdigit() else " " for c in text).split()))
    assert _python_value(text) == value


@_unhurried
@given(st.text(max_size=250))
def test_any_text_is_an_expression_or_an_expression_error(text):
    try:
        expression = parse(text)
    except ExpressionError as error:
        reason = str(error)
    else:
        reason = f"its numbers are {expression.literals}"
        assert expression.literals
    assert len(reason.splitlines()) == 1


@_unhurried
@given(st.fractions())
def test_a_shown_value_reads_back_as_the_value(value):
    assert Fraction(str(value)) == value


@settings(max_examples=40, deadline=None)
@given(_tiles(3))
def test_every_listed_expression_has_its_value_and_uses_every_tile_once(tiles):
    listed = solver.expressions(tiles)
    assert set(listed) == set(solver.whole_values(tiles))
    for value, texts in listed.items():
        assert len(set(texts)) == len(texts) > 0
        for text in texts:
            assert parse(text).value() == _python_value(text) == value
            check_tiles(parse(text), tiles)


@_unhurried
@given(_tiles(6), st.integers(min_value=0))
def test_a_random_expression_uses_every_tile_once_and_has_a_value(tiles, seed):
    text = solver.random_expression(tiles, random.Random(seed))
    check_tiles(parse(text), tiles)
    assert parse(text).value() == _python_value(text)
    assert text == solver.random_expression(tiles, random.Random(seed))


@_unhurried
@given(_tiles(4), st.integers(min_value=0))
def test_what_a_random_expression_makes_the_search_can_reach(tiles, seed):
    value = parse(solver.random_expression(tiles, random.Random(seed))).value()
    assert value in solver.reachable(tiles)


@_unhurried
@given(_TARGETS, _TARGETS)
def test_each_sub_target_form_equals_the_target(value, target):
    for form, s in solver.sub_targets(value, target):
        assert s > 0
        assert _python_value(form.format(s).replace("[", "(").replace("]", ")")) == target


@_unhurried
@given(st.sampled_from(["v+[s]", "v-[s]", "[s]-v", "v*[s]", "v/[s]", "[s]/v"]), _POSITIVE, _POSITIVE, _POSITIVE)
def test_no_whole_way_to_complete_a_value_is_forgotten(form, value, s, factor):
    # Random pairs hardly ever divide, so one of them is made a multiple of the other.
    value, s = {"v/[s]": (s * factor, s), "[s]/v": (value, value * factor)}.get(form, (value, s))
    text = form.replace("v", str(value)).replace("s", "{}")
    target = _python_value(text.replace("[{}]", str(s)))
    assume(target >= 0)
    assert (text, s) in solver.sub_targets(value, int(target))


@_unhurried
@given(_TARGETS, _TARGETS, _tiles(4), st.integers(min_value=0), st.data())
def test_a_completed_form_has_the_value_of_the_form_around_any_expression(value, target, tiles, seed, data):
    ways = solver.sub_targets(value, target)
    assume(ways)
    form, _ = data.draw(st.sampled_from(ways))
    text = solver.random_expression(tiles, random.Random(seed))
    bracketed = form.replace("[{}]", f"({text})")
    completed = solver.complete(form, text)
    try:
        expected = _python_value(bracketed)
    except ZeroDivisionError:
        with pytest.raises(ExpressionError, match="division by zero"):
            parse(completed).value()
    else:
        assert parse(completed).value() == expected
        assert len(completed) <= len(bracketed)


@_unhurried
@given(st.sampled_from("+-*/"), _tiles(4), _tiles(4), st.integers(min_value=0), st.integers(min_value=0))
def test_combine_keeps_the_value_of_both_sides(op, left_tiles, right_tiles, left_seed, right_seed):
    left = solver.random_expression(left_tiles, random.Random(left_seed))
    right = solver.random_expression(right_tiles, random.Random(right_seed))
    try:
        expected = _python_value(f"({left}){op}({right})")
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="division by zero"):
            solver.combine(op, left, right)
    else:
        assert parse(solver.combine(op, left, right)).value() == expected
