"""Rows of several kinds in one loss: noise changes inputs alone, marks weigh what they should, kinds are told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fakes.training import alone

from ulm.config import preset
from ulm.data.document_stream import DocumentStream
from ulm.data.infill import END_WEIGHT, InfillTask
from ulm.model import IGNORE, Decoder
from ulm.streaming import StreamState, read_document
from ulm.train.documents import StreamingLoss
from ulm.train.reconstruction import KINDS, ReconstructionObjective, ReconstructionRules
from ulm.train.step import make_optimizer, train_step

VOCAB, SEGMENT = 61, 16
INFILL = InfillTask(eot_id=1, fill_id=7, end_id=8, hole_ids=(4, 5, 6))
LTM = {"layers": [1], "n_head": 2, "head_size": 8, "capacity": 24, "segment": SEGMENT, "threshold_bits": 0.1}


def text(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(9, VOCAB, 90)


def holed(number: int) -> list[np.ndarray]:
    generator = np.random.default_rng(number)
    return [INFILL.window(INFILL.cut(generator, generator.integers(9, VOCAB, 10)))]


def training(rows: str = "ttih", noise: float = 0.0, **changes: Any) -> ReconstructionObjective:
    kinds = [{"t": "text", "i": "infill", "h": "recall"}[row] for row in rows]
    model = Decoder(preset("tiny", VOCAB, window=SEGMENT, head_size=16, ltm=LTM))
    stream = DocumentStream([holed if kind == "infill" else text for kind in kinds], SEGMENT, pad_id=0)
    rules = ReconstructionRules(kinds, INFILL, noise, seed=3)
    optimizer = make_optimizer(model, 1e-2, 0.1, (0.9, 0.95))
    return ReconstructionObjective(model, optimizer, alone(), stream, segments=2, rules=rules, **changes)


def test_noise_changes_input_of_text_alone_and_is_never_written() -> None:
    ((_, clean, labels, *_),), _ = training().batch(0)
    ((_, ids, same, _, writable, _),), _ = training(noise=0.5).batch(0)
    assert torch.equal(labels, same)
    changed = ids != clean
    assert 0.3 < changed[:, :2].float().mean() < 0.6
    assert not changed[:, 2:].any()
    assert not changed[:, :, 0].any()  # a text's first token says what begins
    assert not (changed & writable).any()
    # Drawn from the step: another step another noise, and the same in a training that was resumed.
    ((_, again, *_),), _ = training(noise=0.5).batch(0)
    assert torch.equal(ids, again)


def test_noise_does_not_depend_on_how_rows_are_grouped() -> None:
    whole = training(noise=0.5).batch(0)[0]
    parts = training(noise=0.5, parts=2).batch(0)[0]
    assert len(parts) == 2
    assert torch.equal(whole[0][1], torch.cat([part[1] for part in parts], dim=1))


def test_marks_have_their_weights_in_the_loss() -> None:
    model = Decoder(preset("tiny", VOCAB, window=SEGMENT, head_size=16, ltm=LTM))
    weights = torch.from_numpy(INFILL.weights(VOCAB))
    ids = torch.tensor([[[1, 9, 4, 10, 7, 4, 11]]])
    labels = torch.tensor([[[9, 4, 10, 7, 4, 11, 8]]])
    starts = torch.full((1, 1), 2)
    here = StreamingLoss(model, weights_V=weights, kinds=1)
    state = StreamState.empty(model, 1)
    total, _, measured = here(ids, labels, starts, state, kinds_NBS=torch.zeros_like(ids))
    logits = read_document(model, ids[0]).all_logits()[0]
    nats = torch.nn.functional.cross_entropy(logits, labels[0, 0], reduction="none")
    assert total.item() == pytest.approx((nats[[0, 2, 5]].sum() + END_WEIGHT * nats[6]).item(), rel=1e-4)
    assert measured[3].item() == pytest.approx(float(nats.sum()), rel=1e-4)
    assert measured[4] == 7


def test_kinds_are_told_apart() -> None:
    here = training(noise=0.1)
    report = train_step(here, 0, 1e-3)
    found = here.metrics(report.sums, report.tokens)
    assert {name for name in found if name.startswith("bits_")} == {f"bits_{kind}" for kind in KINDS}
    assert sum(report.sums[f"tokens_{kind}"] for kind in KINDS) == report.tokens
    ((_, ids, labels, _, _, kinds),), _ = here.batch(1)
    after_fill = (ids == INFILL.fill_id).cumsum(-1) > 0
    assert ((kinds == KINDS.index("infill")) == after_fill).all()
    assert (kinds[:, 3] == KINDS.index("recall")).all()
    assert (labels[kinds == KINDS.index("infill")] != IGNORE).any()


def test_it_learns_to_end_what_fills_a_hole() -> None:
    here = training("ii")
    first = [train_step(here, n, 1e-2).loss for n in range(30)]
    assert np.mean(first[-5:]) < 0.9 * np.mean(first[:5])
