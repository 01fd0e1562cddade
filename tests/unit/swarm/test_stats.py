"""Intervals must be honest: paired, clustered, seeded, and wide enough to contain the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.stats import non_inferiority, paired_difference, rate_interval, ratio_interval, solved_by_budget

OUTCOMES = st.lists(st.booleans(), min_size=1, max_size=40)
PAIRS = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=1, max_size=40)


@given(OUTCOMES, st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_identical_arms_differ_by_exactly_zero(outcomes: list[bool], seed: int) -> None:
    assert paired_difference(outcomes, outcomes, seed=seed, resamples=200) == (0.0, 0.0, 0.0)


@given(PAIRS, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_order_of_pairs_and_names_of_clusters_do_not_matter(pairs: list[tuple[bool, bool, int]], rng) -> None:
    mixed = pairs[:]
    rng.shuffle(mixed)
    a, b, clusters = zip(*pairs, strict=True)
    a2, b2, clusters2 = zip(*mixed, strict=True)
    first = paired_difference(a, b, clusters, seed=3, resamples=200)
    assert first == paired_difference(a2, b2, [f"puzzle {c}" for c in clusters2], seed=3, resamples=200)


def test_same_seed_gives_same_interval_and_another_seed_another() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(200) < 0.8, rng.random(200) < 0.5
    assert paired_difference(a, b, seed=1, resamples=101) == paired_difference(a, b, seed=1, resamples=101)
    assert len({paired_difference(a, b, seed=seed, resamples=101) for seed in range(5)}) > 1


def test_known_shift_is_recovered_and_zero_excluded() -> None:
    rng = np.random.default_rng(4)
    b = rng.random(400) < 0.3
    a = b | (rng.random(400) < 0.4)  # true shift: .7 * .4 = .28
    difference = paired_difference(a, b)
    assert difference.low < 0.28 < difference.high
    assert difference.low > 0.2
    assert difference.estimate == pytest.approx(a.mean() - b.mean())


def test_interval_agrees_with_the_normal_theory_for_many_puzzles() -> None:
    successes = [True] * 600 + [False] * 400
    low, high = rate_interval(successes)[1:]
    half_width = 1.96 * np.sqrt(0.6 * 0.4 / 1000)
    assert low == pytest.approx(0.6 - half_width, abs=0.004)
    assert high == pytest.approx(0.6 + half_width, abs=0.004)


def test_interval_covers_the_true_rate_about_95_times_in_100() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for seed in range(200):
        low, high = rate_interval(rng.random(80) < 0.7, seed=seed, resamples=500)[1:]
        covered += low <= 0.7 <= high
    assert 180 <= covered <= 199


def test_pairing_narrows_the_interval_when_arms_share_hard_puzzles() -> None:
    hard = np.array([True, False] * 150)
    a = ~hard
    b = a.copy()
    b[:10] = False
    paired = paired_difference(a, b)
    unpaired_width = 2 * 1.96 * np.sqrt(2 * 0.25 / 300)
    assert paired.high - paired.low < unpaired_width / 3


def test_repeats_of_one_puzzle_do_not_count_as_new_evidence() -> None:
    solved = [i % 2 == 0 for i in range(40)]
    tripled = solved * 3
    puzzles = list(range(40)) * 3
    single = rate_interval(solved, seed=5)
    assert rate_interval(tripled, puzzles, seed=5) == pytest.approx(single)
    naive = rate_interval(tripled, seed=5)
    assert naive.high - naive.low < 0.7 * (single.high - single.low)


@pytest.mark.parametrize(("solved", "bound"), [(False, 0.0122), (True, 0.9878)])
def test_all_or_nothing_keeps_the_exact_binomial_bound(solved: bool, bound: float) -> None:
    estimate, low, high = rate_interval([solved] * 300)
    assert estimate == float(solved)
    assert (high if not solved else low) == pytest.approx(bound, abs=1e-3)


def test_non_inferiority_holds_for_equal_arms_and_fails_for_a_worse_one() -> None:
    rng = np.random.default_rng(1)
    good = rng.random(300) < 0.85
    worse = good & (rng.random(300) < 0.8)
    assert non_inferiority(good, good, margin=0.05).holds
    assert not non_inferiority(worse, good, margin=0.05).holds
    assert non_inferiority(worse, good, margin=0.5).holds


def test_a_few_ties_do_not_prove_non_inferiority() -> None:
    assert not non_inferiority([True] * 20, [True] * 20, margin=0.05).holds
    assert not non_inferiority([True] * 300, [True] * 300, ["the same puzzle"] * 300, margin=0.05).holds
    assert non_inferiority([True] * 300, [True] * 300, margin=0.05).holds


def test_coverage_counts_solutions_within_each_budget_inclusive() -> None:
    rates = solved_by_budget([100, None, 250, 400], [400, 99, 100, 300, 10_000])
    assert rates.tolist() == [0.75, 0.0, 0.25, 0.5, 0.75]


# ---- ratios of sums


def test_a_ratio_is_of_the_sums_and_not_the_mean_of_ratios() -> None:
    assert ratio_interval([[10.0, 1.0]], [1, 10], resamples=200).estimate == 1.0
    assert ratio_interval([[10.0, 1.0], [30.0, 3.0]], [1, 10], resamples=200).estimate == 2.0


def test_a_ratio_that_is_the_same_everywhere_has_no_width() -> None:
    sizes = np.arange(1, 21)
    assert ratio_interval([0.5 * sizes, 0.5 * sizes], sizes, resamples=500) == pytest.approx((0.5, 0.5, 0.5))


def test_seeds_that_differ_widen_an_interval_that_documents_alone_leave_narrow() -> None:
    sizes = np.ones(400)
    same = ratio_interval([sizes, sizes, sizes], sizes, resamples=500)
    apart = ratio_interval([0.9 * sizes, sizes, 1.1 * sizes], sizes, resamples=500)
    assert same.high == pytest.approx(same.low)
    assert (apart.low, apart.high) == (pytest.approx(0.9, abs=0.02), pytest.approx(1.1, abs=0.02))


def test_the_interval_of_a_ratio_agrees_with_the_normal_theory_for_many_documents() -> None:
    rng = np.random.default_rng(3)
    bits = 2 + rng.normal(size=2000)
    low, high = ratio_interval([bits], np.ones(2000), resamples=4000)[1:]
    half_width = 1.96 * bits.std() / np.sqrt(2000)
    assert low == pytest.approx(bits.mean() - half_width, abs=0.006)
    assert high == pytest.approx(bits.mean() + half_width, abs=0.006)


def test_differences_document_by_document_cancel_what_the_arms_share() -> None:
    rng = np.random.default_rng(8)
    base = 50 * rng.random((2, 300)) + 1
    sizes = rng.integers(5, 50, 300)
    paired = ratio_interval(base - (base - 0.02 * sizes), sizes, resamples=500)
    assert paired == pytest.approx((0.02, 0.02, 0.02))
    alone = ratio_interval(base, sizes, resamples=500)
    assert alone.high - alone.low > 0.1


def test_a_ratio_is_drawn_from_its_seed() -> None:
    rng = np.random.default_rng(0)
    bits, sizes = rng.random((3, 50)), rng.integers(1, 9, 50)
    found = [ratio_interval(bits, sizes, seed=seed, resamples=101) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    assert ratio_interval(bits, sizes, confidence=0.5).high < ratio_interval(bits, sizes).high


@pytest.mark.parametrize(
    "call",
    [
        lambda: ratio_interval([1.0, 2.0], [1, 2]),  # type: ignore[list-item]
        lambda: ratio_interval([[1.0, 2.0, 3.0]], [1, 2]),
        lambda: ratio_interval([], []),
        lambda: ratio_interval([[]], []),
        lambda: ratio_interval([[1.0]], [0]),
        lambda: ratio_interval([[1.0]], [1], resamples=0),
        lambda: ratio_interval([[1.0]], [1], confidence=0.0),
        lambda: rate_interval([]),
        lambda: rate_interval([0.5, 1.0]),  # type: ignore[list-item]
        lambda: rate_interval([True], [1, 2]),
        lambda: rate_interval([True, False], resamples=0),
        lambda: rate_interval([True], confidence=1.0),
        lambda: paired_difference([True], [True, False]),
        lambda: non_inferiority([True], [True], margin=-0.1),
        lambda: solved_by_budget([], [1]),
    ],
)
def test_bad_input_is_refused(call) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        call()
