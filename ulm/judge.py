"""Is it the same? A logistic regression over ways to compare two things, and a threshold below which it abstains.

Axes: N pairs, F ways to compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SEEN = 0.5
"""Expected queries above a threshold from which on the sample itself says where it is."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Logistic regression: how likely is it that two texts mean the same?

    Attributes:
        mean_F, scale_F: what features are taken relative to, and divided by.
        weight_F, bias: of the log odds.
    """

    mean_F: Floats
    scale_F: Floats
    weight_F: Floats
    bias: float

    @classmethod
    def fit(cls, features_NF: Floats, same_N: NDArray[np.bool_], *, decay: float = 1e-2) -> Self:
        """Fit by Newton's method; pairs that mean the same and pairs that do not count alike, whatever their numbers.

        Raises:
            ValueError: there are no pairs of one kind.
        """
        if not same_N.any() or same_N.all():
            raise ValueError("pairs that mean the same and pairs that do not are needed to learn what tells them apart")
        x = features_NF.astype(np.float64)
        mean_F, scale_F = x.mean(0), x.std(0) + 1e-6
        line = np.c_[(x - mean_F) / scale_F, np.ones(len(x))]
        share = np.where(same_N, 0.5 / same_N.sum(), 0.5 / (~same_N).sum())
        penalty = np.r_[np.full(x.shape[1], decay), 1e-9]
        weight = np.zeros(line.shape[1])
        for _ in range(50):
            odds = np.exp(-np.logaddexp(0.0, -line @ weight))
            slope = line.T @ (share * (odds - same_N)) + penalty * weight
            curve = (line * (share * odds * (1 - odds))[:, None]).T @ line + np.diag(penalty)
            change = np.linalg.solve(curve, slope)
            weight -= change
            if np.abs(change).max() < 1e-9:
                break
        return cls(
            mean_F.astype(np.float32), scale_F.astype(np.float32), weight[:-1].astype(np.float32), float(weight[-1])
        )

    def __call__(self, features_NF: Floats) -> Floats:
        """Return log odds, (N,)."""
        return ((features_NF - self.mean_F) / self.scale_F @ self.weight_F + self.bias).astype(np.float32)


def calibrated(score_N: Floats, abstain: float) -> float:
    """Return the threshold at which a share of queries that no fact answers is left unanswered.

    Where so few queries cannot show so rare an error, the tail of their scores is carried on: what exceeds a high level
    is taken to be exponential, as the largest of many are (peaks over threshold, Pickands 1975).

    Args:
        score_N: of each such query, that of the best fact.
        abstain: that share, in (0, 1).

    Raises:
        ValueError: fewer than 20 queries, which would calibrate nothing.
    """
    N = len(score_N)
    if N < 20:
        raise ValueError(f"at least 20 unanswerable texts are needed to calibrate a threshold, got {N}")
    expected = (1.0 - abstain) * N  # queries above the threshold
    if expected >= SEEN:
        return float(np.quantile(score_N, abstain, method="higher"))
    falling_N = np.sort(score_N.astype(np.float64))[::-1]
    tail = max(10, N // 10)
    level = falling_N[tail]
    if not np.isfinite(level):  # hardly any was compared with a fact at all
        return float(falling_N[0])
    return max(float(level + (falling_N[:tail] - level).mean() * np.log(tail / expected)), float(falling_N[0]))
