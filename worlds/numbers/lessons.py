"""What can be learned of numbers-v0: to make a target from tiles, and what expressions come to.

Held-out puzzles are refused by the hash of the canonical puzzle, and no text ever asks for 24.
"""

import random
from collections.abc import Iterator
from fractions import Fraction
from typing import ClassVar

from worlds.mixed_lessons import MixedLessons, Mixes
from worlds.numbers import solver
from worlds.numbers.arithmetic import ExpressionError, parse
from worlds.numbers.puzzles import Puzzle, is_held_out
from worlds.protocol import Example
from worlds.seeds import DerivedRandom

FORBIDDEN_TARGET = 24
LOW, HIGH = 1, 13
CHOICES = 3  # of the shortest expressions, for four tiles: one learns slowly when many texts are right
CORPUS = 2000  # texts of each sort for a tokenizer


def shortest(tiles: tuple[int, ...], value: int, rng: random.Random, choices: int = 1) -> str:
    """Return one of the shortest expressions that make a value."""
    found = solver.expressions(tiles)[value]
    return found[rng.randrange(min(choices, len(found)))]


def four_tiles(rng: random.Random, held_out: bool) -> Example:
    """All four tiles make a small target, never 24."""
    while True:
        tiles = tuple(sorted(rng.randint(LOW, HIGH) for _ in range(4)))
        targets = [v for v in solver.whole_values(tiles) if 1 <= v <= 100 and v != FORBIDDEN_TARGET]
        if not targets:
            continue
        target = rng.choice(targets)
        if is_held_out(tiles, target) == held_out:
            return Example("four", "agent", Puzzle(tiles, target).text(), "", shortest(tiles, target, rng, CHOICES))


def evaluate(rng: random.Random, held_out: bool) -> Example:
    """An expression is read and its value written: here 24 is met as a value, though never as a target."""
    while True:
        tiles = [rng.randint(LOW, HIGH) for _ in range(rng.choice((2, 2, 3, 4)))]
        text = solver.random_expression(tiles, rng)
        value = parse(text).value()
        if value.denominator == 1 and 0 <= value < 1000:
            return Example("evaluate", "agent", f"value {text}", "", f"{value}")


def operation(rng: random.Random, held_out: bool) -> Example:
    """Two numbers and an operator, parted by spaces as in prompts: the agent's only look at " 24" there.

    A number that prompts never held means nothing to a model when it turns up as a target. Here every number of at most
    two digits is an operand and a result alike; no text asks for a way to reach it.
    """
    while True:
        operator = rng.choice("+-*/")
        a, b = rng.randint(1, 99), rng.randint(1, 99 if operator in "+-" else 13)
        if operator == "/":
            a *= b
        value = parse(f"{a}{operator}{b}").value()
        if 0 <= value < 1000 and a < 1000:
            return Example("operation", "agent", f"value {a} {operator} {b}", "", f" {value}")


def number_texts() -> Iterator[str]:
    """Yield every number up to 999 so often that it becomes one token, and one with a space before it."""
    numbers = " ".join(map(str, range(1000)))
    for _ in range(CORPUS):
        yield f" {numbers}"
        yield numbers.replace(" ", "+")


def read_answer(example: Example, answer: str) -> tuple[Fraction | None, list[int], list[int], int]:
    """Return value and numbers of an answer, None and none where it is no expression; then the tiles and the target."""
    left, _, target = example.observation.partition("target")
    tiles = sorted(map(int, left.split()[1:]))
    try:
        expression = parse(answer)
        return expression.value(), sorted(expression.literals), tiles, int(target)
    except ExpressionError:
        return None, [], tiles, int(target)


def hits_target(example: Example, answer: str) -> bool:
    """Return whether an expression makes the target from all tiles."""
    value, used, tiles, target = read_answer(example, answer)
    return value == target and used == tiles


class NumbersLessons(MixedLessons):
    """Four tiles, and the arithmetic behind them."""

    mixes: ClassVar[Mixes] = {
        "numbers-agent": {"four": (four_tiles, 0.78), "evaluate": (evaluate, 0.06), "operation": (operation, 0.16)}
    }
    practice = frozenset({"evaluate", "operation"})

    def corpus(self, task: str) -> Iterator[str | Example]:
        """Yield numbers and examples."""
        yield from number_texts()
        for index in range(CORPUS):
            yield from self.example(task, DerivedRandom(0, "trace", task, index), False)

    def judge(self, example: Example, answer: str) -> bool:
        """Return whether an answer is right: any expression that makes the target."""
        return super().judge(example, answer) if example.kind in self.practice else hits_target(example, answer)
