"""Lessons in thinking: what the agents of a swarm say to each other, said by one that sees all six tiles to itself.

A value of three tiles is made in two steps, and what the other three have to make then is noted. Where they can, they
do, and the two join; where they cannot, or miss it, all begins anew with another value. What failed is read and not
learned: an agent that imitated it would fail on purpose.
"""

import random
from typing import NamedTuple

from worlds.numbers import solver
from worlds.numbers.arithmetic import Node, parse
from worlds.numbers.lessons import FORBIDDEN_TARGET
from worlds.numbers.puzzles import Puzzle
from worlds.numbers.thoughts import ANEW, NOTE, value
from worlds.protocol import Example

FAILURES = (0, 0, 1, 1, 2, 3, 4)  # searches that failed before, each number as often
MISSES = 0.2  # of those, searches that went on and missed what they noted; the others stopped in time
NEAR = 6  # a miss is one of so many values that come nearest
HIGHEST = 200  # what is noted in vain is no more
LONGEST = 220  # characters of all searches, some 120 tokens

_NOTES = {
    ("+", True): "{t}-{v}",
    ("-", True): "{v}-{t}",
    ("*", True): "{t}/{v}",
    ("/", True): "{v}/{t}",
    ("-", False): "{t}+{v}",
    ("/", False): "{t}*{v}",
}
"""How a value v and what completes it join, and whether v stands first -> what completes it to the target t."""


class Plan(NamedTuple):
    """A value `made` of half of the tiles, and what the other half has to make: `form`, as of `solver.sub_targets`."""

    ours: tuple[int, ...]
    theirs: tuple[int, ...]
    made: int
    form: str
    sub_target: int


def trace(plan: Plan, target: int, rng: random.Random, failing: bool) -> Example | None:
    """Return a puzzle of all tiles, answered by a search.

    Args:
        plan: makes the target.
        target: of the puzzle.
        rng: draws expressions, and what failed before.
        failing: whether something may have failed before.

    Returns:
        The example of kind `think`; None where a step comes to no whole number from 0 on, or it would be too long.
    """
    tiles = tuple(sorted(plan.ours + plan.theirs))
    vain = [_vain(tiles, target, rng) for _ in range(rng.choice(FAILURES) if failing else 0)]
    given = ANEW.join(text for text in vain if text is not None)
    begun, rest = _begun(plan, target, rng), _steps_to(plan.theirs, plan.sub_target, rng)
    if begun is None or rest is None:
        return None
    joined = solver.complete(plan.form, str(plan.sub_target))
    answer = f"{ANEW if given else ''}{begun} {rest} {joined}={target}"
    if len(given) + len(answer) > LONGEST:
        return None
    return Example("think", "agent", Puzzle(tiles, target).text(), "", answer, given)


def _vain(tiles: tuple[int, ...], target: int, rng: random.Random) -> str | None:
    """Return a search that fails, if the first that is drawn does."""
    shuffled = rng.sample(tiles, len(tiles))
    ours, theirs = tuple(sorted(shuffled[:3])), tuple(sorted(shuffled[3:]))
    made, makes = rng.choice(solver.whole_values(ours)), solver.whole_values(theirs)
    ways = [(form, s) for form, s in solver.sub_targets(made, target) if s <= HIGHEST and s != FORBIDDEN_TARGET]
    if not ways:
        return None
    plan = Plan(ours, theirs, made, *rng.choice(ways))
    begun = _begun(plan, target, rng)
    if begun is None or rng.random() >= MISSES:
        return None if plan.sub_target in makes else begun
    near = sorted((s for s in makes if s != plan.sub_target), key=lambda s: (abs(s - plan.sub_target), s))[:NEAR]
    rest = _steps_to(theirs, rng.choice(near), rng) if near else None
    return rest and f"{begun} {rest}"


def _begun(plan: Plan, target: int, rng: random.Random) -> str | None:
    """Return the steps to the value of one half, and the note of what the other has to make."""
    steps = _steps_to(plan.ours, plan.made, rng)
    before, after = plan.form.split("[{}]")
    note = _NOTES[before[-1] if before else after[0], bool(before)].format(t=target, v=plan.made)
    return steps and f"{steps}{NOTE}{note}={plan.sub_target}"


def _steps_to(tiles: tuple[int, ...], wanted: int, rng: random.Random) -> str | None:
    """Return steps that make a value; None where one comes to no whole number from 0 on."""
    steps: list[str] = []
    made = _carried_out(parse(rng.choice(solver.expressions(tiles)[wanted])).root, steps)
    return None if made is None else " ".join(steps)


def _carried_out(node: Node, steps: list[str]) -> int | None:
    """Return what an expression comes to, and append its steps."""
    if isinstance(node, int):
        return node
    operator, one, other = node
    left, right = _carried_out(one, steps), _carried_out(other, steps)
    found = None if left is None or right is None else value(operator, left, right)
    steps.append(f"{left}{operator}{right}={found}")
    return found
