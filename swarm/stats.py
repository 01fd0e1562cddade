"""Intervals and differences for solve rates: what a comparison may claim, and how surely.

Owns the cluster bootstrap (Efron 1979, "Bootstrap Methods: Another Look at the Jackknife"; percentile
intervals), its paired form, non-inferiority and coverage over budget. The unit that is resampled is the
puzzle (the cluster): all attempts of one puzzle, under every seed and in both arms, enter or leave a
resample together, so a hard puzzle that two arms share never counts as evidence for either. It refuses to
know journals, arms and files: numbers in, numbers out, and every draw comes from the seed that is passed
in.
"""

from collections.abc import Hashable, Sequence, Sized
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
    found = _bootstrap(values, clusters, seed, resamples, confidence)
    if found.estimate in (0.0, 1.0):
        unseen = _unseen(values, clusters, confidence)
        return Interval(0.0, 0.0, unseen) if found.estimate == 0.0 else Interval(1.0, 1 - unseen, 1.0)
    return found


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
    return _bootstrap(values_a - values_b, clusters, seed, resamples, confidence)


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
        estimate, unseen = difference.estimate, _unseen(a, clusters, confidence)
        difference = Interval(estimate, max(-1.0, estimate - unseen), min(1.0, estimate + unseen))
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
    return ".000" if float(text) == 0 else text.replace("0.", ".", 1) if abs(float(text)) < 1 else text


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


def _unseen(values: Sized, clusters: Sequence[Hashable] | None, confidence: float) -> float:
    """Return what share of the puzzles not seen may differ, where all that were seen agree (exact binomial bound)."""
    num_clusters = len(values) if clusters is None else len(set(clusters))
    return float(1 - ((1 - confidence) / 2) ** (1 / num_clusters))


def _bootstrap(
    values_N: NDArray[np.int64],
    clusters: Sequence[Hashable] | None,
    seed: int,
    resamples: int,
    confidence: float,
) -> Interval:
    """Return the mean over attempts with its interval over resamples of the C clusters with replacement.

    Clusters with equal outcomes are interchangeable, so one multinomial draw over the distinct outcomes
    replaces C single draws: the same distribution, a few columns instead of hundreds, and no trace of the
    clusters' order.
    """
    _check_settings(resamples, confidence)
    labels = range(len(values_N)) if clusters is None else clusters
    if len(labels) != len(values_N):
        raise ValueError(f"got {len(labels)} cluster labels for {len(values_N)} outcomes")
    places: dict[Hashable, int] = {}
    index_N = [places.setdefault(label, len(places)) for label in labels]
    sums_C = np.zeros(len(places), np.int64)
    np.add.at(sums_C, index_N, values_N)
    kinds, multiplicity = np.unique(np.column_stack([sums_C, np.bincount(index_N)]), axis=0, return_counts=True)
    generator = np.random.Generator(np.random.PCG64(seed))
    totals = generator.multinomial(len(places), multiplicity / len(places), size=resamples) @ kinds
    return _interval(float(values_N.mean()), totals[:, 0] / totals[:, 1], confidence)


def _interval(estimate: float, resampled: NDArray[np.float64], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))


def _check_settings(resamples: int, confidence: float) -> None:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
