"""What can be learned of split-numbers-v0: for its agents, for one that sees all tiles, and for its coordinators.

Held-out puzzles are refused by the hash of the canonical puzzle, and no text ever asks for 24, whatever the number of
tiles. All tasks share one corpus, so that policies can be trained further on another task.
"""

import random
from collections import Counter
from collections.abc import Iterator
from functools import cache, lru_cache, partial
from itertools import product
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from worlds.mixed_lessons import MixedLessons, Mixes
from worlds.numbers import solver
from worlds.numbers.arithmetic import ExpressionError, parse
from worlds.numbers.lessons import (
    CORPUS,
    FORBIDDEN_TARGET,
    HIGH,
    LOW,
    evaluate,
    four_tiles,
    hits_target,
    number_texts,
    read_answer,
    shortest,
)
from worlds.numbers.puzzles import Puzzle, is_held_out
from worlds.numbers.thoughts import expression_of
from worlds.protocol import Example
from worlds.seeds import DerivedRandom
from worlds.split_numbers.playbook import LARGEST, MENU, NOTHING, briefing_text, marking_text, menu
from worlds.split_numbers.thinking import Plan, trace

TARGET_LOW, TARGET_HIGH = 100, 199
VALUES_PER_LIST = 10
POSTED_VALUES = 6  # an agent without a directive posts one of so many: all would post the same one if it were the best
BRIEFINGS_WITH_SOME = 0.6
SHORT_MENU = 6  # for models that read numbers digit by digit, to which menus cost twice the tokens
LONG_MENU = 24  # practice teaches something with every entry, and a long menu pays for the tiles before it once


def _half(rng: random.Random) -> tuple[int, ...]:
    return tuple(sorted(rng.randint(LOW, HIGH) for _ in range(3)))


def _solved_split(rng: random.Random, held_out: bool) -> tuple[tuple[int, ...], tuple[int, ...], int, int, str, int]:
    """Return (own tiles, other tiles, target, other's value, form, own sub-target) of a split puzzle."""
    while True:
        own, other = _half(rng), _half(rng)
        v, s = rng.choice(solver.whole_values(other)), rng.choice(solver.whole_values(own))
        forms = [("{v}+[{{}}]", v + s), ("{v}-[{{}}]", v - s), ("[{{}}]-{v}", s - v), ("{v}*[{{}}]", v * s)]
        if s and v % s == 0:
            forms.append(("{v}/[{{}}]", v // s))
        if v and s % v == 0:
            forms.append(("[{{}}]/{v}", s // v))
        fitting = [(form, t) for form, t in forms if TARGET_LOW <= t <= TARGET_HIGH]
        if not fitting or s in (0, FORBIDDEN_TARGET):
            continue
        form, target = rng.choice(fitting)
        if is_held_out(own + other, target) == held_out:
            return own, other, target, v, form.format(v=v), s


def _half_text(tiles: tuple[int, ...], target: int) -> str:
    return f"half {' '.join(map(str, tiles))} target {target}"


def directed(rng: random.Random, held_out: bool) -> Example:
    """An agent hits the sub-target that it was assigned."""
    own, _, target, _, form, s = _solved_split(rng, held_out)
    return Example(
        "directed", "agent", _half_text(own, target), form.format(s), solver.complete(form, shortest(own, s, rng))
    )


def free(rng: random.Random, held_out: bool) -> Example:
    """An agent without a directive posts a value that is part of some solution."""
    own, _, target, _, _, s = _solved_split(rng, held_out)
    return Example("free", "agent", _half_text(own, target), "", shortest(own, s, rng))


@cache
def _reached_by() -> tuple[dict[int, NDArray[np.bool_]], NDArray[np.int64]]:
    """Return value -> which halves can make it, and how often each half is drawn; halves in one fixed order."""
    drawn = Counter(tuple(sorted(tiles)) for tiles in product(range(LOW, HIGH + 1), repeat=3))
    reached: dict[int, NDArray[np.bool_]] = {}
    for index, half in enumerate(drawn):
        for value in solver.whole_values(half):
            if value < LARGEST:
                reached.setdefault(value, np.zeros(len(drawn), dtype=np.bool_))[index] = True
    return reached, np.array(list(drawn.values()))


@lru_cache(maxsize=200_000)
def num_completing(value: int, target: int) -> int:
    """Return how many draws of a half could complete a posted value to the target.

    A whole number, so that ties are ties on every machine: sums of floats fall another way from CPU to CPU.
    """
    reached, draws = _reached_by()
    able = np.zeros(len(draws), dtype=np.bool_)
    for _, s in solver.sub_targets(value, target):
        if s in reached and s != FORBIDDEN_TARGET:
            able |= reached[s]
    return int(draws[able].sum())


@lru_cache(maxsize=100_000)
def posting_values(tiles: tuple[int, ...], target: int) -> tuple[int, ...]:
    """Return the values most worth posting: those that most halves could complete, the best first."""
    values = [v for v in solver.whole_values(tiles) if v not in (0, FORBIDDEN_TARGET)]
    return tuple(sorted(values, key=lambda v: (-num_completing(v, target), v))[:POSTED_VALUES])


def post(rng: random.Random, held_out: bool) -> Example:
    """An agent without a directive posts a value that the other half can probably complete."""
    own, _, target, _, _, _ = _solved_split(rng, held_out)
    value = rng.choice(posting_values(own, target))
    return Example("post", "agent", _half_text(own, target), "", shortest(own, value, rng))


def six_tiles(rng: random.Random, held_out: bool) -> Example:
    """All six tiles make a target of 100..199: what a solo agent needs."""
    if rng.random() < 0.5:
        own, other, target, v, form, s = _solved_split(rng, held_out)
        text = _compose_both(form, shortest(other, v, rng), shortest(own, s, rng))
        return Example("six", "agent", Puzzle(tuple(sorted(own + other)), target).text(), "", text)
    while True:
        tiles = tuple(sorted(rng.randint(LOW, HIGH) for _ in range(6)))
        text = solver.random_expression(tiles, rng)
        value = parse(text).value()
        fits = value.denominator == 1 and TARGET_LOW <= value <= TARGET_HIGH
        if fits and is_held_out(tiles, int(value)) == held_out:
            return Example("six", "agent", Puzzle(tiles, int(value)).text(), "", text)


def think(rng: random.Random, held_out: bool) -> Example:
    """All six tiles again, answered by a search; in training something may have failed before."""
    while True:
        own, other, target, v, form, s = _solved_split(rng, held_out)
        if (found := trace(Plan(other, own, v, form, s), target, rng, failing=not held_out)) is not None:
            return found


def _compose_both(form: str, theirs: str, own: str) -> str:
    """Replace the posted number of a form by the expression that made it."""
    before, after = form.split("[{}]")
    return solver.combine(before[-1], theirs, own) if before else solver.combine(after[0], own, theirs)


def briefing(rng: random.Random, held_out: bool, most: int = MENU) -> Example:
    """A coordinator picks, from a menu of at most so many sub-targets as in play, all that the half can make.

    Most menus of play hold none; more than half of those here hold some, so that there is something to learn.
    """
    some = rng.random() < BRIEFINGS_WITH_SOME
    while True:
        own, other, target = _half(rng), _half(rng), rng.randint(TARGET_LOW, TARGET_HIGH)
        if is_held_out(tuple(sorted(own + other)), target) != held_out:
            continue
        pool = list(posting_values(other, target))
        missed = [v for v in solver.whole_values(other) if v not in pool]  # posted by who missed a sub-target
        pool += rng.sample(missed, min(len(missed), POSTED_VALUES // 2))
        rng.shuffle(pool)
        options = [s for s in menu(target, pool[: rng.randint(1, len(pool))]) if s != FORBIDDEN_TARGET]
        tried = rng.sample(options, rng.randint(0, len(options)) if rng.random() < 0.5 else 0)
        offered = [s for s in options if s not in tried][:most]
        if not offered:
            continue
        example = _pick("briefing", own, offered)
        if not (some and example.answer.strip() == NOTHING):
            return example


def pick(rng: random.Random, held_out: bool, most: int = MENU) -> Example:
    """As `briefing`, with any numbers on the menu: practice in what three tiles can make, without a puzzle."""
    own = _half(rng)
    able = [v for v in solver.whole_values(own) if v not in (0, FORBIDDEN_TARGET) and v < LARGEST]
    options = set(rng.sample(able, min(len(able), rng.randint(0, most // 2))))
    highest = rng.choice((50, TARGET_HIGH))
    options |= {rng.randint(1, highest) for _ in range(rng.randint(1, most - len(options)))} - {FORBIDDEN_TARGET}
    return _pick("pick", own, sorted(options) or able[:1])


def marks(rng: random.Random, held_out: bool, most: int = MENU) -> Example:
    """As `briefing`, but the answer goes through the menu and marks what the half can make."""
    return _marked("marks", briefing(rng, held_out, most))


def practice_marks(rng: random.Random, held_out: bool, most: int = MENU) -> Example:
    """As `marks`, about half of the menu can be made, without a puzzle: most is learned from these."""
    own = _half(rng)
    able = [v for v in solver.whole_values(own) if v not in (0, FORBIDDEN_TARGET) and v <= TARGET_HIGH]
    options = set(rng.sample(able, min(len(able), rng.randint(most // 3, 2 * most // 3))))
    makes = frozenset(solver.whole_values(own))
    while len(options) < most:
        value = rng.randint(1, rng.choice((30, 60, 120, TARGET_HIGH)))
        if value != FORBIDDEN_TARGET and value not in makes:
            options.add(value)
    return _marked("practice marks", _pick("pick", own, sorted(options)))


def _marked(kind: str, picked_from: Example) -> Example:
    """Turn a menu with its picks into a menu with marks."""
    start, _, menu_text = picked_from.observation.rstrip().partition(" make ")
    picked = set(picked_from.answer.split())
    text = "".join(f"{s}{'+' if s in picked else '-'}" for s in menu_text.split())
    return Example(kind, "coordinator", marking_text(start.removeprefix("half ")), "", text)


def _pick(kind: str, own: tuple[int, ...], options: list[int]) -> Example:
    makes = frozenset(solver.whole_values(own))
    answer = "".join(f" {s}" for s in options if s in makes) or f" {NOTHING}"
    return Example(kind, "coordinator", briefing_text(" ".join(map(str, own)), options), "", answer)


def reach(rng: random.Random, held_out: bool) -> Example:
    """The next values but 24, in order, that a half can make: what a coordinator has to know, without a puzzle."""
    tiles = _half(rng)
    values = sorted(v for v in solver.whole_values(tiles) if v != FORBIDDEN_TARGET)
    first = rng.randrange(len(values))
    start = rng.randint(values[first - 1] + 1 if first else 0, values[first])
    listed = "".join(f" {v}" for v in values[first : first + VALUES_PER_LIST])
    return Example("reach", "coordinator", f"half {' '.join(map(str, tiles))} from {start}\n", "", listed)


def _solves(example: Example, thoughts: str) -> bool:
    """Return whether the steps of a search make the target."""
    try:
        return hits_target(example, expression_of(thoughts))
    except ExpressionError:
        return False


MARKED = frozenset({"marks", "practice marks"})
"""Kinds whose answers go through a menu and mark each entry; nothing ends them but the end of the menu."""

WORDS = "heard illegal room exits door key goal go take drop look red blue green made values target half tiles"


class SplitNumbersLessons(MixedLessons):
    """Sub-targets, values worth posting, menus, and whole puzzles of four and six tiles."""

    mixes: ClassVar[Mixes] = {
        "puzzle-agent": {
            "directed": (directed, 0.34),
            "free": (free, 0.08),
            "four": (four_tiles, 0.26),
            "six": (six_tiles, 0.24),
            "evaluate": (evaluate, 0.08),
        },
        "puzzle-coordinator": {"briefing": (briefing, 0.5), "pick": (pick, 0.25), "reach": (reach, 0.25)},
        "puzzle-coordinator-play": {"briefing": (briefing, 1.0)},
        "puzzle-coordinator-short": {
            "briefing": (partial(briefing, most=SHORT_MENU), 0.6),
            "pick": (partial(pick, most=SHORT_MENU), 0.15),
            "reach": (reach, 0.25),
        },
        "puzzle-coordinator-marks": {
            "marks": (partial(marks, most=SHORT_MENU), 0.3),
            "practice marks": (partial(practice_marks, most=LONG_MENU), 0.7),
        },
        "puzzle-solo": {"six": (six_tiles, 1.0)},
        "puzzle-thinker": {"think": (think, 1.0)},
        "puzzle-agent-play": {
            "directed": (directed, 0.24),
            "post": (post, 0.34),
            "four": (four_tiles, 0.16),
            "six": (six_tiles, 0.22),
            "evaluate": (evaluate, 0.04),
        },
    }
    practice = frozenset({"evaluate", "pick", "practice marks", "reach"})

    def corpus(self, task: str) -> Iterator[str | Example]:
        """Yield numbers, examples of both roles, and words of this and other worlds: the same for every task."""
        yield from number_texts()
        for name in ("puzzle-agent", "puzzle-coordinator"):
            for index in range(CORPUS):
                yield from self.example(name, DerivedRandom(0, "trace", name, index), False)
        for _ in range(CORPUS // 10):
            yield f" {WORDS.replace(' ', '  ')} {WORDS}"

    def judge(self, example: Example, answer: str) -> bool:
        """Return whether an answer does what is asked; of a menu the first pick counts, on which most depends."""
        if example.kind in ("briefing", "pick"):
            return (answer.split() or [""])[0] in example.answer.split()
        if example.kind in self.practice | MARKED:
            return super().judge(example, answer)
        if example.kind == "think":
            return _solves(example, answer)
        if example.kind in ("four", "six"):
            return hits_target(example, answer)
        value, used, tiles, target = read_answer(example, answer)
        if example.kind in ("free", "post"):
            return used == tiles and (example.kind == "free" or value in posting_values(tuple(tiles), target))
        return value == target and used == sorted(parse(example.answer).literals)
