"""Training on documents: the same for any grouping of rows, memory carried, cleared and restored."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from fakes.training import alone

from ulm.config import preset
from ulm.data.document_stream import DocumentStream, SegmentBatch, Windows
from ulm.model import Decoder
from ulm.streaming import StreamState, read_document
from ulm.train.documents import DocumentObjective, StreamingLoss
from ulm.train.step import StepReport, Worker, learning_rate, make_optimizer, train_step

VOCAB, SEGMENT, ROWS = 61, 16, 4
LTM = {
    "layers": [1], "n_head": 2, "head_size": 8, "capacity": 24, "segment": SEGMENT, "threshold_bits": 3.0,
    "similarity": 0.3,
}  # fmt: skip


def document(number: int) -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64(number))
    return generator.integers(2, VOCAB, int(generator.integers(2, 70)))


def training(seed: int = 0, *, ltm: bool = True, rows: int = ROWS, **changes: Any) -> DocumentObjective:
    config = preset("tiny", VOCAB, window=SEGMENT, head_size=16, ltm=LTM if ltm else None)
    model = Decoder(config, seed=seed)
    stream = DocumentStream([document] * rows, SEGMENT, pad_id=0)
    settings: dict[str, Any] = {"segments": 2, **changes}
    worker = settings.pop("worker", alone())
    return DocumentObjective(model, make_optimizer(model, 1e-2, 0.1, (0.9, 0.95)), worker, stream, **settings)


def step(here: DocumentObjective, rate: float = 5e-3) -> StepReport:
    return train_step(here, 0, rate)


def weights(of: DocumentObjective) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in of.model.parameters()]


def equal(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("ltm", [False, True])
def test_training_learns(ltm: bool) -> None:
    here = training(ltm=ltm)
    losses = [step(here, learning_rate(n, peak=1e-2, warmup=2, steps=40)).loss for n in range(40)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.02


def restored(whole: DocumentObjective, rows: int = ROWS) -> DocumentObjective:
    """Another objective that was given weights, moments and state."""
    again = training(seed=99, ltm=whole.model.ltm is not None, rows=rows)
    again.model.load_state_dict(whole.model.state_dict())
    again.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
    again.restore(*copy.deepcopy(whole.state()))
    return again


@pytest.mark.parametrize("ltm", [False, True])
def test_a_restored_training_goes_on_bit_equal(ltm: bool) -> None:
    whole = training(ltm=ltm)
    for _ in range(5):
        step(whole)
    again = restored(whole)
    assert [step(again) for _ in range(4)] == [step(whole) for _ in range(4)]
    assert equal(weights(again), weights(whole))


@pytest.mark.parametrize("ltm", [False, True])
def test_where_the_memories_are_lost_rows_read_on_with_empty_ones(ltm: bool) -> None:
    whole = training(ltm=ltm)
    for _ in range(5):
        step(whole)
    again = restored(whole)
    again.restore(whole.state()[0], {})
    fresh = training(ltm=ltm)
    (place, memories), (_, nothing) = again.state(), fresh.state()
    torch.testing.assert_close(memories, nothing, rtol=0, atol=0, equal_nan=True)
    assert not equal([*memories.values()], [*whole.state()[1].values()])
    assert place == whole.state()[0] != fresh.state()[0]  # they go on where they were in their texts
    assert step(again).loss > 0


def test_without_the_saved_memory_the_rest_would_differ() -> None:
    """The control of the test above: what the rows remember is part of what makes it pass."""
    whole = training()
    for _ in range(5):
        step(whole)
    with torch.no_grad():  # as trained: memory is read
        for reader in whole.model.ltm.readers:  # type: ignore[union-attr]
            reader.gate.fill_(0.5)  # type: ignore[union-attr,operator]
    again = restored(whole)
    again._states = [state.restarted(torch.ones(ROWS, dtype=torch.bool)) for state in again._states]
    assert step(again).loss != step(whole).loss


def test_a_state_of_another_number_of_rows_is_refused() -> None:
    few = training(rows=2)
    step(few)
    with pytest.raises(ValueError, match="has 2 rows, this training 4"):
        restored(few)


def test_micro_batches_change_the_order_of_summation_and_nothing_else() -> None:
    together, apart = training(), training(parts=2)
    for _ in range(3):
        one, other = step(together), step(apart)
        assert one.loss == pytest.approx(other.loss, abs=1e-5)
        assert one.tokens == other.tokens
        assert abs(one.sums["written"] - other.sums["written"]) <= 1


def test_rows_that_cannot_be_shared_evenly_are_refused() -> None:
    with pytest.raises(ValueError, match="4 cannot be shared evenly by 3 workers"):
        training(worker=Worker(0, 3, torch.device("cpu"), print))
    with pytest.raises(ValueError, match="the 4 rows of a worker cannot be shared evenly by 3 micro-batches"):
        training(parts=3)


def test_an_infinite_loss_changes_no_weight_and_no_memory() -> None:
    here = training()
    step(here)
    before, states = weights(here), here._states
    here.model.norm.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(FloatingPointError, match="gradient norm nan"):
        step(here)
    assert equal(weights(here), before)
    assert here._states is states


def test_the_loss_is_that_of_each_document_read_by_itself() -> None:
    """Rows that go through several documents: neither window nor memory of one reaches the next."""
    model = training().model
    with torch.no_grad():
        for reader in model.ltm.readers:  # type: ignore[union-attr]
            reader.gate.fill_(1.0)  # type: ignore[union-attr,operator]
    stream = DocumentStream([document], SEGMENT, pad_id=0)
    batch = stream.next_batch(40)
    total, _, _ = StreamingLoss(model)(batch.ids_NBS, batch.labels_NBS, batch.starts_NB, StreamState.empty(model, 1))
    alone = 0.0
    used = 0
    for number in range(stream.state()["number"][0] + 1):
        text = document(number)
        segments = -(-(len(text) - 1) // SEGMENT)
        if used + segments > 40:
            text = text[: (40 - used) * SEGMENT + 1]
        used += segments
        if len(text) > 1:
            ids = torch.from_numpy(text)[None]
            nats = read_document(model, ids[:, :-1], labels_BT=ids[:, 1:]).nats_BS
            assert nats is not None
            alone += float(nats.detach().sum())
    assert float(total) == pytest.approx(alone, rel=1e-4)


def test_memory_is_carried_from_step_to_step_within_a_document() -> None:
    def longer(number: int) -> np.ndarray:
        return np.random.Generator(np.random.PCG64(number)).integers(2, VOCAB, 200)

    here = training()
    here.stream = DocumentStream([longer] * ROWS, SEGMENT, pad_id=0)
    counts = []
    for _ in range(4):
        step(here)
        memory = here._states[0].memory
        assert memory is not None
        counts.append(memory.clock_B.tolist())
    assert counts == [[32] * 4, [64] * 4, [96] * 4, [128] * 4]


def test_gradients_reach_keys_and_values_through_reads() -> None:
    here = training()
    with torch.no_grad():
        for reader in here.model.ltm.readers:  # type: ignore[union-attr]
            reader.gate.fill_(0.5)  # type: ignore[union-attr,operator]
            reader.null.zero_()  # type: ignore[union-attr,operator]
    ids = torch.randint(2, VOCAB, (2, 33), generator=torch.Generator().manual_seed(5))
    batch = SegmentBatch(
        torch.stack((ids[:, :16], ids[:, 16:32])),
        torch.stack((ids[:, 1:17], ids[:, 17:33])),
        torch.tensor([[2, 2], [0, 0]]),
    )
    total, _, _ = StreamingLoss(here.model)(
        batch.ids_NBS, batch.labels_NBS, batch.starts_NB, StreamState.empty(here.model, 2)
    )
    total.backward()
    for name, parameter in here.model.ltm.named_parameters():  # type: ignore[union-attr]
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_windows_give_the_same_loss_whichever_way_they_are_read() -> None:
    model = training(ltm=False).model
    batch = Windows(np.arange(500) % VOCAB, batch=3, width=SEGMENT, stride=5, seed=1).next_batch()
    arguments = (batch.ids_NBS, batch.labels_NBS, batch.starts_NB, StreamState.empty(model, 3))
    quick, slow = (StreamingLoss(model, apart=apart)(*arguments)[0] for apart in (True, False))
    assert float(quick) == pytest.approx(float(slow), rel=1e-5)
