"""Exact arithmetic on text: a bounded parser for + - * / and parentheses over whole numbers, and its evaluation.

Owns the expression language of the number worlds. It is total: any text gives an `Expression` or an
`ExpressionError` with one line of feedback; it never calls `eval` and its work is bounded by the length limit.
"""

from dataclasses import dataclass
from fractions import Fraction

MAX_LENGTH = 200
MAX_DEPTH = 24
MAX_LITERAL_DIGITS = 7

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
    if isinstance(node, int):
        return Fraction(node)
    operator, left, right = node
    a, b = evaluate(left), evaluate(right)
    if operator == "+":
        return a + b
    if operator == "-":
        return a - b
    if operator == "*":
        return a * b
    if b == 0:
        raise ExpressionError("division by zero")
    return a / b


def format_value(value: Fraction) -> str:
    """Return `7` or `7/2`."""
    return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


class _Parser:
    """Recursive descent with one token of look-ahead; depth is bounded by MAX_DEPTH."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.literals: list[int] = []

    def peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1
        return self.text[self.at] if self.at < len(self.text) else ""

    def sum(self, depth: int) -> Node:
        node = self.product(depth)
        while (operator := self.peek()) in ("+", "-"):
            self.at += 1
            node = (operator, node, self.product(depth))
        return node

    def product(self, depth: int) -> Node:
        node = self.atom(depth)
        while (operator := self.peek()) in ("*", "/"):
            self.at += 1
            node = (operator, node, self.atom(depth))
        return node

    def atom(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"parentheses nest deeper than {MAX_DEPTH}")
        char = self.peek()
        if char == "(":
            self.at += 1
            node = self.sum(depth + 1)
            if self.peek() != ")":
                raise ExpressionError("a parenthesis is not closed")
            self.at += 1
            return node
        start = self.at
        while self.at < len(self.text) and self.text[self.at] in "0123456789":
            self.at += 1
        digits = self.text[start : self.at]
        if not digits:
            raise ExpressionError(f"expected a number at {char!r}" if char else "the expression ends too early")
        if len(digits) > MAX_LITERAL_DIGITS:
            raise ExpressionError(f"a number has more than {MAX_LITERAL_DIGITS} digits")
        self.literals.append(int(digits))
        return int(digits)


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
    if not parser.peek():
        raise ExpressionError("empty")
    # Left-associative chains build left-deep trees; MAX_LENGTH keeps them under Python's recursion limit.
    root = parser.sum(0)
    if rest := parser.peek():
        raise ExpressionError(f"cannot read {rest!r} here")
    return Expression(root, tuple(parser.literals))
