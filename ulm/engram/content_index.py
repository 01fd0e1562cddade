"""What texts are compared with: vectors and words of stored keys, and the few keys that come into question.

- Words that few keys have count more (inverse document frequency, Sparck Jones 1972), in units of a word that one key
  alone has. A key's rare words are those that say whom or what it is about.
- A text is compared with the keys that are nearest by cosine and with those of whose words it has most.
- Which of them it means is decided elsewhere (`ulm.engram.content.Judge`).

Axes: N facts, E numbers of a vector, F ways to compare, W words.
"""

import re
import unicodedata
from dataclasses import dataclass

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
class _Words:
    """Words of all keys: their numbers, weights and places, and the sum of the weights of each key."""

    number: dict[str, int]
    weight_W: NDArray[np.float64]
    rows: list[NDArray[np.int64]]
    mass_N: NDArray[np.float64]
    unknown: float


class ContentIndex:
    """Vectors and words of facts' keys.

    Args:
        size: numbers per vector.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._row_of: dict[int, int] = {}
        self._facts: list[int] = []
        self._texts: list[frozenset[str]] = []
        self._vectors_NE = np.zeros((64, size), dtype=np.float32)
        self._words: _Words | None = None

    def __len__(self) -> int:
        return len(self._facts)

    def add(self, fact: int, vector_E: Floats, words: frozenset[str]) -> None:
        """Add a fact by its number, or give it another vector and other words."""
        self._words = None
        row = self._row_of.setdefault(fact, len(self._facts))
        if row == len(self._facts):
            self._facts.append(fact)
            self._texts.append(words)
            if row == len(self._vectors_NE):
                self._vectors_NE = np.concatenate((self._vectors_NE, np.zeros_like(self._vectors_NE)))
        self._texts[row] = words
        self._vectors_NE[row] = vector_E

    def remove(self, fact: int) -> None:
        """Take a fact out; an unknown one is left."""
        row = self._row_of.pop(fact, None)
        if row is None:
            return
        self._words = None
        last, words = self._facts.pop(), self._texts.pop()
        if last != fact:
            self._facts[row], self._texts[row], self._row_of[last] = last, words, row
            self._vectors_NE[row] = self._vectors_NE[len(self._facts)]

    def vector(self, fact: int) -> Floats:
        """Return the vector of a fact, (E,)."""
        found: Floats = self._vectors_NE[self._row_of[fact]]
        return found

    def compare(self, vector_E: Floats, words: frozenset[str]) -> tuple[NDArray[np.int64], Floats]:
        """Return the facts that come into question for a text, and how their keys compare with it, (N, F)."""
        if not self._facts:
            return np.zeros(0, dtype=np.int64), np.zeros((0, len(COMPARED)), dtype=np.float32)
        known = self._words = self._words or self._weighed()
        there = {known.number[word] for word in words if word in known.number}
        shared_N = np.zeros(len(self._facts))
        for word in sorted(there):
            shared_N[known.rows[word]] += known.weight_W[word]
        share_N = shared_N / np.maximum(known.mass_N, 1e-12)
        cosine_N = self._vectors_NE[: len(self._facts)] @ vector_E
        asked = sum(known.weight_W[word] for word in there) + known.unknown * (len(words) - len(there))
        unknown = min(len(words) - len(there), 3)
        rows = sorted({int(i) for found in (share_N, cosine_N) for i in np.argsort(-found, kind="stable")[:NEAREST]})
        compared = np.zeros((len(rows), len(COMPARED)), dtype=np.float32)
        for place, row in enumerate(rows):
            own = {known.number[word] for word in self._texts[row]}
            rarest = [
                max((known.weight_W[w] for w in some), default=0.0) for some in (own - there, own & there, there - own)
            ]
            compared[place] = (cosine_N[row], share_N[row], shared_N[row] / max(asked, 1e-12), *rarest, unknown)
        return np.array([self._facts[row] for row in rows], dtype=np.int64), compared

    def _weighed(self) -> _Words:
        N = len(self._facts)
        number: dict[str, int] = {}
        row_of, word_of = [], []
        for row, words in enumerate(self._texts):
            for word in sorted(words):
                row_of.append(row)
                word_of.append(number.setdefault(word, len(number)))
        rows, ids = np.array(row_of, dtype=np.int64), np.array(word_of, dtype=np.int64)
        counts_W = np.bincount(ids, minlength=len(number))
        weight_W: NDArray[np.float64] = np.log((N + 1) / (counts_W + 0.5)) / np.log(N + 1)
        places = np.split(rows[np.argsort(ids, kind="stable")], np.cumsum(counts_W)[:-1]) if len(number) else []
        mass_N = np.bincount(rows, weights=weight_W[ids], minlength=N).astype(np.float64)
        return _Words(number, weight_W, places, mass_N, float(np.log((N + 1) / 0.5) / np.log(N + 1)))
