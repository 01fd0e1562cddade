"""Lessons in thinking: traces of a search for one that sees all six tiles, tried and written down as text.

Three steps join tiles until three numbers are left, then completions that come near the target are tried until one
makes it; the expression follows. An agent that fills in results by itself has to be right about them, one that is
answered (`World.inline`) only has to choose.
"""

import random
from itertools import permutations

from worlds.numbers import solver
from worlds.numbers.arithmetic import Node, parse
from worlds.numbers.thoughts import END, LEFT, RETRY, value
from worlds.protocol import Example

MOST_FAILURES = 5  # completions that are tried in vain before the right one: about 100 tokens with it
LIKELY = 12  # a try is one of so many completions that come nearest to the target

Number = tuple[int, str]
"""A value and the expression that made it."""

Try = tuple[int, str, str]
"""What two steps come to, the steps as text, and the expression."""


def trace(example: Example, rng: random.Random) -> Example | None:
    """Return a puzzle of all tiles with a search as its answer.

    Args:
        example: its answer is an expression that makes the target from six tiles.
        rng: draws the order of the steps and the tries that fail.

    Returns:
        The example of kind `think`; None where a step comes to no whole number from 0 on.
    """
    steps: list[str] = []
    left = _reduce(parse(example.answer).root, 3, steps, rng)
    if left is None:
        return None
    target = int(example.observation.rpartition(" ")[2])
    completions = sorted(_completions(left), key=lambda one: (abs(one[0] - target), one[1]))
    right = [one for one in completions if one[0] == target]
    wrong = list({one[0]: one for one in completions if one[0] != target}.values())[:LIKELY]
    if not right:
        return None
    tries = [*rng.sample(wrong, min(len(wrong), rng.randint(0, MOST_FAILURES))), rng.choice(right)]
    begun = f"{' '.join(steps)}{LEFT}{' '.join(str(number) for number, _ in left)}"
    thoughts = RETRY.join([begun, *(text for _, text, _ in tries)])
    return Example("think", "agent", example.observation, "", f"{thoughts}{END}{tries[-1][2]}")


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
