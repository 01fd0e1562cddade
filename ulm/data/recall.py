"""Long-range recall: fresh random key-value pairs in every sequence, each asked for again at a chosen distance.

In the style of multi-query associative recall (MQAR; Arora et al., arXiv:2312.04927): nothing can be learned by heart,
because pairs are drawn anew; what is right can only be known from the sequence itself. Pairs stand apart, with filler
between them, so that an arm which writes as many tokens, but any, rarely holds one.

Owns the sequences, their seeds and what counts as recalled; knows no model.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ulm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class RecallSequence:
    """One sequence.

    Attributes:
        ids: end-of-text, then pairs, queries and filler, int64.
        asked: positions of the queried keys; what follows each is its value.
    """

    ids: NDArray[np.int64]
    asked: NDArray[np.int64]


def fits(distance: int, num_pairs: int, spacing: int) -> bool:
    """Return whether no query falls on a pair at this distance."""
    return distance >= num_pairs * spacing or 2 <= distance % spacing <= spacing - 2


@dataclass(frozen=True, slots=True)
class RecallTask:
    """Draws sequences.

    Attributes:
        key_ids, value_ids: tokens that serve as keys and as values; no token is both.
        filler: tokens that are repeated between pairs, for quiet sequences.
        eot_id: first token of a sequence.
        num_pairs: pairs of a sequence.
        spacing: tokens from one pair to the next.
    """

    key_ids: NDArray[np.int64]
    value_ids: NDArray[np.int64]
    filler: NDArray[np.int64]
    eot_id: int
    num_pairs: int = 8
    spacing: int = 72

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        filler: str,
        *,
        num_keys: int = 256,
        num_values: int = 256,
        num_pairs: int = 8,
        spacing: int = 72,
        seed: int = 0,
    ) -> Self:
        """Choose keys and values among a tokenizer's tokens.

        Raises:
            ValueError: too few tokens, or more pairs than keys.
        """
        words = tokenizer.encode(filler)
        if not words:
            raise ValueError("recall: the filler has no tokens; give a sentence")
        taken = {tokenizer.pad_id, tokenizer.eot_id, *range(3), *words}
        free = np.array([i for i in range(tokenizer.vocab_size) if i not in taken], dtype=np.int64)
        if len(free) < num_keys + num_values:
            raise ValueError(
                f"recall: {num_keys} keys and {num_values} values need as many tokens, the tokenizer has {len(free)}"
            )
        if num_pairs > num_keys:
            raise ValueError(f"recall: {num_pairs} pairs need as many different keys, there are {num_keys}")
        chosen = np.random.Generator(np.random.PCG64(seed)).permutation(free)
        keys, values, _ = np.split(chosen, [num_keys, num_keys + num_values])
        return cls(keys, values, np.array(words, dtype=np.int64), tokenizer.eot_id, num_pairs, spacing)

    def length(self, distance: int) -> int:
        """Return the tokens of a sequence, end-of-text included."""
        return 2 + self.num_pairs * self.spacing + distance

    def sequence(
        self, distance: int, generator: np.random.Generator, text: NDArray[np.int64] | None = None
    ) -> RecallSequence:
        """Draw a sequence.

        Args:
            distance: tokens from each pair to its query.
            generator: of everything that is random.
            text: filler of at least `length(distance)` tokens in place of the quiet one.

        Raises:
            ValueError: queries would fall on pairs, or the text is too short.
        """
        if not fits(distance, self.num_pairs, self.spacing):
            raise ValueError(
                f"recall: at distance {distance} queries fall on pairs that stand {self.spacing} apart; choose another"
            )
        ids = self._filled(self.length(distance), text)
        at = self.spacing * np.arange(1, self.num_pairs + 1)
        keys = generator.choice(self.key_ids, self.num_pairs, replace=False)
        values = generator.choice(self.value_ids, self.num_pairs)
        for place in (at, at + distance):
            ids[place], ids[place + 1] = keys, values
        return RecallSequence(ids, at + distance)

    def practice(
        self, generator: np.random.Generator, length: int, text: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Draw a sequence to learn from: pairs and queries of earlier pairs at random places, densely or not.

        It looks nothing like the sequences that are scored: no fixed distances, any number of pairs, queries repeated.

        Args:
            generator: of everything that is random.
            length: tokens, end-of-text included.
            text: filler of at least `length` tokens in place of the quiet one.

        Raises:
            ValueError: the text is too short.
        """
        ids = self._filled(length, text)
        gap = float(np.exp(generator.uniform(np.log(3), np.log(self.spacing))))
        keys = iter(generator.permutation(self.key_ids))
        told: list[tuple[int, int]] = []
        place = 1 + int(generator.exponential(gap))
        while place + 2 <= length:
            if told and generator.random() < 0.5:
                pair = told[int(generator.integers(len(told)))]
            elif (key := next(keys, None)) is not None:
                pair = (int(key), int(generator.choice(self.value_ids)))
                told.append(pair)
            else:
                break
            ids[place : place + 2] = pair
            place += 2 + int(generator.exponential(gap))
        return ids

    def _filled(self, length: int, text: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Return a sequence of end-of-text and filler alone."""
        ids = np.resize(self.filler, length) if text is None else np.array(text[:length], np.int64)
        if len(ids) < length:
            raise ValueError(f"recall: {length} tokens of text are needed as filler, got {len(ids)}")
        ids[0] = self.eot_id
        return ids
