"""Content memory: which stored fact a text means, though it says it in other words; or none.

- A text and a key are compared in seven ways (`ulm.engram.content_index`): the cosine of their features, which says
  whether the same is asked, and rare words that they share or do not, which say whether it is asked about the same.
- Features are first projected. The projection is fitted on groups of texts that ask the same: whitened first, then
  turned so that groups lie far apart in units of their own spread (linear discriminant analysis, Fisher 1936, with
  shrinkage of the spread within groups as of Ledoit & Wolf 2004 but by a fixed share).
- A logistic regression over the seven (`Judge`) learns what they say of whether text and key mean the same.
- Below a threshold it abstains. The threshold is calibrated on texts that no fact answers.
- Where the features come from is not known here.

Axes: N texts or pairs of them, F features, E numbers after the projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SHRINKAGE = 0.2
"""Share of an even spread that is mixed into the spread within groups."""

SEEN = 0.5
"""Expected queries above a threshold from which on the sample itself says where it is."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear map of features.

    Attributes:
        mean_F, map_FE: what is taken off, and what the rest is multiplied with.
    """

    mean_F: Floats
    map_FE: Floats

    @classmethod
    def fit(cls, features_NF: Floats, groups: Sequence[object]) -> Projection:
        """Fit to texts of which those of the same group mean the same.

        Args:
            features_NF: of the texts.
            groups: of each text.

        Raises:
            ValueError: there are fewer than two groups, or none has two texts.
        """
        names, group_N = np.unique(np.array([repr(group) for group in groups]), return_inverse=True)
        counts = np.bincount(group_N)
        if len(names) < 2 or counts.max() < 2:
            raise ValueError("at least two groups are needed, and one of them with two texts that mean the same")
        x = features_NF.astype(np.float64)
        mean_F = x.mean(0)
        whiten_FF = _whitening(np.cov((x - mean_F).T), 1e-4)
        x = (x - mean_F) @ whiten_FF
        centres = np.stack([x[group_N == g].mean(0) for g in range(len(names))])
        within = np.cov((x - centres[group_N]).T)
        even = np.eye(len(within)) * np.trace(within) / len(within)
        spread_FF = _whitening((1 - SHRINKAGE) * within + SHRINKAGE * even, 0.0)
        values, vectors = np.linalg.eigh(np.cov((centres @ spread_FF).T))
        axes_FE = vectors[:, np.argsort(values)[::-1][: len(names) - 1]]  # no more tell the groups apart
        return cls(mean_F.astype(np.float32), (whiten_FF @ spread_FF @ axes_FE).astype(np.float32))

    def __call__(self, features_NF: Floats) -> Floats:
        """Return unit vectors, (N, E)."""
        x = (features_NF.astype(np.float32) - self.mean_F) @ self.map_FE
        return cast("Floats", x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


def _whitening(covariance: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """Return a map after which the covariance is even."""
    values, vectors = np.linalg.eigh(covariance)
    floor = max(float(values.max()) * 1e-10, 1e-12) + ridge * float(values.mean())
    return cast("NDArray[np.float64]", vectors / np.sqrt(np.maximum(values, 0.0) + floor))


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
    def fit(cls, features_NF: Floats, same_N: NDArray[np.bool_], *, decay: float = 1e-2) -> Judge:
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
    beyond = float(level + (falling_N[:tail] - level).mean() * np.log(tail / expected))
    return max(beyond, float(falling_N[0]))
