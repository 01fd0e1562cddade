"""What a language model makes of held-out text: holes filled from both sides, missing words, order, what comes next.

- All of it is judged by the likelihood of tokens, so that models are compared by the same texts and no decoding
  decides.
- A null control goes with each: the other side from another passage, chance among the candidates.
- Returns one number per item, so that whoever reports can resample them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ulm.data.coherence import Sentences
from ulm.data.infill import InfillTask
from ulm.model import IGNORE, Decoder, padded
from ulm.streaming import StreamState, read_chunks

Ids = NDArray[np.int64]


@torch.inference_mode()
def end_nats(
    model: Decoder, texts: Sequence[Sequence[Ids]], counts: Sequence[int], rows: int = 32
) -> NDArray[np.float64]:
    """Return the nats of the last tokens of documents.

    Args:
        model: the µLM.
        texts: of each document, read one after the other with the memory kept; every document has as many.
        counts: how many tokens at the end of each document's last text are scored.
        rows: documents read together.
    """
    found = np.zeros(len(texts))
    order = sorted(range(len(texts)), key=lambda i: [len(text) for text in texts[i]])
    for start in range(0, len(order), rows):
        members = order[start : start + rows]
        state: StreamState | None = None
        for number in range(len(texts[members[0]])):
            part = [texts[i][number] for i in members]
            ids_BT = padded([text[:-1] for text in part], 0, model.config.chunk).to(model.device)
            labels_BT = padded([text[1:] for text in part], IGNORE, model.config.chunk).to(model.device)
            if state is not None:
                nobody = torch.zeros(len(members), dtype=torch.bool, device=model.device)
                state = state.restarted(nobody, ~nobody)
            nats = []
            for _, reading in read_chunks(model, ids_BT, state, labels_BT):
                state = reading.state
                assert reading.nats_BS is not None  # noqa: S101 - labels were given
                nats.append(reading.nats_BS.double().cpu())
        nats_BT = torch.cat(nats, dim=1).numpy()
        for row, i in enumerate(members):
            end = len(texts[i][-1]) - 1
            found[i] = nats_BT[row, end - counts[i] : end].sum()
    return found


@dataclass(frozen=True, slots=True)
class InfillScores:
    """Nats of hidden spans, arrays with one entry per passage.

    Attributes:
        prefix: after what stands before the span alone.
        both: filled in, both sides known.
        shuffled: filled in, with another passage's other side.
        far: filled in, both sides in the memory alone; far_shuffled: another passage's sides.
        sizes: bytes of the spans.
    """

    prefix: NDArray[np.float64]
    both: NDArray[np.float64]
    shuffled: NDArray[np.float64]
    far: NDArray[np.float64]
    far_shuffled: NDArray[np.float64]
    sizes: NDArray[np.int64]


def passages_of(documents: Sequence[Ids], length: int, count: int, seed: int) -> list[Ids]:
    """Draw passages of held-out documents, without the end-of-text token.

    Args:
        documents: end-of-text first.
        length: tokens of a passage; shorter documents give none.
        count: how many at most.
        seed: of the choice.
    """
    generator = np.random.Generator(np.random.PCG64([seed, length]))
    long = [document for document in documents if len(document) > length + 1]
    found = []
    for n in range(count if long else 0):
        document = long[n % len(long)]
        start = int(generator.integers(1, len(document) - length))
        found.append(np.asarray(document[start : start + length], np.int64))
    return found


def score_infill(
    model: Decoder, task: InfillTask, passages: Sequence[Ids], sizes_V: NDArray[np.int64], seed: int
) -> InfillScores:
    """Score spans that are hidden in passages.

    Args:
        model: the µLM; what it never learned to fill in it fills in badly.
        task: cuts one hole into each passage.
        passages: at most a window with its marks.
        sizes_V: bytes of every token.
        seed: of the holes.
    """
    cuts = [
        task.cut(np.random.Generator(np.random.PCG64([seed, number])), passage)
        for number, passage in enumerate(passages)
    ]
    others = [cuts[(number + 1) % len(cuts)] for number in range(len(cuts))]
    swapped = [replace(cut, sides=[cut.sides[0], other.sides[1]]) for cut, other in zip(cuts, others, strict=True)]
    counts = [len(cut.spans[0]) for cut in cuts]

    def nats(documents: list[list[Ids]]) -> NDArray[np.float64]:
        """Of the spans, whose end mark is cut off: continued text has none."""
        return end_nats(model, documents, counts)

    whole = [task.window(cut, suffix_first=True)[:-1] for cut in cuts]
    elsewhere = [task.window(cut, suffix_first=True)[:-1] for cut in swapped]
    alone = [np.concatenate([[task.eot_id], cut.sides[0], cut.spans[0]]) for cut in cuts]
    asked = [task.far(cut)[-1][:-1] for cut in cuts]
    told = [task.far(cut)[0] for cut in cuts]
    told_other = [task.far(other)[0] for other in others]
    return InfillScores(
        prefix=nats([[text] for text in alone]),
        both=nats([[text] for text in whole]),
        shuffled=nats([[text] for text in elsewhere]),
        far=nats([list(pair) for pair in zip(told, asked, strict=True)]),
        far_shuffled=nats([list(pair) for pair in zip(told_other, asked, strict=True)]),
        sizes=np.array([int(sizes_V[cut.spans[0]].sum()) for cut in cuts]),
    )


@dataclass(frozen=True, slots=True)
class ClozeScores:
    """Whether the missing word was the likeliest of ten, (items,).

    Attributes:
        rerank: by the likelihood of the whole passage with each candidate in it.
        filled: by that of the candidate where it is to be filled in.
        shuffled: filled in, with another passage's other side.
    """

    rerank: NDArray[np.bool_]
    filled: NDArray[np.bool_]
    shuffled: NDArray[np.bool_]


CANDIDATES = 10


def score_cloze(
    model: Decoder, task: InfillTask, passages: Sequence[Ids], word_V: NDArray[np.bool_], seed: int
) -> ClozeScores:
    """Score a word of each passage that is to be told from nine others of the same passage.

    Args:
        model: the µLM.
        task: knows the marks.
        passages: those with too few words are left out.
        word_V: tokens that are a word of their own and can be asked for.
        seed: of the choice of words.
    """
    items: list[tuple[Ids, Ids, list[int]]] = []
    for number, passage in enumerate(passages):
        generator = np.random.Generator(np.random.PCG64([seed, number]))
        middle = [
            n
            for n in range(len(passage) // 4, 3 * len(passage) // 4)
            if word_V[passage[n]] and (passage == passage[n]).sum() == 1
        ]
        if not middle:
            continue
        at = int(generator.choice(middle))
        rest = np.unique(passage[word_V[passage] & (passage != passage[at])])
        if len(rest) < CANDIDATES - 1:
            continue
        others = generator.choice(rest, CANDIDATES - 1, replace=False)
        items.append((passage[:at], passage[at + 1 :], [int(passage[at]), *map(int, others)]))

    def chosen(texts: list[Ids], counts: list[int]) -> NDArray[np.bool_]:
        nats = end_nats(model, [[text] for text in texts], counts).reshape(-1, CANDIDATES)
        best: NDArray[np.bool_] = nats.argmin(1) == 0
        return best

    hole = task.hole_ids[0]

    def filled(shift: int) -> NDArray[np.bool_]:
        texts = [
            np.concatenate(
                [[task.eot_id, hole], items[(n + shift) % len(items)][1], [task.fill_id, hole], before, [word]]
            )
            for n, (before, _, words) in enumerate(items)
            for word in words
        ]
        return chosen(texts, [1] * len(texts))

    whole = [np.concatenate([[task.eot_id], before, [w], after]) for before, after, words in items for w in words]
    return ClozeScores(
        rerank=chosen(whole, [len(after) + 1 for _, after, words in items for _ in words]),
        filled=filled(0),
        shuffled=filled(1),
    )


def score_order(
    model: Decoder, sentences: Sentences, documents: Sequence[Ids], block: int, seed: int
) -> NDArray[np.bool_]:
    """Return whether documents are likelier than the same with their blocks of sentences shuffled, (documents,)."""
    pairs = [
        sentences.shuffled(np.random.Generator(np.random.PCG64([seed, block, number])), document, block)
        for number, document in enumerate(documents)
    ]
    found = [pair for pair in pairs if pair is not None]
    texts = [text for pair in found for text in pair]
    nats = end_nats(model, [[text] for text in texts], [len(text) - 1 for text in texts]).reshape(-1, 2)
    return np.asarray(nats[:, 0] < nats[:, 1])


def score_next(
    model: Decoder, sentences: Sentences, documents: Sequence[Ids], count: int, seed: int
) -> NDArray[np.bool_]:
    """Return whether the sentence that follows is likelier, by its mean token, than another of the document, (pairs,).

    Args:
        model: the µLM.
        sentences: cuts documents.
        documents: end-of-text first.
        count: pairs that are drawn, some of each document.
        seed: of the choice.
    """
    found = []
    for number in range(count):
        generator = np.random.Generator(np.random.PCG64([seed, number]))
        if (pair := sentences.continuations(generator, documents[number % len(documents)])) is not None:
            found.append(pair)
    texts = [np.concatenate([pair.context, one]) for pair in found for one in (pair.right, pair.wrong)]
    counts = [len(one) for pair in found for one in (pair.right, pair.wrong)]
    means = (end_nats(model, [[text] for text in texts], counts) / np.array(counts)).reshape(-1, 2)
    return np.asarray(means[:, 0] < means[:, 1])
