"""A Golomb ruler with 11 marks: no two pairs of marks lie equally far apart, and the ruler is as short as can be.

The shortest has length 72 (OEIS A003022). Owns the score, random rulers, and the small change that annealing makes.
"""

import random
from itertools import combinations, pairwise

NUM_MARKS = 11
OPTIMUM = 72
LARGEST = 999


def marks_of(text: str) -> list[int]:
    """Return the marks of a ruler.

    Raises:
        ValueError: it is none: 11 whole numbers that rise from 0, parted by spaces.
    """
    words = text.split()
    if len(words) != NUM_MARKS or not all(word.isascii() and word.isdecimal() and len(word) <= 3 for word in words):
        raise ValueError(f"not {NUM_MARKS} whole numbers up to {LARGEST}, parted by spaces")
    marks = [int(word) for word in words]
    if marks[0] != 0 or any(a >= b for a, b in pairwise(marks)):
        raise ValueError("the marks do not rise from 0")
    return marks


def score(text: str) -> float:
    """Return 72 / length for a Golomb ruler, 1.0 being the best there is; each repeated distance costs a quarter of it.

    So fewer repeats and a shorter ruler are better, and above .75 there is no repeat.

    Raises:
        ValueError: the text is no ruler.
    """
    marks = marks_of(text)
    distances = [b - a for a, b in combinations(marks, 2)]
    repeats = len(distances) - len(set(distances))
    return OPTIMUM / max(marks[-1], OPTIMUM) * 0.75**repeats


def sample(seed: int) -> str:
    """Return a random ruler of length 100 to 200."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    length = rng.randint(100, 200)
    return _text([0, *rng.sample(range(1, length), NUM_MARKS - 2), length])


def change(text: str, rng: random.Random) -> str:
    """Return a ruler with one mark moved, or with all marks from one on, mostly by little; it may be none any more."""
    marks = marks_of(text)
    place = rng.randrange(1, NUM_MARKS)
    by = rng.choice((-1, 1)) * rng.randint(1, rng.choice((1, 2, 4, 8, 16, 64)))
    last = rng.choice((place + 1, NUM_MARKS))
    return _text([*marks[:place], *(mark + by for mark in marks[place:last]), *marks[last:]])


def _text(marks: list[int]) -> str:
    return " ".join(map(str, sorted(marks)))
