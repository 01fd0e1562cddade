"""Training texts from a solver: (prompt, completion) pairs in exactly the layout of play.

Owns what the shipped policies learn from. Held-out puzzles are refused by the hash of the canonical puzzle, and no
text ever asks for 24, whatever the number of tiles. Every example follows from (seed, index) alone, so the cursor of
a training run is one number. Knows no torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache, lru_cache, partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from swarm.coordinator.split_numbers import LARGEST, MENU, NOTHING, briefing_text, marking_text, menu
from swarm.errors import SwarmError
from swarm.prompt import STOP, agent_prompt
from swarm.seeds import derive_seed
from swarm.train.facts_traces import FACTS_TASK, facts_corpus
from worlds.numbers import solver
from worlds.numbers.arithmetic import parse
from worlds.numbers.world import Puzzle, is_held_out

__all__ = [
    "FORBIDDEN_TARGET",
    "MARKED",
    "TASKS",
    "WITHOUT_PUZZLE",
    "completable_share",
    "corpus",
    "example",
    "held_out_example",
    "posting_values",
]

FORBIDDEN_TARGET = 24
LOW, HIGH = 1, 13
TARGET_LOW, TARGET_HIGH = 100, 199
CHOICES = 3  # of the shortest expressions, for four tiles: one learns slowly when many texts are right
VALUES_PER_LIST = 10
POSTED_VALUES = 6  # an agent without a directive posts one of so many: all would post the same one if it were the best
BRIEFINGS_WITH_SOME = 0.6
SHORT_MENU = 6  # for models that read numbers digit by digit, to which menus cost twice the tokens
LONG_MENU = 24  # practice teaches something with every entry, and a long menu pays for the tiles before it once

Example = tuple[str, str, str]
"""(kind, prompt, completion); the completion ends with the stop."""


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


def _make(tiles: tuple[int, ...], value: int, rng: random.Random, choices: int = 1) -> str:
    """Return one of the shortest expressions that make a value."""
    found = solver.expressions(tiles)[value]
    return found[rng.randrange(min(choices, len(found)))]


def _half_text(tiles: tuple[int, ...], target: int) -> str:
    return f"half {' '.join(map(str, tiles))} target {target}"


def directed(rng: random.Random, held_out: bool) -> Example:
    """An agent hits the sub-target that it was assigned."""
    own, _, target, _, form, s = _solved_split(rng, held_out)
    prompt = agent_prompt(_half_text(own, target), form.format(s))
    return "directed", prompt, solver.complete(form, _make(own, s, rng)) + STOP


def free(rng: random.Random, held_out: bool) -> Example:
    """An agent without a directive posts a value that is part of some solution."""
    own, _, target, _, _, s = _solved_split(rng, held_out)
    return "free", agent_prompt(_half_text(own, target)), _make(own, s, rng) + STOP


@cache
def _reached_by() -> tuple[dict[int, NDArray[np.bool_]], NDArray[np.float64]]:
    """Return value -> which halves can make it, and how likely each half is; halves in one fixed order."""
    drawn: dict[tuple[int, ...], int] = {}
    for tiles in product(range(LOW, HIGH + 1), repeat=3):
        half = tuple(sorted(tiles))
        drawn[half] = drawn.get(half, 0) + 1
    reached: dict[int, NDArray[np.bool_]] = {}
    for index, half in enumerate(drawn):
        for value in solver.whole_values(half):
            if value < LARGEST:
                reached.setdefault(value, np.zeros(len(drawn), dtype=np.bool_))[index] = True
    counts = np.array(list(drawn.values()), dtype=np.float64)
    return reached, counts / counts.sum()


@lru_cache(maxsize=200_000)
def completable_share(value: int, target: int) -> float:
    """Return the share of halves that could complete a posted value to the target."""
    reached, likely = _reached_by()
    able = np.zeros(len(likely), dtype=np.bool_)
    for _, s in solver.sub_targets(value, target):
        if s in reached and s != FORBIDDEN_TARGET:
            able |= reached[s]
    return float(likely @ able)


@lru_cache(maxsize=100_000)
def posting_values(tiles: tuple[int, ...], target: int) -> tuple[int, ...]:
    """Return the values most worth posting: those that most halves could complete, the best first."""
    values = [v for v in solver.whole_values(tiles) if v not in (0, FORBIDDEN_TARGET)]
    return tuple(sorted(values, key=lambda v: (-completable_share(v, target), v))[:POSTED_VALUES])


def post(rng: random.Random, held_out: bool) -> Example:
    """An agent without a directive posts a value that the other half can probably complete."""
    own, _, target, _, _, _ = _solved_split(rng, held_out)
    value = rng.choice(posting_values(own, target))
    return "post", agent_prompt(_half_text(own, target)), _make(own, value, rng) + STOP


def four_tiles(rng: random.Random, held_out: bool) -> Example:
    """All four tiles make a small target, never 24."""
    while True:
        tiles = tuple(sorted(rng.randint(LOW, HIGH) for _ in range(4)))
        targets = [v for v in solver.whole_values(tiles) if 1 <= v <= 100 and v != FORBIDDEN_TARGET]
        if not targets:
            continue
        target = rng.choice(targets)
        if is_held_out(tiles, target) == held_out:
            return "four", agent_prompt(Puzzle(tiles, target).text()), _make(tiles, target, rng, CHOICES) + STOP


def six_tiles(rng: random.Random, held_out: bool) -> Example:
    """All six tiles make a target of 100..199: what a solo agent needs."""
    if rng.random() < 0.5:
        own, other, target, v, form, s = _solved_split(rng, held_out)
        theirs = _make(other, v, rng)
        text = _compose_both(form, v, theirs, _make(own, s, rng))
        return "six", agent_prompt(Puzzle(tuple(sorted(own + other)), target).text()), text + STOP
    while True:
        tiles = tuple(sorted(rng.randint(LOW, HIGH) for _ in range(6)))
        text = solver.random_expression(tiles, rng)
        value = parse(text).value()
        fits = value.denominator == 1 and TARGET_LOW <= value <= TARGET_HIGH
        if fits and is_held_out(tiles, int(value)) == held_out:
            return "six", agent_prompt(Puzzle(tiles, int(value)).text()), text + STOP


def _compose_both(form: str, v: int, theirs: str, own: str) -> str:
    """Replace the posted number of a form by the expression that made it."""
    before, after = form.split("[{}]")
    operator = before[-1] if before else after[0]
    left, right = (theirs, own) if before else (own, theirs)
    return solver.combine(operator, left, right)


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
        kind, prompt, answer = _pick("briefing", own, offered)
        if not (some and answer.strip() == NOTHING):
            return kind, prompt, answer


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
    _, prompt, answer = briefing(rng, held_out, most)
    return _marked("marks", prompt, answer)


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
    _, prompt, answer = _pick("pick", own, sorted(options))
    return _marked("practice marks", prompt, answer)


def _marked(kind: str, prompt: str, answer: str) -> Example:
    """Turn a menu with its picks into a menu with marks."""
    start, _, menu_text = prompt.rstrip(STOP).partition(" make ")
    picked = set(answer.split())
    text = "".join(f"{s}{'+' if s in picked else '-'}" for s in menu_text.split())
    return kind, marking_text(start.removeprefix("half ")), text


def _pick(kind: str, own: tuple[int, ...], options: list[int]) -> Example:
    makes = frozenset(solver.whole_values(own))
    answer = "".join(f" {s}" for s in options if s in makes) or f" {NOTHING}"
    return kind, briefing_text(" ".join(map(str, own)), options), answer + STOP


def evaluate(rng: random.Random, held_out: bool) -> Example:
    """An expression is read and its value written: here 24 is met as a value, though never as a target."""
    while True:
        tiles = [rng.randint(LOW, HIGH) for _ in range(rng.choice((2, 2, 3, 4)))]
        text = solver.random_expression(tiles, rng)
        value = parse(text).value()
        if value.denominator == 1 and 0 <= value < 1000:
            return "evaluate", f"value {text}\n", f"{value}{STOP}"


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
            return "operation", f"value {a} {operator} {b}\n", f" {value}{STOP}"


def reach(rng: random.Random, held_out: bool) -> Example:
    """The next values but 24, in order, that a half can make: what a coordinator has to know, without a puzzle."""
    tiles = _half(rng)
    values = sorted(v for v in solver.whole_values(tiles) if v != FORBIDDEN_TARGET)
    first = rng.randrange(len(values))
    start = rng.randint(values[first - 1] + 1 if first else 0, values[first])
    listed = "".join(f" {v}" for v in values[first : first + VALUES_PER_LIST])
    return "reach", f"half {' '.join(map(str, tiles))} from {start}\n", listed + STOP


Generator = Callable[[random.Random, bool], Example]
TASKS: dict[str, tuple[tuple[Generator, float], ...]] = {
    "puzzle-agent": ((directed, 0.34), (free, 0.08), (four_tiles, 0.26), (six_tiles, 0.24), (evaluate, 0.08)),
    "puzzle-coordinator": ((briefing, 0.5), (pick, 0.25), (reach, 0.25)),
    "puzzle-coordinator-play": ((briefing, 1.0),),
    "puzzle-coordinator-short": (
        (partial(briefing, most=SHORT_MENU), 0.6),
        (partial(pick, most=SHORT_MENU), 0.15),
        (reach, 0.25),
    ),
    "puzzle-coordinator-marks": (
        (partial(marks, most=SHORT_MENU), 0.3),
        (partial(practice_marks, most=LONG_MENU), 0.7),
    ),
    "puzzle-agent-play": ((directed, 0.24), (post, 0.34), (four_tiles, 0.16), (six_tiles, 0.22), (evaluate, 0.04)),
    "numbers-agent": ((four_tiles, 0.78), (evaluate, 0.06), (operation, 0.16)),
    "facts-agent": FACTS_TASK,
}
"""Task name -> its kinds of examples and their shares."""

MARKED = frozenset({"marks", "practice marks"})
"""Kinds whose answers go through a menu and mark each entry; nothing ends them but the end of the menu."""

WITHOUT_PUZZLE = frozenset({"evaluate", "operation", "pick", "practice marks", "reach", "page", "asked", "done"})
"""Kinds that hold no puzzle, so that nothing in them is held out."""


def _generators(task: str) -> tuple[tuple[Generator, float], ...]:
    if task not in TASKS:
        raise SwarmError(f"unknown training task {task!r}; available: {', '.join(TASKS)}")
    return TASKS[task]


def example(task: str, seed: int, index: int) -> Example:
    """Return training example number `index` of a task; no held-out puzzle and no target 24 is ever in it.

    Raises:
        SwarmError: unknown task.
    """
    kinds = _generators(task)
    rng = random.Random(derive_seed(seed, "trace", task, index))  # noqa: S311 - not for secrets
    (generator,) = rng.choices([g for g, _ in kinds], [share for _, share in kinds])
    return generator(rng, False)


def held_out_example(task: str, kind: int, seed: int, index: int) -> Example:
    """Return held-out example number `index` of one kind of a task, for scoring."""
    generator = _generators(task)[kind][0]
    return generator(random.Random(derive_seed(seed, "held-out", task, kind, index)), True)  # noqa: S311


def corpus(task: str, size: int = 2000) -> Iterator[str]:
    """Yield the texts that a task's tokenizer is trained on.

    All tasks with numbers share one: numbers, those tasks, and the words of the worlds.
    """
    if task == "facts-agent":
        yield from facts_corpus(size)
        return
    numbers = " ".join(map(str, range(1000)))
    for _ in range(size):  # often enough that every number up to 999 becomes one token, and one with a space before it
        yield f" {numbers}"
        yield numbers.replace(" ", "+")
    for task in ("puzzle-agent", "puzzle-coordinator"):
        for index in range(size):
            _, prompt, completion = example(task, 0, index)
            yield prompt + completion
    words = "heard illegal room exits door key goal go take drop look red blue green made values target half tiles"
    for _ in range(size // 10):
        yield f" {words.replace(' ', '  ')} {words}"
