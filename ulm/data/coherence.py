"""Sentences that follow or do not: pairs to learn coherence from, and tests of it that nothing was trained for.

- A sentence ends with a full stop, question or exclamation mark, which the tokenizers made here keep as tokens of their
  own.
- The false sentence comes from the same document, so that the topic does not give it away (as in CONPONO,
  arXiv:2005.10389).
- The shuffle test swaps blocks of sentences (Laban et al., ACL 2021); who is tested by it must not have learned from
  such pairs, or it says nothing.

Knows no model; tokens in, tokens out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ulm.tokenizer import Tokenizer

Ids = NDArray[np.int64]

SHORTEST = 4
"""Tokens of a sentence that is drawn."""


@dataclass(frozen=True, slots=True)
class Continuations:
    """A context with two sentences, of which one follows it.

    Attributes:
        context: end-of-text first.
        right: the sentence that follows.
        wrong: another one of the same document.
    """

    context: Ids
    right: Ids
    wrong: Ids


@dataclass(frozen=True, slots=True)
class Sentences:
    """Cuts documents into sentences.

    Attributes:
        eot_id: first token of a document.
        end_ids: tokens that end a sentence.
        most: tokens of context and sentence together.
    """

    eot_id: int
    end_ids: tuple[int, ...]
    most: int = 128

    @classmethod
    def of(cls, tokenizer: Tokenizer, most: int = 128) -> Self:
        """Return what cuts texts of a tokenizer.

        Raises:
            ValueError: it has no mark that ends a sentence.
        """
        ends = [i for i, text in enumerate(tokenizer.token_texts) if text.strip() in (".", "!", "?")]
        if not ends:
            raise ValueError("coherence needs a tokenizer with a token for '.'; train one on texts with sentences")
        return cls(tokenizer.eot_id, tuple(ends), most)

    def cut(self, document: Ids) -> list[Ids]:
        """Return the sentences of a document; what follows the last end mark belongs to none."""
        body = document[1:] if len(document) and document[0] == self.eot_id else document
        ends = np.flatnonzero(np.isin(body, self.end_ids)) + 1
        return [part for part in np.split(body, ends)[:-1] if len(part)]

    def continuations(self, generator: np.random.Generator, document: Ids) -> Continuations | None:
        """Draw a context of a document with its next sentence and another one; None where it is too short."""
        sentences = self.cut(document)
        usable = [n for n, sentence in enumerate(sentences) if SHORTEST <= len(sentence) <= self.most // 3]
        following = [n for n in usable if n > 0]
        if len(sentences) < 4 or not following:
            return None
        right = int(generator.choice(following))
        wrong = [
            n for n in usable if n not in (right - 1, right) and not np.array_equal(sentences[n], sentences[right])
        ]
        if not wrong:
            return None
        before = np.concatenate(sentences[:right])
        room = self.most - 1 - self.most // 3
        context = np.append([self.eot_id], before[-room:])
        return Continuations(context, sentences[right], sentences[int(generator.choice(wrong))])

    def shuffled(self, generator: np.random.Generator, document: Ids, block: int) -> tuple[Ids, Ids] | None:
        """Return a text of at most `most` tokens and the same with its blocks of sentences in another order.

        Args:
            generator: of everything that is random.
            document: at least two blocks.
            block: sentences of a block.

        Returns:
            None where the document has fewer than two different blocks.
        """
        sentences, length = [], 1
        for sentence in self.cut(document):
            if (length := length + len(sentence)) > self.most:
                break
            sentences.append(sentence)
        blocks = [np.concatenate(sentences[n : n + block]) for n in range(0, len(sentences), block)]
        whole = np.concatenate([[self.eot_id], *blocks]) if blocks else np.array([self.eot_id])
        for _ in range(20):
            order = generator.permutation(len(blocks))
            other = np.concatenate([[self.eot_id], *(blocks[n] for n in order)]) if blocks else whole
            if not np.array_equal(whole, other):
                return whole, other
        return None
