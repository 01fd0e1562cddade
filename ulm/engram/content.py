"""Content memory: which stored fact a text means, though it says it in other words; or none.

- A text is compared with the keys that are nearest by cosine and with those of whose words it has most, in seven ways:
  the cosine of their features, which says whether the same is asked, and rare words that they share or do not, which
  say whether it is asked about the same. Words that few keys have count more (inverse document frequency, Sparck Jones
  1972), in units of a word that one key alone has.
- Features are first projected. The projection is fitted on groups of texts that ask the same: whitened first, then
  turned so that groups lie far apart in units of their own spread (linear discriminant analysis, Fisher 1936, with
  shrinkage of the spread within groups as of Ledoit & Wolf 2004 but by a fixed share).
- A logistic regression over the seven (`Judge`) learns what they say of whether text and key mean the same.
- Below a threshold it abstains. The threshold is calibrated on texts that no fact answers.
- Where the features come from is not known here.

Axes: N texts, facts or pairs of them, F features or ways to compare, E numbers after the projection, W words.
"""

import re
import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from ulm.judge import Floats

COMPARED = (
    "cosine",
    "share of the key's words that the text has",
    "share of the text's words that the key has",
    "rarest word of the key that the text lacks",
    "rarest word that both have",
    "rarest known word of the text that the key lacks",
    "words of the text that no key has, at most 3",
)
"""In what ways a text and a key are compared."""

NEAREST = 12
"""Keys that come into question, by cosine and by words each."""

SHRINKAGE = 0.2
"""Share of an even spread that is mixed into the spread within groups."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear map of features.

    Attributes:
        mean_F, map_FE: what is taken off, and what the rest is multiplied with.
    """

    mean_F: Floats
    map_FE: Floats

    @classmethod
    def fit(cls, features_NF: Floats, groups: Sequence[object]) -> Self:
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


def words_of(text: str) -> frozenset[str]:
    """Return the words and numbers of a text, without case and accents."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return frozenset(re.findall(r"\w+", plain.casefold()))


@dataclass(frozen=True, slots=True)
class _Keys:
    """All keys at once: vectors; and of words their numbers, weights and places, and the sum of weights of each key."""

    vectors_NE: Floats
    words: tuple[frozenset[str], ...]
    number: dict[str, int]
    weight_W: NDArray[np.float64]
    rows: list[NDArray[np.int64]]
    mass_N: NDArray[np.float64]
    unknown: float


class ContentIndex:
    """Vectors and words of facts' keys. A fact is named by anything that can be hashed."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Floats, frozenset[str]]] = {}
        self._keys: _Keys | None = None

    def add(self, fact: Hashable, vector_E: Floats, words: frozenset[str]) -> None:
        """Add a fact, or give it another vector and other words."""
        self._kept[fact], self._keys = (vector_E, words), None

    def remove(self, fact: Hashable) -> None:
        """Take a fact out; an unknown one is left."""
        self._kept.pop(fact, None)
        self._keys = None

    def vector(self, fact: Hashable) -> Floats:
        """Return the vector of a fact, (E,)."""
        return self._kept[fact][0]

    def compare(self, vector_E: Floats, words: frozenset[str]) -> tuple[list[Any], Floats]:
        """Return the facts that come into question for a text, and how their keys compare with it, (N, F)."""
        if not self._kept:
            return [], np.zeros((0, len(COMPARED)), dtype=np.float32)
        keys = self._keys = self._keys or self._weighed()
        there = {keys.number[word] for word in words if word in keys.number}
        shared_N = np.zeros(len(self._kept))
        for word in sorted(there):
            shared_N[keys.rows[word]] += keys.weight_W[word]
        share_N = shared_N / np.maximum(keys.mass_N, 1e-12)
        cosine_N = keys.vectors_NE @ vector_E
        asked = sum(keys.weight_W[word] for word in there) + keys.unknown * (len(words) - len(there))
        rows = sorted({int(i) for found in (share_N, cosine_N) for i in np.argsort(-found, kind="stable")[:NEAREST]})
        compared = np.zeros((len(rows), len(COMPARED)), dtype=np.float32)
        for place, row in enumerate(rows):
            own = {keys.number[word] for word in keys.words[row]}
            rarest = [
                max((keys.weight_W[w] for w in some), default=0.0) for some in (own - there, own & there, there - own)
            ]
            unknown = min(len(words) - len(there), 3)
            compared[place] = (cosine_N[row], share_N[row], shared_N[row] / max(asked, 1e-12), *rarest, unknown)
        facts = list(self._kept)
        return [facts[row] for row in rows], compared

    def _weighed(self) -> _Keys:
        N, (vectors, texts) = len(self._kept), zip(*self._kept.values(), strict=True)
        number: dict[str, int] = {}
        placed = [
            (row, number.setdefault(word, len(number))) for row, words in enumerate(texts) for word in sorted(words)
        ]
        rows, ids = np.array(placed, dtype=np.int64).reshape(-1, 2).T
        counts_W = np.bincount(ids, minlength=len(number))
        weight_W: NDArray[np.float64] = np.log((N + 1) / (counts_W + 0.5)) / np.log(N + 1)
        places = np.split(rows[np.argsort(ids, kind="stable")], np.cumsum(counts_W)[:-1]) if len(number) else []
        mass_N = np.bincount(rows, weights=weight_W[ids], minlength=N).astype(np.float64)
        unknown = float(np.log((N + 1) / 0.5) / np.log(N + 1))
        return _Keys(np.stack(vectors), texts, number, weight_W, places, mass_N, unknown)
