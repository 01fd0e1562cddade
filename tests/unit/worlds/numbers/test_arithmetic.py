"""The expression language of the number worlds: exact, bounded, total."""

from __future__ import annotations

from fractions import Fraction

import pytest

from worlds.numbers.arithmetic import MAX_DEPTH, MAX_LENGTH, MAX_LITERAL_DIGITS, ExpressionError, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("007", 7),
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("10-3-2", 5),
        ("10-(3-2)", 9),
        ("24/4/3", 2),
        ("24/(4/3)", 18),
        ("6/(1-3/4)", 24),
        ("8/(3-8/3)", 24),
        ("2*3+4*5", 26),
        ("3-10", -7),
        (" ( 1 + 2 ) * 3 ", 9),
        ("((((5))))", 5),
        ("9999999*9999999*9999999", 9999999**3),
    ],
)
def test_value_follows_the_rules_of_arithmetic(text, value):
    assert parse(text).value() == value


def test_division_is_exact():
    assert parse("1/3+1/3+1/3").value() == 1
    assert parse("7/2").value() == Fraction(7, 2)


def test_literals_are_listed_in_order_of_appearance():
    assert parse("3*(11-3)+2").literals == (3, 11, 3, 2)


def test_left_associative_chains_build_left_deep_trees():
    assert parse("1-2+3").root == ("+", ("-", 1, 2), 3)
    assert parse("1+2*3").root == ("+", 1, ("*", 2, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("1+", "ends too early"),
        ("(1+2", "not closed"),
        ("1+2)", r"cannot read '\)'"),
        ("1 2", "cannot read '2'"),
        ("-1", "expected a number at '-'"),
        ("1+-2", "expected a number"),
        ("2**3", "expected a number"),
        ("5//2", "expected a number"),
        ("()", "expected a number"),
        ("1.5", r"cannot read '\.'"),
        ("x", "expected a number at 'x'"),
        ("1=1", "cannot read '='"),
        ("1\n+2", "cannot read"),
        ("٣+4", "expected a number"),
        ("²", "expected a number"),
        ("__import__('os')", "expected a number"),
        ("1" * (MAX_LITERAL_DIGITS + 1), f"more than {MAX_LITERAL_DIGITS} digits"),
        ("(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), f"deeper than {MAX_DEPTH}"),
        ("1" + "+1" * MAX_LENGTH, f"longer than {MAX_LENGTH}"),
    ],
)
def test_what_is_no_expression_is_refused_with_a_reason(text, message):
    with pytest.raises(ExpressionError, match=message):
        parse(text)


def test_the_limits_themselves_are_allowed():
    assert parse("9" * MAX_LITERAL_DIGITS).value() == 10**MAX_LITERAL_DIGITS - 1
    assert parse("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH).value() == 1
    longest = ("1" + "+1" * MAX_LENGTH)[: MAX_LENGTH - 1]
    assert parse(longest).value() == len(longest) // 2 + 1
    assert parse(longest.replace("+", "/")).value() == 1


@pytest.mark.parametrize("text", ["1/0", "3/(2-2)", "0/0", "5/(1/2-1/2)"])
def test_division_by_zero_parses_but_has_no_value(text):
    expression = parse(text)
    with pytest.raises(ExpressionError, match="division by zero"):
        expression.value()


@pytest.mark.parametrize(("value", "text"), [(Fraction(7), "7"), (Fraction(7, 2), "7/2"), (Fraction(-3, 9), "-1/3")])
def test_values_are_shown_as_whole_numbers_or_fractions(value, text):
    assert str(value) == text
