"""Measures language models on whole documents and on long-range recall, under any null control.

- A document's score is the sum of the nats of all its tokens, the first one included, which is predicted from
  end-of-text; dividing by characters or bytes of the raw text makes models with other tokenizers comparable.
- Everything is read as it is in training and in use: in segments, with window and memory carried through a document.
- Returns one number per document or per query, so that whoever reports can resample them.
- Knows no files and no Ray.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ulm.data.recall import RecallTask
from ulm.memory.ltm import Control
from ulm.model import IGNORE, Decoder, padded
from ulm.streaming import Between, read_chunks


@dataclass(frozen=True, slots=True)
class DocumentScores:
    """Scores of documents, each array with one entry per document.

    Attributes:
        nats: sum over the document.
        tokens: predicted tokens.
        written: tokens written to memory.
        readings: positions that read at least one item.
    """

    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]
    written: NDArray[np.int64]
    readings: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RecallScores:
    """Scores of queries, arrays of shape (sequences, queries).

    Attributes:
        recalled: whether the value was the most likely token.
        hit: whether the query read at least one item.
        written: tokens written to memory per sequence, (sequences,).
    """

    recalled: NDArray[np.bool_]
    hit: NDArray[np.bool_]
    written: NDArray[np.int64]


@torch.inference_mode()
def score_queries(
    model: Decoder,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    control: Control,
    seed: int,
    between: Between | None = None,
) -> RecallScores:
    """Read sequences to their ends and score what is asked on the way.

    Args:
        model: the µLM.
        batches: token ids and the next tokens (`IGNORE` at padding), both (B, T), and the positions that are asked,
            (B, Q), whose values stand one further.
        control: takes one thing away that memory needs.
        seed: of the control's randomness.
        between: as in `read_chunk`.
    """
    found = []
    for batch in batches:
        ids_BT, labels_BT, at_BQ = (x.to(model.device) for x in batch)
        asked_BT = torch.zeros_like(ids_BT, dtype=torch.bool).scatter_(1, at_BQ, True)
        right_BT, read_BT, written_B = (torch.zeros_like(x) for x in (asked_BT, asked_BT, ids_BT[:, 0]))
        for place, reading in read_chunks(model, ids_BT, None, labels_BT, control=control, seed=seed, between=between):
            asked_BS, labels_BS = asked_BT[:, place], labels_BT[:, place]
            right_BT[:, place][asked_BS] = reading.all_logits()[asked_BS].argmax(-1) == labels_BS[asked_BS]
            read_BT[:, place] = reading.read_BS
            written_B += reading.written_BS.sum(1)
        found.append([x.cpu().numpy() for x in (right_BT.gather(1, at_BQ), read_BT.gather(1, at_BQ), written_B)])
    return RecallScores(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


@torch.inference_mode()
def score_documents(
    model: Decoder,
    documents: Sequence[NDArray[np.int64]],
    *,
    control: Control = "none",
    seed: int = 0,
    batch_tokens: int = 4096,
    between: Between | None = None,
) -> DocumentScores:
    """Score documents, each end-of-text first.

    Args:
        model: the µLM.
        documents: token ids.
        control: takes one thing away that memory needs.
        seed: of the control's randomness.
        batch_tokens: documents of similar length are read together, up to so many tokens of all rows at a time.
        between: as in `read_chunk`.
    """
    width = model.config.chunk
    rows = max(1, batch_tokens // width)
    results = np.zeros((4, len(documents)))
    order = sorted(range(len(documents)), key=lambda i: len(documents[i]))
    for start in range(0, len(order), rows):
        members = order[start : start + rows]
        ids_BT = padded([documents[i][:-1] for i in members], 0, width).to(model.device)
        labels_BT = padded([documents[i][1:] for i in members], IGNORE, width).to(model.device)
        sums = torch.zeros(4, len(members), dtype=torch.float64, device=model.device)
        for place, reading in read_chunks(model, ids_BT, None, labels_BT, control=control, seed=seed, between=between):
            real = labels_BT[:, place] != IGNORE
            parts = (reading.nats_BS, real, reading.written_BS, reading.read_BS * real)
            sums += torch.stack([part.sum(1).double() for part in parts if part is not None])
        results[:, members] = sums.cpu().numpy()
    nats, *counts = results
    return DocumentScores(nats, *(count.astype(np.int64) for count in counts))


@torch.inference_mode()
def score_recall(
    model: Decoder,
    task: RecallTask,
    distance: int,
    sequences: int,
    *,
    seed: int,
    text: NDArray[np.int64] | None = None,
    control: Control = "none",
    batch_rows: int = 32,
    between: Between | None = None,
) -> RecallScores:
    """Score the recall of fresh pairs at one distance.

    Args:
        model: the µLM.
        task: draws the sequences.
        distance: tokens from a pair to its query.
        sequences: how many are drawn, the same for every model and control.
        seed: of the sequences and of the control's randomness.
        text: held-out text from which the filler is cut, or None for the quiet one.
        control: takes one thing away that memory needs.
        batch_rows: sequences read together.
        between: as in `read_chunk`.
    """
    batches = []
    for start in range(0, sequences, batch_rows):
        drawn = []
        for number in range(start, min(sequences, start + batch_rows)):
            generator = np.random.Generator(np.random.PCG64([seed, distance, number]))
            filler = text
            if text is not None:
                first = int(generator.integers(0, max(1, len(text) - task.length(distance))))
                filler = np.asarray(text[first : first + task.length(distance)], dtype=np.int64)
            drawn.append(task.sequence(distance, generator, filler))
        ids = torch.from_numpy(np.stack([sequence.ids for sequence in drawn]))
        at_BQ = torch.from_numpy(drawn[0].asked).expand(len(drawn), -1)
        batches.append((ids[:, :-1], ids[:, 1:], at_BQ))
    return score_queries(model, batches, control, seed, between)
