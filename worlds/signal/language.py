"""How much a set of messages looks like a language: pure functions of objects and the messages that they got."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Signs = Sequence[object]
"""The values of an object, or the letters of a message, in order."""


def topographic_similarity(pairs: Iterable[tuple[Signs, Signs]]) -> float:
    """Return how far objects that are alike have messages that are alike (Brighton & Kirby 2006), -1 to 1.

    Spearman's correlation, over all pairs of different objects, of the attributes in which two objects differ with the
    edit distance of their messages. Pairs of one object with itself are left out: an object may come with several
    messages, by several speakers, and would count as a likeness of its own.

    Args:
        pairs: (object, message), each as often as it is to count; the cost grows with the square of their number.

    Returns:
        The correlation; 0 where it has no value, for all distances between objects, or between messages, are equal.
    """
    distances = [
        (num_different(one, other), edit_distance(said, also_said))
        for (one, said), (other, also_said) in combinations(list(pairs), 2)
        if tuple(one) != tuple(other)
    ]
    if not distances:
        return 0.0
    of_objects, of_messages = (_ranks(np.array(column, dtype=np.int64)) for column in zip(*distances, strict=True))
    spread = float(of_objects.std() * of_messages.std())
    return (
        float(np.mean((of_objects - of_objects.mean()) * (of_messages - of_messages.mean()))) / spread
        if spread
        else 0.0
    )


def entropy_bits(messages: Iterable[Signs]) -> float:
    """Return the entropy of the distribution of messages, in bits; 0 for none, or where all are equal."""
    counts = Counter(map(tuple, messages)).values()
    total = sum(counts)
    return sum(count / total * math.log2(total / count) for count in counts)


def num_different(one: Signs, other: Signs) -> int:
    """Return in how many places two sequences of one length differ (Hamming distance).

    Raises:
        ValueError: they have different lengths.
    """
    return sum(a != b for a, b in zip(one, other, strict=True))


def edit_distance(one: Signs, other: Signs) -> int:
    """Return how many insertions, deletions and replacements make one sequence of the other (Levenshtein distance)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def _ranks(values: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the rank of each value; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks
