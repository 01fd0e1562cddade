"""Intervals and differences for solve rates: what a comparison may claim, and how surely.

Owns the cluster bootstrap (Efron 1979, "Bootstrap Methods: Another Look at the Jackknife"; percentile
intervals), its paired form, non-inferiority and coverage over budget. The unit that is resampled is the
puzzle (the cluster): all attempts of one puzzle, under every seed and in both arms, enter or leave a
resample together, so a hard puzzle that two arms share never counts as evidence for either. It refuses to
know journals, arms and files: numbers in, numbers out, and every draw comes from the seed that is passed
in.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """An estimate with the lower and upper bound of its interval, all as fractions."""

    estimate: float
    low: float
    high: float


class NonInferiority(NamedTuple):
    """Whether `a` is at most `margin` worse than `b`: the lower bound of a - b is at or above -margin."""

    difference: Interval
    margin: float
    holds: bool


def rate_interval(
    successes: Sequence[bool],
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """Return the success rate with its bootstrap interval.

    A bootstrap cannot see past a rate of exactly 0 or 1 (every resample is the same), so there the far
    bound is the exact binomial one (Clopper and Pearson 1934) with the clusters as trials: 0 of 300 gives
    [0, .012] and not [0, 0].

    Args:
        successes: one bool per attempt.
        clusters: the puzzle of each attempt; None takes every attempt as a puzzle of its own.
        seed: of the resampling.
        resamples: bootstrap resamples.
        confidence: coverage of the interval, between 0 and 1.

    Raises:
        ValueError: nothing to resample, lengths differ, or a setting is out of range.
    """
    values = _indicators(successes)
    sums, counts = _by_cluster(values[:, None], clusters)
    estimate = float(values.mean())
    if estimate in (0.0, 1.0):
        _check_settings(resamples, confidence)
        bound = float(((1 - confidence) / 2) ** (1 / len(counts)))
        return Interval(0.0, 0.0, 1 - bound) if estimate == 0.0 else Interval(1.0, bound, 1.0)
    rates = _resampled_means(sums, counts, seed, resamples, confidence)
    return _interval(estimate, rates[:, 0], confidence)


def paired_difference(
    a: Sequence[bool],
    b: Sequence[bool],
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """Return rate(a) - rate(b) with its paired bootstrap interval.

    Puzzles are resampled with both of their outcomes, so what the arms have in common cancels. Identical arms
    give exactly 0 with interval [0, 0]; the order of the pairs does not matter.

    Args:
        a: solve indicators of one arm.
        b: solve indicators of the other; position i of both is the same (seed, puzzle).
        clusters: the puzzle of each pair; None takes every pair as a puzzle of its own.
        seed: of the resampling.
        resamples: bootstrap resamples.
        confidence: coverage of the interval, between 0 and 1.

    Raises:
        ValueError: nothing to resample, lengths differ, or a setting is out of range.
    """
    values_a, values_b = _indicators(a), _indicators(b)
    if len(values_a) != len(values_b):
        raise ValueError(f"paired outcomes must have equal lengths, got {len(values_a)} and {len(values_b)}")
    difference = values_a - values_b
    sums, counts = _by_cluster(difference[:, None], clusters)
    means = _resampled_means(sums, counts, seed, resamples, confidence)
    return _interval(float(difference.mean()), means[:, 0], confidence)


def non_inferiority(
    a: Sequence[bool],
    b: Sequence[bool],
    clusters: Sequence[Hashable] | None = None,
    *,
    margin: float = 0.05,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> NonInferiority:
    """Return whether `a` is not worse than `b` by more than `margin`.

    The two-sided interval's lower bound decides, which is stricter than the customary one-sided test. "Not
    proven non-inferior" does not mean "inferior": it may mean too few puzzles. Where every puzzle gives the
    same difference the bootstrap's interval is empty, so it is widened by the exact binomial bound on how
    many of the
    puzzles not seen could differ: 20 ties prove nothing at a margin of .05, 300 do.

    Raises:
        ValueError: a negative margin, or as `paired_difference`.
    """
    if margin < 0:
        raise ValueError(f"margin must be 0 or more, got {margin}")
    difference = paired_difference(a, b, clusters, seed=seed, resamples=resamples, confidence=confidence)
    if difference.low == difference.high:
        num_clusters = len(a) if clusters is None else len(set(clusters))
        bound = 1 - ((1 - confidence) / 2) ** (1 / num_clusters)
        estimate = difference.estimate
        difference = Interval(estimate, max(-1.0, estimate - bound), min(1.0, estimate + bound))
    return NonInferiority(difference, margin, difference.low >= -margin)


def solved_by_budget(tokens_at_solution: Sequence[float | None], budgets: Sequence[float]) -> NDArray[np.float64]:
    """Return for each budget the share of puzzles that were solved with at most so many tokens.

    Args:
        tokens_at_solution: tokens spent when each puzzle was solved; None for a puzzle that was not.
        budgets: token budgets, in any order.

    Raises:
        ValueError: there are no puzzles.
    """
    if len(tokens_at_solution) == 0:
        raise ValueError("a coverage curve needs at least one puzzle")
    spent = np.sort(np.array([np.inf if tokens is None else tokens for tokens in tokens_at_solution], float))
    return np.searchsorted(spent, np.asarray(budgets, float), side="right") / len(spent)


def format_rate(value: float, signed: bool = False) -> str:
    """Return a fraction the way the tables write it: `.853`, `+.450`, `1.000`."""
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    if float(text) == 0:
        return ".000"
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text


def format_interval(interval: Interval, signed: bool = False) -> str:
    """Return `.853 [.810, .890]`."""
    estimate, low, high = (format_rate(value, signed) for value in interval)
    return f"{estimate} [{low}, {high}]"


def ratio_interval(
    numerators: Sequence[Sequence[float]] | NDArray[np.float64],
    denominators: Sequence[float] | NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """Return sum(numerators) / sum(denominators), such as bits per byte, with its bootstrap interval.

    Seeds and units are resampled independently of each other: every unit (a document) was measured under every seed.
    For the difference of two arms pass the differences of their numerators, unit by unit; what the arms share cancels.

    Args:
        numerators: per seed, one number per unit.
        denominators: one positive number per unit.
        seed: of the resampling.
        resamples: bootstrap resamples.
        confidence: coverage of the interval, between 0 and 1.

    Raises:
        ValueError: nothing to resample, lengths differ, or a setting is out of range.
    """
    _check_settings(resamples, confidence)
    top_SN, bottom_N = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if top_SN.ndim != 2 or not top_SN.size or top_SN.shape[1] != len(bottom_N):
        raise ValueError(f"need one row of {len(bottom_N)} numerators per seed, got shape {top_SN.shape}")
    if (bottom_N <= 0).any():
        raise ValueError("denominators must be positive")
    S, N = top_SN.shape
    generator = np.random.Generator(np.random.PCG64(seed))
    units_RN = generator.multinomial(N, np.full(N, 1 / N), size=resamples)
    seeds_RS = generator.multinomial(S, np.full(S, 1 / S), size=resamples)
    sums_R = ((units_RN @ top_SN.T) * seeds_RS).sum(1) / S
    return _interval(float(top_SN.mean(0).sum() / bottom_N.sum()), sums_R / (units_RN @ bottom_N), confidence)


def _indicators(values: Sequence[bool]) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError("outcomes must be a non-empty list of bools")
    if not np.isin(array, (0, 1)).all():
        raise ValueError("outcomes must be bools (solved or not)")
    return array.astype(np.int64)


def _by_cluster(
    values_NV: NDArray[np.int64], clusters: Sequence[Hashable] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return per cluster the (C, V) sums of the values and the (C,) number of attempts."""
    if clusters is None:
        return values_NV, np.ones(len(values_NV), np.int64)
    if len(clusters) != len(values_NV):
        raise ValueError(f"got {len(clusters)} cluster labels for {len(values_NV)} outcomes")
    places: dict[Hashable, int] = {}
    index_N = np.array([places.setdefault(label, len(places)) for label in clusters])
    sums = np.zeros((len(places), values_NV.shape[1]), np.int64)
    np.add.at(sums, index_N, values_NV)
    return sums, np.bincount(index_N, minlength=len(places))


def _resampled_means(
    sums_CV: NDArray[np.int64], counts_C: NDArray[np.int64], seed: int, resamples: int, confidence: float
) -> NDArray[np.float64]:
    """Return the (resamples, V) mean over attempts in each resample of C clusters with replacement.

    Clusters with equal outcomes are interchangeable, so one multinomial draw over the distinct outcomes
    replaces C single draws: the same distribution, a few columns instead of hundreds, and no trace of the
    clusters' order.
    """
    _check_settings(resamples, confidence)
    kinds, multiplicity = np.unique(np.column_stack([sums_CV, counts_C]), axis=0, return_counts=True)
    generator = np.random.Generator(np.random.PCG64(seed))
    draws = generator.multinomial(len(counts_C), multiplicity / len(counts_C), size=resamples)
    totals = draws @ kinds
    means: NDArray[np.float64] = totals[:, :-1] / totals[:, -1:]
    return means


def _interval(estimate: float, resampled: NDArray[np.float64], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))


def _check_settings(resamples: int, confidence: float) -> None:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
