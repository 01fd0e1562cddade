"""Rows of several kinds in one loss: noise changes inputs alone, marks weigh what they should, kinds are told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fakes.training import alone

from ulm.config import preset
from ulm.data.coherence import Continuations
from ulm.data.document_stream import DocumentStream
from ulm.data.infill import END_WEIGHT, InfillTask
from ulm.model import IGNORE, Decoder
from ulm.streaming import StreamState, read_document
from ulm.train.documents import StreamingLoss
from ulm.train.reconstruction import KINDS, ReconstructionObjective, ReconstructionRules
from ulm.train.step import make_optimizer, train_step

VOCAB, SEGMENT = 61, 16
INFILL = InfillTask(eot_id=1, fill_id=7, end_id=8, hole_ids=(4, 5, 6))
LTM = {
    "layers": [1], "n_head": 2, "head_size": 8, "capacity": 24, "segment": SEGMENT, "threshold_bits": 0.1, "slots": 8,
}  # fmt: skip


def text(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(9, VOCAB, 90)


def holed(number: int) -> list[np.ndarray]:
    generator = np.random.default_rng(number)
    return [INFILL.window(INFILL.cut(generator, generator.integers(9, VOCAB, 10)))]


def continued(generator: np.random.Generator) -> Continuations:
    """After a context of one token comes that token; the false one has another."""
    context, other = generator.choice(np.arange(9, VOCAB), 2, replace=False)
    return Continuations(np.array([1, *[context] * 6]), np.array([context] * 4), np.array([other] * 4))


def training(rows: str = "ttih", noise: float = 0.0, **changes: Any) -> ReconstructionObjective:
    kinds = [{"t": "text", "i": "infill", "h": "recall"}[row] for row in rows]
    model = Decoder(preset("tiny", VOCAB, window=SEGMENT, head_size=16, ltm=LTM))
    stream = DocumentStream([holed if kind == "infill" else text for kind in kinds], SEGMENT, pad_id=0)
    shares = {name: changes.pop(name, 0.0) for name in ("consistency", "coherence", "two_way")}
    plain = changes.pop("plain", False)
    rules = ReconstructionRules(kinds, INFILL, noise, **shares, plain=plain, continuations=continued, seed=3)
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


def test_coherence_makes_what_follows_likelier_than_what_does_not() -> None:
    here = training("tt", coherence=0.3)
    (part,), _ = here.batch(0)
    found = []
    for _ in range(20):
        here.optimizer.zero_grad()
        loss = here._coherence(part)
        loss.backward()
        with torch.no_grad():
            for parameter in here.model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.05 * parameter.grad)
        found.append(loss.item())
    assert found[-1] < 0.8 * found[0]


def test_parts_that_get_nothing_are_not_computed() -> None:
    assert not [name for name in train_step(training("tt"), 0, 1e-3).sums if name.startswith("loss_")]


@pytest.mark.parametrize("plain", [False, True])
def test_a_part_gets_its_share_of_the_gradient(plain: bool) -> None:
    here = training("tt", coherence=0.2, consistency=0.1, plain=plain)
    for n in range(4):
        train_step(here, n, 1e-3)
    norms = here._norms
    pull = here.weight("coherence") * norms["coherence"] / norms["reconstruction"]
    if plain:
        assert here.weight("coherence") == pytest.approx(0.2 / 0.7)
    elif here.weight("coherence") < 10:
        assert pull == pytest.approx(0.2 / 0.7)
    found = here.metrics(train_step(here, 4, 1e-3).sums, 1)
    assert {"share_coherence", "share_consistency", "loss_coherence", "loss_consistency"} <= set(found)


def test_consistency_is_nothing_where_nothing_is_lost_and_more_where_the_memory_speaks() -> None:
    here = training("tt", consistency=0.2)
    train_step(here, 0, 0.0)  # fills the memories
    (part,), _ = here.batch(1)
    assert here._consistency(part).item() == pytest.approx(0.0, abs=1e-6)  # gates are shut
    with torch.no_grad():
        here.model.ltm.readers[0].gate.fill_(2.0)  # type: ignore[union-attr,operator]
        here.model.ltm.readers[0].out.weight.mul_(30.0)  # type: ignore[union-attr,operator]
    loss = here._consistency(part)
    assert loss.item() > 1e-4
    loss.backward()
    assert here.model.ltm.readers[0].gate.grad.abs().sum() > 0  # type: ignore[union-attr,operator]


def test_a_resumed_training_weighs_its_parts_as_before() -> None:
    one = training("tt", coherence=0.2)
    for n in range(3):
        train_step(one, n, 1e-2)
    progress, tensors = one.state()
    other = training("tt", coherence=0.2)
    other.model.load_state_dict(one.model.state_dict())
    other.optimizer.load_state_dict(one.optimizer.state_dict())
    other.restore(progress, tensors)
    assert train_step(one, 3, 1e-2) == train_step(other, 3, 1e-2)


def test_shares_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shares of consistency 0.6 and coherence 0.4 must leave some of 1"):
        training(consistency=0.6, coherence=0.4)


def test_in_both_directions_a_hidden_token_is_told_by_what_follows_and_never_by_itself() -> None:
    here = training("tt", two_way=1.0)
    (part,), _ = here.batch(0)
    total, measured = here.loss(part)
    assert total.item() > 0
    assert {f"nats_{kind}" for kind in KINDS} <= set(measured)
    number, ids, labels, starts, writable, kinds = part
    # Another token where one is hidden changes its label alone; where it is seen, also what is said of others.
    other = ids.clone()
    other[:, :, 5] = (other[:, :, 5] - 8) % (VOCAB - 9) + 9
    changed, _ = here.loss((number, other, labels, starts, writable, kinds))
    assert changed.item() != total.item()
    with pytest.raises(ValueError, match="needs a mark for what is hidden"):
        ReconstructionRules(["text"], two_way=0.5)
