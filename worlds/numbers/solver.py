"""Exhaustive search over small tile sets: which values can be made, and by which expressions.

Owns the ground truth that generates solvable puzzles, checks puzzle files and writes training traces. Agents and
coordinators never call it while they play.
"""

import random
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import product

from worlds.numbers.arithmetic import OPERATORS, ExpressionError, Node, evaluate, parse

MAX_SEARCH_TILES = 5

_Term = tuple[Fraction, str, str]  # value, text, operator at the top ("" for a tile)


# Operators that need parentheses when they stand at the top of the left or the right side of another operator.
_LOOSE_LEFT = {"+": "", "-": "", "*": "+-", "/": "+-"}
_LOOSE_RIGHT = {"+": "", "-": "+-", "*": "+-", "/": "+-*/"}


def _wrap(text: str, top: str, parenthesised: str) -> str:
    return f"({text})" if top and top in parenthesised else text


def _join(operator: str, a: _Term, b: _Term) -> _Term | None:
    """Return a op b with the fewest parentheses that keep its value, or None for a division by zero."""
    (x, left, left_top), (y, right, right_top) = a, b
    if operator == "/" and y == 0:
        return None
    return OPERATORS[operator](x, y), _infix(operator, (left, left_top), (right, right_top)), operator


def _term(text: str) -> _Term:
    expression = parse(text)
    return expression.value(), text, expression.root[0] if isinstance(expression.root, tuple) else ""


def _splits(tiles: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return every way to part the tiles in two non-empty sets, the first tile always on the left."""
    n = len(tiles)
    seen: dict[tuple[tuple[int, ...], tuple[int, ...]], None] = {}
    for mask in range(1, 2**n - 1, 2):
        left = tuple(tiles[i] for i in range(n) if mask >> i & 1)
        right = tuple(tiles[i] for i in range(n) if not mask >> i & 1)
        seen[left, right] = None
    return list(seen)


def canonical(text: str) -> str:
    """Return an expression of the same value with the larger operand of + and * first and the fewest parentheses.

    Raises:
        ExpressionError: the text is none.
    """
    return _ordered(parse(text).root)[1]


def _ordered(node: Node) -> _Term:
    if isinstance(node, int):
        return Fraction(node), str(node), ""
    operator, (a, b) = node[0], map(_ordered, node[1:])
    if operator in "+*" and (a[0], a[1]) < (b[0], b[1]):
        a, b = b, a
    term = _join(operator, a, b)
    if term is None:
        raise ExpressionError("division by zero")
    return term


@lru_cache(maxsize=8192)
def reachable(tiles: tuple[int, ...]) -> frozenset[Fraction]:
    """Return every value that an expression using each tile exactly once can have.

    Args:
        tiles: sorted whole numbers, at most 5 (the search grows too fast beyond).

    Raises:
        ValueError: there are no tiles or more than 5.
    """
    if not 1 <= len(tiles) <= MAX_SEARCH_TILES:
        raise ValueError(f"exhaustive search takes 1 to {MAX_SEARCH_TILES} tiles, got {len(tiles)}")
    if len(tiles) == 1:
        return frozenset({Fraction(tiles[0])})
    values: set[Fraction] = set()
    for left, right in _splits(tiles):
        for x, y in product(reachable(left), reachable(right)):
            values.update((x + y, x - y, y - x, x * y))
            if y:
                values.add(x / y)
            if x:
                values.add(y / x)
    return frozenset(values)


@lru_cache(maxsize=8192)
def whole_values(tiles: tuple[int, ...]) -> tuple[int, ...]:
    """Return the non-negative whole numbers among `reachable`, ascending."""
    return tuple(sorted(int(v) for v in reachable(tiles) if v.denominator == 1 and v >= 0))


def _terms(tiles: tuple[int, ...]) -> tuple[_Term, ...]:
    # Longer lists are big and each is needed once; only the parts they are built from are worth keeping.
    return _kept_terms(tiles) if len(tiles) <= 3 else _build_terms(tiles)


def _build_terms(tiles: tuple[int, ...]) -> tuple[_Term, ...]:
    if len(tiles) == 1:
        return ((Fraction(tiles[0]), str(tiles[0]), ""),)
    found: dict[str, _Term] = {}
    for left, right in _splits(tiles):
        for a, b in product(_terms(left), _terms(right)):
            big, small = (a, b) if (a[0], a[1]) >= (b[0], b[1]) else (b, a)
            pairs = [("+", big, small), ("*", big, small)]  # commutative: the larger operand first
            pairs += [(operator, x, y) for operator in "-/" for x, y in ((a, b), (b, a))]
            for operator, x, y in pairs:
                if term := _join(operator, x, y):
                    found.setdefault(term[1], term)
    return tuple(found.values())


_kept_terms = lru_cache(maxsize=4096)(_build_terms)


@lru_cache(maxsize=8192)
def expressions(tiles: tuple[int, ...], most: int = 8) -> dict[int, tuple[str, ...]]:
    """Return whole value -> up to `most` distinct expressions that make it from all tiles, shortest first.

    Args:
        tiles: sorted whole numbers, at most 4 (more have too many expressions to list).
        most: expressions kept per value.

    Raises:
        ValueError: more than 4 tiles.
    """
    if len(tiles) > 4:
        raise ValueError(f"listing expressions takes at most 4 tiles, got {len(tiles)}")
    by_value: dict[int, list[str]] = {}
    for value, text, _ in _terms(tiles):
        if value.denominator == 1 and value >= 0:
            by_value.setdefault(int(value), []).append(text)
    return {v: tuple(sorted(texts, key=lambda t: (len(t), t))[:most]) for v, texts in by_value.items()}


def random_expression(tiles: Sequence[int], rng: random.Random) -> str:
    """Return a random expression that uses every tile once and divides by zero nowhere."""
    while True:
        nodes: list[Node] = list(tiles)
        rng.shuffle(nodes)
        while len(nodes) > 1:
            a, b = (nodes.pop(rng.randrange(len(nodes))) for _ in range(2))
            nodes.append((rng.choice("+-*/"), a, b))
        try:
            evaluate(nodes[0])
        except ExpressionError:  # a division by zero
            continue
        return _written(nodes[0])[0]


def _written(node: Node) -> tuple[str, str]:
    """Return a tree as text with the fewest parentheses that keep its value, and the operator at its top."""
    if isinstance(node, int):
        return str(node), ""
    operator, left, right = node
    return _infix(operator, _written(left), _written(right)), operator


def _infix(operator: str, left: tuple[str, str], right: tuple[str, str]) -> str:
    """Return `left operator right` with the fewest parentheses; each side is a text and the operator at its top."""
    return f"{_wrap(*left, _LOOSE_LEFT[operator])}{operator}{_wrap(*right, _LOOSE_RIGHT[operator])}"


def sub_targets(value: int, target: int) -> list[tuple[str, int]]:
    """Return the ways a posted value can be completed: (form, sub-target), e.g. ``("100+[{}]", 45)``.

    Only whole, positive sub-targets are listed; each completed form equals the target.
    """
    ways = [
        (f"{value}+[{{}}]", target - value),
        (f"{value}-[{{}}]", value - target),
        (f"[{{}}]-{value}", target + value),
    ]
    if value > 0:
        if target % value == 0:
            ways.append((f"{value}*[{{}}]", target // value))
        if target and value % target == 0:
            ways.append((f"{value}/[{{}}]", value // target))
        ways.append((f"[{{}}]/{value}", target * value))
    return [(form, s) for form, s in ways if s > 0]


def complete(form: str, expression: str) -> str:
    """Return a sub-target form with its brackets filled by an expression, e.g. ``100-(2+3)`` for ``100-[{}]``.

    Args:
        form: one of the forms that `sub_targets` returns.
        expression: makes the sub-target.
    """
    _, _, top = _term(expression)
    before, after = form.split("[{}]")
    needs = _LOOSE_RIGHT[before[-1]] if before else _LOOSE_LEFT[after[0]]
    return f"{before}{_wrap(expression, top, needs)}{after}"


def combine(operator: str, left: str, right: str) -> str:
    """Return `left operator right` as text with the fewest parentheses that keep the value.

    Raises:
        ValueError: the right side of a division is zero.
    """
    term = _join(operator, _term(left), _term(right))
    if term is None:
        raise ValueError("division by zero")
    return term[1]
