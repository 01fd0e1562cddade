"""Exact arithmetic on text: a bounded parser for + - * / and parentheses over whole numbers, and its evaluation.

Owns the expression language of the number worlds. It is total: any text gives an `Expression` or an
`ExpressionError` with one line of feedback; it never calls `eval` and its work is bounded by the length limit.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

MAX_LENGTH = 200
MAX_DEPTH = 24
MAX_LITERAL_DIGITS = 7

_TOKEN = re.compile(r"[0-9]+|[^ ]")
_DIGITS = re.compile(r"[0-9]+")
OPERATORS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}

Node = int | tuple[str, "Node", "Node"]
"""A literal, or (operator, left, right)."""


class ExpressionError(ValueError):
    """A text that is no expression; the message is feedback for the agent."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression.

    Attributes:
        root: the syntax tree.
        literals: the numbers in order of appearance.
    """

    root: Node
    literals: tuple[int, ...]

    def value(self) -> Fraction:
        """Return the exact value.

        Raises:
            ExpressionError: a division by zero.
        """
        return evaluate(self.root)


def evaluate(node: Node) -> Fraction:
    """Return the exact value of a syntax tree.

    Raises:
        ExpressionError: a division by zero.
    """
    return Fraction(*_ratio(node))


def _ratio(node: Node) -> tuple[int, int]:
    """Return numerator and denominator, not in lowest terms: far quicker than a `Fraction` for every operator."""
    if isinstance(node, int):
        return node, 1
    symbol, left, right = node
    (a, b), (c, d) = _ratio(left), _ratio(right)
    if symbol == "*":
        return a * c, b * d
    if symbol == "/":
        if c == 0:
            raise ExpressionError("division by zero")
        return a * d, b * c
    return (a * d + c * b if symbol == "+" else a * d - c * b), b * d


class _Parser:
    """Recursive descent with one token of look-ahead; depth is bounded by MAX_DEPTH."""

    def __init__(self, text: str) -> None:
        self.tokens = _TOKEN.findall(text)[::-1]  # the next one last
        self.literals: list[int] = []

    def take(self, wanted: str) -> str:
        """Return the next token and go on if it is one of these characters, else return nothing."""
        return self.tokens.pop() if self.tokens and self.tokens[-1] in wanted else ""

    def sum(self, depth: int) -> Node:
        node = self.product(depth)
        while symbol := self.take("+-"):
            node = (symbol, node, self.product(depth))
        return node

    def product(self, depth: int) -> Node:
        node = self.atom(depth)
        while symbol := self.take("*/"):
            node = (symbol, node, self.atom(depth))
        return node

    def atom(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"parentheses nest deeper than {MAX_DEPTH}")
        if self.take("("):
            node = self.sum(depth + 1)
            if not self.take(")"):
                raise ExpressionError("a parenthesis is not closed")
            return node
        token = self.tokens.pop() if self.tokens else ""
        if not _DIGITS.fullmatch(token):
            raise ExpressionError(f"expected a number at {token!r}" if token else "the expression ends too early")
        if len(token) > MAX_LITERAL_DIGITS:
            raise ExpressionError(f"a number has more than {MAX_LITERAL_DIGITS} digits")
        self.literals.append(int(token))
        return self.literals[-1]


def parse(text: str) -> Expression:
    """Parse an infix expression over non-negative whole numbers.

    Args:
        text: any text; spaces between tokens are ignored.

    Raises:
        ExpressionError: the text is empty, too long, too deep or no expression.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"longer than {MAX_LENGTH} characters")
    parser = _Parser(text.strip())
    if not parser.tokens:
        raise ExpressionError("empty")
    # Left-associative chains build left-deep trees; MAX_LENGTH keeps them under Python's recursion limit.
    root = parser.sum(0)
    if parser.tokens:
        raise ExpressionError(f"cannot read {parser.tokens[-1][0]!r} here")
    return Expression(root, tuple(parser.literals))
