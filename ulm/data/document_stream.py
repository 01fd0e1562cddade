"""Rows of documents for training: which token each row reads next, as a value that can be saved and restored.

- A row reads one document after the other, in segments. A document is one text, or several, such as an agent's calls
  in an episode; every text begins with a segment of its own, and what is left of its last one is padding.
- Documents come in an order that follows from the seed alone. All rows of a batch draw from one order, whichever
  worker holds them, so the number of workers does not change what is read.
- Some rows may read recall sequences in place of the corpus (`ulm.data.recall`).
- `Windows` is the plain recipe beside it: overlapping windows in random order. `Stages` are streams one after another.
- Knows no model; tokens in, batches out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ulm.data.corpus import Corpus
from ulm.data.recall import RecallTask
from ulm.model import IGNORE

Source = Callable[[int], NDArray[np.int64] | list[NDArray[np.int64]]]
"""The document of a number in an endless series: a text, or its texts in order; a text's first token is only read."""

NEW_TEXT, NEW_DOCUMENT = 1, 2
"""What begins with a segment; 0 where a text goes on."""


@dataclass(frozen=True, slots=True)
class SegmentBatch:
    """Segments that rows read one after the other.

    Attributes:
        ids_NBS: N segments of B rows.
        labels_NBS: the next tokens, `IGNORE` at padding.
        starts_NB: what begins with each segment: `NEW_DOCUMENT`, `NEW_TEXT`, or 0.
    """

    ids_NBS: Tensor
    labels_NBS: Tensor
    starts_NB: Tensor

    def to(self, device: torch.device | str) -> Self:
        """Return the batch on a device."""
        return type(self)(self.ids_NBS.to(device), self.labels_NBS.to(device), self.starts_NB.to(device))


def corpus_documents(corpus: Corpus, seed: int) -> Source:
    """Return the training documents in endless random order: every epoch another permutation."""
    count = corpus.num_documents("train")
    return lambda number: corpus.document("train", _shuffled(number, count, seed))


def _shuffled(number: int, count: int, seed: int) -> int:
    """Return which of `count` things comes at a place of an endless series that holds all of them once per epoch."""
    epoch, place = divmod(number, count)
    return int(_order(seed, epoch, count)[place])


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count)


def recall_documents(
    task: RecallTask, seed: int, longest: int, text: NDArray[np.int64] | None = None, text_share: float = 0.0
) -> Source:
    """Return recall sequences to learn from in an endless series.

    Args:
        task: draws them.
        seed: of the series.
        longest: tokens of the longest ones; lengths are drawn evenly from a quarter of this.
        text: what the filler of some is cut from.
        text_share: share of the sequences with text as filler; the rest is quiet.
    """

    def document(number: int) -> NDArray[np.int64]:
        generator = np.random.Generator(np.random.PCG64([seed, number]))
        length = int(generator.integers(longest // 4, longest + 1))
        if text is None or generator.random() >= text_share:
            return task.practice(generator, length)
        start = int(generator.integers(0, max(1, len(text) - length)))
        return task.practice(generator, length, np.asarray(text[start : start + length], dtype=np.int64))

    return document


class DocumentStream:
    """What B rows read.

    Args:
        sources: of each row; rows with the same source share its series.
        segment: tokens of a segment.
        pad_id: fills the last segment of a document.

    Attributes:
        apart: every segment is a text of its own.
    """

    apart = False

    def __init__(self, sources: list[Source], segment: int, pad_id: int) -> None:
        self.segment, self.pad_id = segment, pad_id
        self._series: list[Source] = list(dict.fromkeys(sources))
        self._source_of = [self._series.index(source) for source in sources]
        self._drawn = [0] * len(self._series)
        self._number = [-1] * len(sources)
        self._offset = [0] * len(sources)
        self._text = [0] * len(sources)
        self._document: list[list[NDArray[np.int64]]] = [[] for _ in sources]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._source_of)

    def next_batch(self, segments: int = 1) -> SegmentBatch:
        """Return the next segments of all rows."""
        N, B, S = segments, len(self), self.segment
        ids = np.full((N, B, S), self.pad_id, dtype=np.int64)
        labels = np.full((N, B, S), IGNORE, dtype=np.int64)
        starts = np.zeros((N, B), dtype=np.int64)
        for n in range(N):
            for row in range(B):
                self._go_to_text(row)
                start = self._offset[row]
                if start == 0:
                    starts[n, row] = NEW_TEXT if self._text[row] else NEW_DOCUMENT
                part = self._document[row][self._text[row]][start : start + S + 1]
                count = len(part) - 1
                ids[n, row, :count], labels[n, row, :count] = part[:-1], part[1:]
                self._offset[row] = start + S
        return SegmentBatch(torch.from_numpy(ids), torch.from_numpy(labels), torch.from_numpy(starts))

    def sources(self) -> list[Source]:
        """Return what rows read from, each source once."""
        return list(self._series)

    def drawn(self, source: Source) -> int:
        """Return how many documents rows have drawn from one of the sources."""
        return self._drawn[self._series.index(source)]

    def _go_to_text(self, row: int) -> None:
        """Go to where there is something to read; a text's last token is only a label."""
        if self._document[row] and self._offset[row] + 1 >= len(self._document[row][self._text[row]]):
            self._offset[row], self._text[row] = 0, self._text[row] + 1
        while self._text[row] >= len(self._document[row]):
            series = self._source_of[row]
            self._number[row], self._text[row] = self._drawn[series], 0
            self._drawn[series] += 1
            self._open(row)

    def _open(self, row: int) -> None:
        document = self._series[self._source_of[row]](self._number[row])
        texts = document if isinstance(document, list) else [document]
        # Texts of a single token have nothing to learn; the first one is what begins the document.
        self._document[row] = [text for text in texts if len(text) > 1]

    def state(self) -> dict[str, Any]:
        """Return where every row is, as JSON-able data."""
        places = {"drawn": self._drawn, "number": self._number, "text": self._text, "offset": self._offset}
        return {name: list(values) for name, values in places.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken.

        Raises:
            ValueError: it is the state of a stream of other rows.
        """
        if len(state["number"]) != len(self) or len(state["drawn"]) != len(self._series):
            raise ValueError(f"the saved data cursor has {len(state['number'])} rows, this training {len(self)}")
        self._drawn, self._number, self._text, self._offset = (
            list(state[key]) for key in ("drawn", "number", "text", "offset")
        )
        for row, number in enumerate(self._number):
            self._document[row] = []
            if number >= 0:
                self._open(row)


class Windows(DocumentStream):
    """Overlapping windows of the whole training part in random order, each a sequence of its own.

    Args:
        tokens: the training part, documents one after the other.
        batch: windows per batch.
        width: tokens read of a window.
        stride: tokens from one window to the next.
        seed: of the order; every epoch has another.

    Raises:
        ValueError: the corpus is shorter than one window.
    """

    apart = True

    def __init__(self, tokens: NDArray[Any], batch: int, width: int, stride: int, seed: int) -> None:
        window = windows(lambda start, end: np.asarray(tokens[start:end], np.int64), len(tokens), width, stride, seed)
        super().__init__([window] * batch, width, pad_id=0)  # a window fills its segment


def windows(read: Callable[[int, int], NDArray[np.int64]], length: int, width: int, stride: int, seed: int) -> Source:
    """Return overlapping windows of a text in endless random order.

    Args:
        read: returns the tokens from one place up to another.
        length: tokens of the text.
        width: tokens read of a window.
        stride: tokens from one window to the next.
        seed: of the order; every epoch has another.

    Raises:
        ValueError: the text is shorter than one window.
    """
    count = (length - 1 - width) // stride + 1
    if count < 1:
        raise ValueError(f"the corpus has {length} tokens, too few for one window of {width}")

    def window(number: int) -> NDArray[np.int64]:
        start = _shuffled(number, count, seed) * stride
        return read(start, start + width + 1)

    return window


class Stages:
    """Streams of windows one after the other, each for so many batches; the last one goes on.

    Args:
        streams: of equally many rows.
        batches: of each stream.

    Attributes:
        apart: every segment is a text of its own.
    """

    apart = True

    def __init__(self, streams: list[DocumentStream], batches: list[int]) -> None:
        self._streams, self._ends, self._drawn = streams, np.cumsum(batches), 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._streams[0])

    def next_batch(self, segments: int = 1) -> SegmentBatch:
        """Return the next segments of all rows."""
        stage = int(np.searchsorted(self._ends[:-1], self._drawn, side="right"))
        self._drawn += 1
        return self._streams[stage].next_batch(segments)

    def state(self) -> dict[str, Any]:
        """Return where every stream is, as JSON-able data."""
        return {"drawn": self._drawn, "streams": [stream.state() for stream in self._streams]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken.

        Raises:
            ValueError: it is the state of other streams.
        """
        self._drawn = state["drawn"]
        for stream, place in zip(self._streams, state["streams"], strict=True):
            stream.restore(place)
