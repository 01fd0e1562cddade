"""Lessons in thinking: traces of a search for one that sees all six tiles, tried and written down as text.

Three steps join tiles until three numbers are left, then a completion of those is tried; the expression follows where
it makes the target. Where it does not, another completion is tried, or the search begins anew with other steps. What
failed is read and not learned: an agent that imitated it would fail on purpose.
"""

import random
from itertools import permutations

from worlds.numbers import solver
from worlds.numbers.arithmetic import Node, parse
from worlds.numbers.thoughts import END, LEFT, RETRY, value
from worlds.protocol import Example

DEAD_ENDS = (0, 0, 0, 1, 1, 2)  # first steps that lead nowhere, and each as often followed by so many vain tries
FAILURES = (0, 0, 0, 1, 2)  # vain tries where the target can be made
LIKELY = 12  # a vain try is one of so many completions that come nearest to the target
LONGEST = 220  # characters of thoughts and expression, some 120 tokens

Number = tuple[int, str]
"""A value and the expression that made it."""

Try = tuple[int, str, str]
"""What two steps come to, the steps as text, and the expression."""


def trace(example: Example, rng: random.Random, failing: bool) -> Example | None:
    """Return a puzzle of all tiles with a search as its answer.

    Args:
        example: its answer is an expression that makes the target from six tiles.
        rng: draws the order of the steps, and what fails.
        failing: whether something may have failed before the answer begins.

    Returns:
        The example of kind `think`; None where a step comes to no whole number from 0 on, or it would be too long.
    """
    puzzle, _, asked = example.observation.removeprefix("tiles ").partition(" target ")
    tiles, target = [int(tile) for tile in puzzle.split()], int(asked)
    failed: list[str] = []
    for _ in range(rng.choice(DEAD_ENDS) if failing else 0):
        begun, hits, misses = _begin(solver.random_expression(tiles, rng), target, rng)
        if begun and not hits:
            failed += [begun, *_some(misses, rng.choice(FAILURES), rng)]
    begun, hits, misses = _begin(example.answer, target, rng)
    if not hits:
        return None
    _, steps, expression = rng.choice(hits)
    found = [begun, steps]
    if failing and (vain := _some(misses, rng.choice(FAILURES), rng)):
        failed, found = [*failed, begun, *vain], [steps]
    given = RETRY.join(failed)
    answer = f"{RETRY if given else ''}{RETRY.join(found)}{END}{expression}"
    if len(given) + len(answer) > LONGEST:
        return None
    return Example("think", "agent", example.observation, "", answer, given)


def _some(tries: list[Try], count: int, rng: random.Random) -> list[str]:
    """Return the texts of some tries."""
    return [text for _, text, _ in rng.sample(tries, min(len(tries), count))]


def _begin(expression: str, target: int, rng: random.Random) -> tuple[str, list[Try], list[Try]]:
    """Carry out three steps of an expression; return them as text, and what may be tried then: hits, and misses.

    The text is empty where a step comes to no whole number from 0 on. Misses are one try for each of the `LIKELY`
    values that come nearest.
    """
    steps: list[str] = []
    left = _reduce(parse(expression).root, 3, steps, rng)
    if left is None:
        return "", [], []
    tries = sorted(_completions(left), key=lambda one: (abs(one[0] - target), one[1]))
    hits = [one for one in tries if one[0] == target]
    misses = list({one[0]: one for one in tries if one[0] != target}.values())[:LIKELY]
    return f"{' '.join(steps)}{LEFT}{' '.join(str(number) for number, _ in left)}", hits, misses


def _reduce(root: Node, num_steps: int, steps: list[str], rng: random.Random) -> list[Number] | None:
    """Carry out so many steps of an expression, in any order that is possible; return the numbers that are left.

    None where a step comes to no whole number from 0 on.
    """
    done: dict[int, Number] = {}  # by the identity of the part of the tree

    def number(node: Node) -> Number | None:
        return (node, str(node)) if isinstance(node, int) else done.get(id(node))

    inner = _inner(root)
    for _ in range(num_steps):
        ready = [node for node in inner if id(node) not in done and number(node[1]) and number(node[2])]
        operator, one, other = node = rng.choice(ready)
        (a, left), (b, right) = number(one) or (0, ""), number(other) or (0, "")
        result = value(operator, a, b)
        if result is None:
            return None
        steps.append(f"{a}{operator}{b}={result}")
        done[id(node)] = result, solver.combine(operator, left, right)
    return [found for node in _tops(root, done) if (found := number(node))]


def _inner(node: Node) -> list[tuple[str, Node, Node]]:
    """Return the operations of a tree."""
    return [] if isinstance(node, int) else [*_inner(node[1]), *_inner(node[2]), node]


def _tops(node: Node, done: dict[int, Number]) -> list[Node]:
    """Return the parts of a tree that are numbers by now."""
    if isinstance(node, int) or id(node) in done:
        return [node]
    return [*_tops(node[1], done), *_tops(node[2], done)]


def _completions(left: list[Number]) -> list[Try]:
    """Return every way to make one number of three by two steps, once for each text."""
    found: dict[str, Try] = {}
    for one, other, third in permutations(left):
        for first in _joined(one, other):
            for pair in ((first[0], third), (third, first[0])):
                for (last, text), step in _joined(*pair):
                    found.setdefault(f"{first[1]} {step}", (last, f"{first[1]} {step}", text))
    return list(found.values())


def _joined(one: Number, other: Number) -> list[tuple[Number, str]]:
    """Return what two numbers, in this order, can become by one step, and the step."""
    (a, left), (b, right) = one, other
    results = ((operator, value(operator, a, b)) for operator in "+-*/" if operator in "-/" or a >= b)
    return [
        ((found, solver.combine(operator, left, right)), f"{a}{operator}{b}={found}")
        for operator, found in results
        if found is not None
    ]
