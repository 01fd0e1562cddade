"""What is measured of a language: a compositional one scores 1, a shuffled one about 0."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from worlds.signal.language import edit_distance, entropy_bits, num_different, topographic_similarity

OBJECTS = list(product(range(4), repeat=3))
COMPOSED = ["".join("abcdefghijkl"[4 * place + value] for place, value in enumerate(thing)) for thing in OBJECTS]


def test_a_letter_for_each_value_scores_one():
    assert topographic_similarity(zip(OBJECTS, COMPOSED, strict=True)) == pytest.approx(1.0)


def test_the_same_messages_given_out_at_random_score_about_zero():
    shuffled = random.Random(0).sample(COMPOSED, len(COMPOSED))
    assert abs(topographic_similarity(zip(OBJECTS, shuffled, strict=True))) < 0.1


def test_a_language_for_two_of_three_attributes_scores_between():
    partial = [message[:2] for message in COMPOSED]
    assert 0.5 < topographic_similarity(zip(OBJECTS, partial, strict=True)) < 0.95


def test_the_order_of_the_pairs_does_not_matter():
    pairs = list(zip(OBJECTS, (message[::-1] for message in COMPOSED), strict=True))[:20]
    assert topographic_similarity(pairs) == pytest.approx(topographic_similarity(pairs[::-1]))


@pytest.mark.parametrize(
    "pairs", [[], [((0, 1), "ab")], [((0, 1), "ab"), ((1, 1), "ab")], [((0, 1), "a"), ((0, 1), "b")]]
)
def test_similarity_is_zero_where_nothing_can_be_compared(pairs):
    assert topographic_similarity(pairs) == 0.0


def test_a_known_correlation_with_ties():
    """Distances 1 2 1 of objects, 1 1 2 of messages: ranks 1.5 3 1.5 and 1.5 1.5 3, whose correlation is -.5."""
    pairs = [((0, 0), "aa"), ((0, 1), "ab"), ((1, 1), "ba")]
    assert [num_different(a, b) for (a, _), (b, _) in ((pairs[0], pairs[1]), (pairs[0], pairs[2]))] == [1, 2]
    assert topographic_similarity(pairs) == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "", 0), ("abc", "abc", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("abcd", "bcda", 2), ("ab", "ba", 2)],
)
def test_edit_distance(one, other, distance):
    assert edit_distance(one, other) == edit_distance(other, one) == distance


def test_objects_of_different_length_are_not_compared():
    with pytest.raises(ValueError, match="zip"):
        num_different((1, 2), (1,))


@pytest.mark.parametrize(
    ("messages", "bits"),
    [([], 0), (["a", "a"], 0), (["a", "b"], 1), (list("abcdefgh"), 3), (["a", "a", "b", "c"], 1.5)],
)
def test_entropy(messages, bits):
    assert math.isclose(entropy_bits(messages), bits)
