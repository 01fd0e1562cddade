"""Infilling: text with holes, and what belongs into them, in an order that a causal decoder can learn.

- Spans are cut out and moved behind the text, each after the mark of its hole (Bavarian et al., arXiv:2207.14255): the
  network stays causal, and one set of weights continues text and fills holes.
- Within the window both sides are read before the span. In far infilling they are read in a text of their own, after
  which the window is emptied: they reach the span through the long-term memory alone. In far recall that text has no
  hole, so what is asked for was seen.
- A span that follows its prefix directly (`suffix first`) is continued as any text is; what the other side adds is all
  that has to be learned.
- Holes stand between tokens of the whole text, so that no piece of a word tells where it was cut.
- Marks that nothing can predict have no weight in the loss; the mark of the end has more, or it is hardly ever written.

Knows no model; tokens in, tokens out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ulm.data.document_stream import Source
from ulm.tokenizer import Tokenizer

HOLES = 3
MARKS = (*(f"<hole {number}>" for number in range(1, HOLES + 1)), "<fill>", "<filled>")
"""Special tokens that a tokenizer needs for infilling."""

END_WEIGHT = 5.0
"""Of the end mark in the loss."""

CUE = 8
"""Tokens before a hole that are said again where a far text asks for it."""

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cut:
    """A passage with holes.

    Attributes:
        sides: what stands before, between and after the holes, one more than there are holes.
        spans: what was cut out.
    """

    sides: list[Ids]
    spans: list[Ids]


@dataclass(frozen=True, slots=True)
class InfillTask:
    """Draws holes.

    Attributes:
        eot_id, fill_id, end_id: first token of a text; what stands before the spans; what ends each.
        hole_ids: marks of the holes.
        mean: tokens of a span, on average; lengths are geometric.
        long_share: share of spans that are long, as whole sentences are: 8 to 20 tokens.
        hidden: share of a passage that is cut out at most.
    """

    eot_id: int
    fill_id: int
    end_id: int
    hole_ids: tuple[int, ...]
    mean: float = 3.0
    long_share: float = 0.2
    hidden: float = 0.25

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """Return the task for a tokenizer.

        Raises:
            ValueError: it has no marks.
        """
        found = [tokenizer.inner.token_to_id(mark) for mark in MARKS]
        ids = [number for number in found if number is not None]
        if len(ids) < len(MARKS):
            raise ValueError(f"infilling needs a tokenizer with the special tokens {', '.join(MARKS)}; train one")
        return cls(tokenizer.eot_id, ids[HOLES], ids[HOLES + 1], tuple(ids[:HOLES]))

    def weights(self, vocab_size: int) -> NDArray[np.float32]:
        """Return the weight of every token as a label, (V,)."""
        weights = np.ones(vocab_size, np.float32)
        weights[[self.fill_id, *self.hole_ids]] = 0.0
        weights[self.end_id] = END_WEIGHT
        return weights

    def cut(self, generator: np.random.Generator, passage: Ids, holes: int = 1) -> Cut:
        """Cut spans out of a passage, none at its very beginning.

        Args:
            generator: of everything that is random.
            passage: at least 8 tokens.
            holes: how many are wanted; there are fewer if the passage is too short for them.

        Raises:
            ValueError: the passage is too short.
        """
        if len(passage) < 8:
            raise ValueError(
                f"infill: a passage of {len(passage)} tokens is too short for a hole; at least 8 are needed"
            )
        most = max(1, int(self.hidden * len(passage)))
        lengths: list[int] = []
        for _ in range(holes):
            long = generator.random() < self.long_share
            length = int(generator.integers(8, 21)) if long else int(generator.geometric(1 / self.mean))
            if sum(lengths) + (length := min(length, most)) <= most:
                lengths.append(length)
        free = len(passage) - sum(lengths) - len(lengths)
        # Where the holes lie among what is left, at least a token apart.
        starts = np.sort(generator.choice(free, len(lengths), replace=False)) + 1
        sides, spans, at = [], [], 0
        for number, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            begin = int(start) + number + sum(lengths[:number])
            sides.append(passage[at:begin])
            spans.append(passage[begin : begin + length])
            at = begin + length
        return Cut([*sides, passage[at:]], spans)

    def window(self, cut: Cut, *, suffix_first: bool = False) -> Ids:
        """Return one text: the passage with holes, then what belongs into them.

        Args:
            cut: of a passage that fits the window together with its marks.
            suffix_first: for one hole: what follows it comes first, and the span follows its prefix.
        """
        if suffix_first:
            (before, after), (span,) = cut.sides, cut.spans
            hole = self.hole_ids[0]
            return self._joined(self.eot_id, hole, after, self.fill_id, hole, before, span, self.end_id)
        parts: list[int | Ids] = [self.eot_id, cut.sides[0]]
        for hole, side in zip(self.hole_ids, cut.sides[1:], strict=False):
            parts += [hole, side]
        parts.append(self.fill_id)
        for hole, span in zip(self.hole_ids, cut.spans, strict=False):
            parts += [hole, span, self.end_id]
        return self._joined(*parts)

    def far(self, cut: Cut, between: Sequence[Ids] = (), *, seen: bool = False) -> list[Ids]:
        """Return the texts of a document that asks for a span after its passage has left the window.

        Args:
            cut: with one hole.
            between: other texts, each end-of-text first.
            seen: the passage is read whole (recall); else what follows the hole is read first, then what comes before
                it, then the mark, so that what is written with the mark knows both.
        """
        (before, after), (span,) = cut.sides, cut.spans
        hole = self.hole_ids[0]
        told = (
            self._joined(self.eot_id, before, span, after)
            if seen
            else self._joined(self.eot_id, hole, after, self.fill_id, before, hole)
        )
        return [told, *between, self._joined(self.eot_id, self.fill_id, hole, before[-CUE:], span, self.end_id)]

    def _joined(self, *parts: int | Ids) -> Ids:
        return np.concatenate([np.atleast_1d(np.asarray(part, np.int64)) for part in parts])


def infill_documents(
    task: InfillTask, text: NDArray[np.integer], seed: int, window: int, *, far: float, seen: float, longest: int
) -> Source:
    """Return documents with holes to learn from in an endless series.

    Args:
        task: cuts them.
        text: what passages and the texts between them are taken from, documents one after the other.
        seed: of the series.
        window: tokens of the window; all but the texts between fits into it.
        far: share of far documents; the others fit into the window.
        seen: share of recall among the far ones.
        longest: tokens of the longest text between; lengths are drawn evenly on a logarithmic scale.

    Raises:
        ValueError: the text is too short.
    """
    if len(text) < 4 * (window + longest):
        raise ValueError(f"infill: {len(text)} tokens of text are too few for documents of {window + longest}")

    def taken(start: int, length: int) -> Ids:
        return np.asarray(text[start : start + length], np.int64)

    def document(number: int) -> list[Ids]:
        generator = np.random.Generator(np.random.PCG64([seed, number]))
        start = int(generator.integers(0, len(text) - window))
        length = int(generator.integers(window // 4, window - 2 * HOLES - 4))
        passage = _within_one(taken(start, length), task.eot_id)
        if len(passage) < 8:
            return [np.append([task.eot_id], taken(start, length))]
        if generator.random() >= far:
            cut = task.cut(generator, passage, int(generator.integers(1, HOLES + 1)))
            return [task.window(cut, suffix_first=len(cut.spans) == 1 and generator.random() < 0.5)]
        cut, recalled = task.cut(generator, passage), generator.random() < seen
        filler = int(np.exp(generator.uniform(0, np.log(longest))))
        elsewhere = start
        while start - filler <= elsewhere <= start + length:  # nothing of the passage stands between
            elsewhere = int(generator.integers(0, len(text) - filler))
        return task.far(cut, [np.append([task.eot_id], taken(elsewhere, filler))], seen=recalled)

    return document


def _within_one(passage: Ids, eot_id: int) -> Ids:
    """Return the longest part of a passage that lies within one document."""
    parts = np.split(passage, np.flatnonzero(passage == eot_id))
    return max((part[part != eot_id] for part in parts), key=len)
