"""What texts are compared with: vectors and words of stored keys, and the few keys that come into question.

- Words that few keys have count more (inverse document frequency, Sparck Jones 1972), in units of a word that one key
  alone has. A key's rare words are those that say whom or what it is about.
- A text is compared with the keys that are nearest by cosine and with those of whose words it has most.
- Which of them it means is decided elsewhere (`ulm.engram.content.Judge`).

Axes: N facts, E numbers of a vector, F ways to compare, W words.
"""

import re
import unicodedata
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

Floats = NDArray[np.float32]


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

    def __len__(self) -> int:
        return len(self._kept)

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
