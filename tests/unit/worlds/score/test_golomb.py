"""The shipped scorer, and the annealing that every search on it has to be compared with."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from worlds.score import golomb
from worlds.score.annealing import anneal

BEST = "0 1 4 13 28 33 47 54 64 70 72"


def _is_golomb(text):
    marks = golomb.marks_of(text)
    distances = [b - a for a, b in combinations(marks, 2)]
    return len(set(distances)) == len(distances)


def test_the_shortest_ruler_scores_one():
    assert golomb.score(BEST) == 1.0
    assert _is_golomb(BEST)


def test_a_shorter_ruler_without_repeats_scores_more():
    longer, longest = "0 1 4 13 28 33 47 54 64 70 250", "0 1 4 13 28 33 47 54 64 70 300"
    assert _is_golomb(longer)
    assert golomb.score(longest) < golomb.score(longer) == pytest.approx(72 / 250)


def test_each_repeated_distance_costs_and_above_three_quarters_there_is_none():
    one, many = "0 1 4 13 28 33 47 54 64 70 71", "0 1 2 3 4 5 6 7 8 9 71"
    assert golomb.score(many) < golomb.score(one) <= 0.75
    assert golomb.score("0 1 2 3 4 5 6 7 8 9 10") < 0.001  # short, and full of repeats


def test_a_repeat_in_a_shorter_ruler_scores_more():
    assert golomb.score("0 1 2 3 4 5 6 7 8 9 90") > golomb.score("0 1 2 3 4 5 6 7 8 9 180")


@pytest.mark.parametrize(
    "text",
    ["", "0 1 2", f"{BEST} 80", "1 2 3 4 5 6 7 8 9 10 11", "0 4 1 13 28 33 47 54 64 70 72", "a b", f"{BEST[:-2]}7²"],
)
def test_what_is_no_ruler_is_refused(text):
    with pytest.raises(ValueError, match=r"marks|numbers"):
        golomb.score(text)


def test_random_rulers_can_be_scored_and_differ():
    rulers = [golomb.sample(seed) for seed in range(50)]
    assert all(0 < golomb.score(ruler) <= 1 for ruler in rulers)
    assert len(set(rulers)) == 50
    assert golomb.sample(3) == rulers[3]


def test_annealing_beats_random_rulers_at_equal_evaluations():
    found = anneal(golomb.score, golomb.sample, golomb.change, seed=1, evaluations=3000)
    assert found.evaluations == 3000
    assert found.score == golomb.score(found.text)
    assert found.score > max(golomb.score(golomb.sample(seed)) for seed in range(3000)) + 0.05


def test_annealing_depends_on_its_seed_alone():
    one, again, other = (anneal(golomb.score, golomb.sample, golomb.change, s, 500).text for s in (4, 4, 5))
    assert one == again != other


def test_annealing_stops_after_its_seconds():
    found = anneal(golomb.score, golomb.sample, golomb.change, seed=0, seconds=0.2)
    assert 0.2 <= found.wall_s < 2
    assert found.evaluations > 64


def test_annealing_needs_a_limit():
    with pytest.raises(ValueError, match="limit"):
        anneal(golomb.score, golomb.sample, golomb.change, seed=0)


def test_changed_rulers_differ_and_can_mostly_be_scored():
    rng, refused = random.Random(0), 0
    for _ in range(200):
        changed = golomb.change(BEST, rng)
        assert changed != BEST
        try:
            assert golomb.score(changed) < 1.0
        except ValueError:
            refused += 1
    assert refused < 60
