"""Content memory: which stored fact a text means, though it says it in other words; or none.

- Texts are compared by the cosine of their features after a linear projection. It is fitted on groups of texts that
  mean the same: whitened first, then turned so that groups lie far apart in units of their own spread (linear
  discriminant analysis, Fisher 1936, with shrinkage of the spread within groups as of Ledoit & Wolf 2004 but by a
  fixed share).
- Below a threshold it abstains. The threshold is calibrated on texts that no fact answers.
- Where the features come from is not known here.

Axes: N texts, F features, E numbers after the projection, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ABSTAIN", "ContentIndex", "Projection", "calibrated"]

ABSTAIN = -1
"""In place of a fact, where none is meant."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear map of features.

    Attributes:
        mean_F, map_FE: what is taken off, and what the rest is multiplied with.
    """

    mean_F: Floats
    map_FE: Floats

    @classmethod
    def fit(
        cls, features_NF: Floats, groups: Sequence[object], *, size: int | None = None, shrinkage: float = 0.2
    ) -> Projection:
        """Fit to texts of which those of the same group mean the same.

        Args:
            features_NF: of the texts.
            groups: of each text.
            size: at most so many numbers remain; None keeps all that tell groups apart.
            shrinkage: share of an even spread that is mixed into the spread within groups, in (0, 1].

        Raises:
            ValueError: there are fewer than two groups, or none has two texts.
        """
        names, group_N = np.unique(np.array([repr(group) for group in groups]), return_inverse=True)
        counts = np.bincount(group_N)
        if len(names) < 2 or counts.max() < 2:
            raise ValueError("at least two groups are needed, and one of them with two texts that mean the same")
        if not 0.0 < shrinkage <= 1.0:
            raise ValueError(f"shrinkage must be in (0, 1], got {shrinkage}")
        x = features_NF.astype(np.float64)
        mean_F = x.mean(0)
        whiten_FF = _whitening(np.cov((x - mean_F).T), 1e-4)
        x = (x - mean_F) @ whiten_FF
        centres = np.stack([x[group_N == g].mean(0) for g in range(len(names))])
        within = np.cov((x - centres[group_N]).T)
        even = np.eye(len(within)) * np.trace(within) / len(within)
        spread_FF = _whitening((1 - shrinkage) * within + shrinkage * even, 0.0)
        values, vectors = np.linalg.eigh(np.cov((centres @ spread_FF).T))
        kept = min(len(names) - 1, len(values), size or len(values))
        axes_FE = vectors[:, np.argsort(values)[::-1][:kept]]
        return cls(mean_F.astype(np.float32), (whiten_FF @ spread_FF @ axes_FE).astype(np.float32))

    def __call__(self, features_NF: Floats) -> Floats:
        """Return unit vectors, (N, E)."""
        x = (features_NF.astype(np.float32) - self.mean_F) @ self.map_FE
        unit: Floats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return unit


def _whitening(covariance: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """Return a map after which the covariance is even."""
    values, vectors = np.linalg.eigh(covariance)
    floor = max(float(values.max()) * 1e-10, 1e-12) + ridge * float(values.mean())
    whitening: NDArray[np.float64] = vectors / np.sqrt(np.maximum(values, 0.0) + floor)
    return whitening


def calibrated(similarity_N: Floats, abstain: float) -> float:
    """Return the threshold at which a share of queries that no fact answers is left unanswered.

    Args:
        similarity_N: of each such query to the nearest fact.
        abstain: that share, in (0, 1).

    Raises:
        ValueError: fewer than 20 queries, which would calibrate nothing.
    """
    if len(similarity_N) < 20:
        raise ValueError(f"at least 20 unanswerable texts are needed to calibrate a threshold, got {len(similarity_N)}")
    return float(np.quantile(similarity_N, abstain, method="higher"))


class ContentIndex:
    """Vectors of facts.

    Args:
        size: numbers per vector.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._row_of: dict[int, int] = {}
        self._facts: list[int] = []
        self._vectors_NE = np.zeros((64, size), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._facts)

    def add(self, fact: int, vector_E: Floats) -> None:
        """Add a fact by its number, or give it another vector."""
        row = self._row_of.setdefault(fact, len(self._facts))
        if row == len(self._facts):
            self._facts.append(fact)
            if row == len(self._vectors_NE):
                self._vectors_NE = np.concatenate((self._vectors_NE, np.zeros_like(self._vectors_NE)))
        self._vectors_NE[row] = vector_E

    def remove(self, fact: int) -> None:
        """Take a fact out; an unknown one is left."""
        row = self._row_of.pop(fact, None)
        if row is None:
            return
        last = self._facts.pop()
        if last != fact:
            self._facts[row], self._row_of[last] = last, row
            self._vectors_NE[row] = self._vectors_NE[len(self._facts)]

    def vector(self, fact: int) -> Floats:
        """Return the vector of a fact, (E,)."""
        found: Floats = self._vectors_NE[self._row_of[fact]]
        return found

    def nearest(self, queries_QE: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Return the nearest fact of each query and its cosine; `ABSTAIN` and -1 where there are no facts."""
        if not self._facts:
            count = len(queries_QE)
            return np.full(count, ABSTAIN, dtype=np.int64), np.full(count, -1.0, dtype=np.float32)
        cosine_QN = queries_QE @ self._vectors_NE[: len(self._facts)].T
        row_Q = cosine_QN.argmax(1)
        return np.array(self._facts, dtype=np.int64)[row_Q], cosine_QN[np.arange(len(row_Q)), row_Q]

    def search(self, queries_QE: Floats, threshold: float) -> tuple[NDArray[np.int64], Floats]:
        """Return what each query means, `ABSTAIN` where the nearest is not above the threshold, and cosines."""
        fact_Q, cosine_Q = self.nearest(queries_QE)
        return np.where(cosine_Q > threshold, fact_Q, ABSTAIN), cosine_Q
