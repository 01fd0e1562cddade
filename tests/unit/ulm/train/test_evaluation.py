"""Scores of documents and of recall are those of plain reading, whatever is read together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ulm.config import preset
from ulm.data.recall import RecallTask
from ulm.model import Decoder
from ulm.streaming import read_document
from ulm.train.evaluation import score_documents, score_recall

VOCAB = 97
LTM = {
    "layers": [0], "n_head": 2, "head_size": 8, "capacity": 64, "segment": 16, "threshold_bits": 2.0, "similarity": 0.9,
}  # fmt: skip


def model(ltm: bool = True) -> Decoder:
    built = Decoder(preset("tiny", VOCAB, window=16, head_size=16, ltm=LTM if ltm else None), seed=3)
    if built.ltm is not None:
        with torch.no_grad():
            for reader in built.ltm.readers:
                reader.gate.fill_(1.0)  # type: ignore[union-attr,operator]
    return built.eval()


def documents(count: int = 7) -> list[np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(1))
    return [generator.integers(0, VOCAB, int(generator.integers(2, 90))) for _ in range(count)]


def task() -> RecallTask:
    ids = np.arange(VOCAB, dtype=np.int64)
    return RecallTask(ids[10:40], ids[40:70], ids[2:7], eot_id=1, num_pairs=3, spacing=10)


@pytest.mark.parametrize("ltm", [False, True])
def test_documents_score_what_reading_them_alone_costs(ltm: bool) -> None:
    texts = documents()
    scores = score_documents(model(ltm), texts, batch_tokens=64)
    for text, nats, tokens in zip(texts, scores.nats, scores.tokens, strict=True):
        ids = torch.from_numpy(text)[None]
        logits = read_document(model(ltm), ids[:, :-1]).all_logits()[0]
        assert nats == pytest.approx(float(F.cross_entropy(logits, ids[0, 1:], reduction="sum").detach()), rel=1e-4)
        assert tokens == len(text) - 1


def test_an_untrained_model_pays_about_the_size_of_its_vocabulary() -> None:
    scores = score_documents(model(), documents(30))
    assert scores.nats.sum() / scores.tokens.sum() == pytest.approx(math.log(VOCAB), rel=0.05)


def test_scores_do_not_depend_on_what_is_read_together() -> None:
    texts = documents()
    one, many = (score_documents(model(), texts, batch_tokens=size) for size in (1, 10_000))
    assert one.nats == pytest.approx(many.nats, rel=1e-5)
    assert one.written.tolist() == many.written.tolist()
    assert one.readings.tolist() == many.readings.tolist()


def test_padding_counts_for_nothing() -> None:
    short = [documents()[0][:5]]
    scores = score_documents(model(), short)
    assert scores.tokens.tolist() == [4]
    assert scores.written[0] <= 4
    assert scores.readings.tolist() == [0]


def test_a_model_without_memory_writes_and_reads_nothing() -> None:
    scores = score_documents(model(ltm=False), documents())
    assert not scores.written.any()
    assert not scores.readings.any()


@pytest.mark.parametrize("control", ["none", "no_reads"])
def test_recall_is_right_where_the_model_says_the_value(control: str) -> None:
    scores = score_recall(model(), task(), 55, 6, seed=1, control=control)  # type: ignore[arg-type]
    assert scores.recalled.shape == (6, 3)
    assert scores.recalled.mean() <= 0.2  # untrained


def test_a_memory_that_was_built_by_hand_recalls_everything_and_its_controls_nothing() -> None:
    """Keys are the tokens themselves and values their embeddings: a content-addressed copy, without training."""
    config = preset("tiny", VOCAB, window=16, head_size=16, n_layer=1, ltm={**LTM, "n_head": 1, "head_size": 64})
    built = Decoder(config, seed=3).eval()
    with torch.no_grad():
        for block in built.blocks:  # blocks that add nothing
            block.out.weight.zero_()  # type: ignore[union-attr,operator]
            block.down.weight.zero_()  # type: ignore[union-attr,operator]
        built.embed.weight.copy_(torch.randn(VOCAB, 64, generator=torch.Generator().manual_seed(1)))
        reader = built.ltm.readers[0]  # type: ignore[union-attr]
        reader.gate.fill_(9.0)  # type: ignore[union-attr,operator]
        reader.key_value.weight.copy_(torch.cat((torch.eye(64), torch.eye(64))))  # type: ignore[union-attr,operator]
        reader.out.weight.copy_(20 * torch.eye(64))  # type: ignore[union-attr,operator]
    for distance in (32, 55, 128):
        right = score_recall(built, task(), distance, 5, seed=2)
        assert right.recalled.all()
        assert right.hit.all()
        for control in ("shuffled_values", "capacity_1", "no_reads"):
            null = score_recall(built, task(), distance, 5, seed=2, control=control)  # type: ignore[arg-type]
            assert null.recalled.mean() <= 0.1, (distance, control)


def test_sequences_are_the_same_for_every_model_and_control() -> None:
    first, second = (score_recall(model(), task(), 55, 4, seed=5, control="no_reads") for _ in range(2))
    assert np.array_equal(first.recalled, second.recalled)
