"""Rows of documents: every token is learned once and in order, and a restored stream goes on as if nothing had been."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ulm.data.corpus import Corpus, prepare_corpus
from ulm.data.document_stream import (
    NEW_DOCUMENT,
    NEW_TEXT,
    DocumentStream,
    SegmentBatch,
    Stages,
    Windows,
    corpus_documents,
    recall_documents,
)
from ulm.data.documents import CorpusSource
from ulm.data.recall import RecallTask
from ulm.model import IGNORE

PAD, EOT, SEGMENT = 0, 1, 4
TASK = RecallTask(np.arange(100, 132), np.arange(200, 232), np.array([5, 6, 7]), EOT, num_pairs=4, spacing=10)


def series(*lengths: int, first: int = 0) -> Callable[[int], NDArray[np.int64]]:
    """Documents of the given lengths in turn; token t of document n is 1000 * (first + n) + t, end-of-text first."""

    def document(number: int) -> NDArray[np.int64]:
        tokens = 1000 * (first + number) + np.arange(lengths[number % len(lengths)])
        return np.array([EOT, *tokens[1:]], dtype=np.int64)

    return document


def read(stream: DocumentStream, batches: int, segments: int = 1) -> SegmentBatch:
    """Read several batches and put them together."""
    parts = [stream.next_batch(segments) for _ in range(batches)]
    return SegmentBatch(
        torch.cat([part.ids_NBS for part in parts]),
        torch.cat([part.labels_NBS for part in parts]),
        torch.cat([part.starts_NB for part in parts]),
    )


def documents(batch: SegmentBatch, row: int) -> list[list[int]]:
    """The documents that a row read, put together again from starts, ids and the last label."""
    found: list[list[int]] = []
    segments = (tensor[:, row] for tensor in (batch.ids_NBS, batch.labels_NBS, batch.starts_NB))
    for ids, labels, start in zip(*segments, strict=True):
        real = labels != IGNORE
        if start:
            found.append([int(ids[0])])
        assert ids[real].tolist() == [found[-1][-1], *labels[real].tolist()[:-1]]
        found[-1] += labels[real].tolist()
    return found


def same(a: SegmentBatch, b: SegmentBatch) -> bool:
    return (
        torch.equal(a.ids_NBS, b.ids_NBS)
        and torch.equal(a.labels_NBS, b.labels_NBS)
        and torch.equal(a.starts_NB, b.starts_NB)
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("texts")
    texts = [f"text {'many words ' * (number % 5)}{number}" for number in range(13)]
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return prepare_corpus([CorpusSource(files=(str(folder / "a.jsonl"),))], folder / "corpus", tokenizer=259)


# ---- segments


def test_labels_are_the_next_tokens_and_padding_has_none() -> None:
    batch = DocumentStream([series(7)], SEGMENT, PAD).next_batch(2)
    assert batch.ids_NBS[:, 0].tolist() == [[EOT, 1, 2, 3], [4, 5, PAD, PAD]]
    assert batch.labels_NBS[:, 0].tolist() == [[1, 2, 3, 4], [5, 6, IGNORE, IGNORE]]
    assert batch.starts_NB[:, 0].tolist() == [NEW_DOCUMENT, 0]


@pytest.mark.parametrize("length", [2, 4, 5, 6, 9, 10])
def test_a_document_begins_with_a_segment_of_its_own(length: int) -> None:
    batch = read(DocumentStream([series(length)], SEGMENT, PAD), 6)
    needed = -(-(length - 1) // SEGMENT)  # the last token is only a label
    assert batch.starts_NB[:, 0].tolist() == [NEW_DOCUMENT * (n % needed == 0) for n in range(6)]
    assert (batch.labels_NBS != IGNORE).sum() == sum(min(SEGMENT, length - 1 - n % needed * SEGMENT) for n in range(6))


def test_texts_of_a_document_begin_with_segments_of_their_own() -> None:
    """An agent's calls: one token alone is nothing to read, and the text after it begins anew."""
    texts = [np.array([1, 2, 3, 4, 5, 6]), np.array([7]), np.array([8, 9])]

    def document(number: int) -> list[np.ndarray]:
        return texts

    stream = DocumentStream([document], SEGMENT, PAD)
    batch = stream.next_batch(5)
    assert batch.ids_NBS[:, 0].tolist() == [[1, 2, 3, 4], [5, 0, 0, 0], [8, 0, 0, 0], [1, 2, 3, 4], [5, 0, 0, 0]]
    assert batch.starts_NB[:, 0].tolist() == [NEW_DOCUMENT, 0, NEW_TEXT, NEW_DOCUMENT, 0]
    again = DocumentStream([document], SEGMENT, PAD)
    again.restore(stream.state())
    assert again.next_batch(1).starts_NB[:, 0].tolist() == [NEW_TEXT]


def test_a_document_of_one_token_is_passed_over() -> None:
    batch = read(DocumentStream([series(1, 3, 1, 1)], SEGMENT, PAD), 2)
    assert documents(batch, 0) == [[EOT, 1001, 1002], [EOT, 5001, 5002]]


def test_rows_read_their_documents_to_the_end_one_after_the_other() -> None:
    source = series(9, 2, 14, 5, 3)
    batch = read(DocumentStream([source] * 3, SEGMENT, PAD), 30)
    found = [documents(batch, row)[:-1] for row in range(3)]  # the last one may be unfinished
    for row in found:
        numbers = [document[1] // 1000 for document in row]
        assert numbers == sorted(numbers)
        assert row == [source(number).tolist() for number in numbers]


@pytest.mark.parametrize("segments", [2, 3, 12])
def test_segments_per_batch_do_not_change_what_is_read(segments: int) -> None:
    one, many = (DocumentStream([series(9, 2, 14, 5)] * 2, SEGMENT, PAD) for _ in range(2))
    assert same(read(one, 12), read(many, 12 // segments, segments))


def test_a_batch_moves_to_a_device_as_a_whole() -> None:
    batch = DocumentStream([series(7)], SEGMENT, PAD).next_batch(1).to("meta")
    assert {tensor.device.type for tensor in (batch.ids_NBS, batch.labels_NBS, batch.starts_NB)} == {"meta"}


# ---- order


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_rows_draw_from_one_shared_order_whatever_their_number(rows: int) -> None:
    batch = read(DocumentStream([series(9, 2, 14, 5, 3)] * rows, SEGMENT, PAD), 30)
    numbers = sorted(document[1] // 1000 for row in range(rows) for document in documents(batch, row))
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 10


def test_a_row_takes_the_next_document_when_it_has_finished_its_own() -> None:
    batch = read(DocumentStream([series(13, 2, 5)] * 2, SEGMENT, PAD), 4)
    first, second = ([document[1] // 1000 for document in documents(batch, row)] for row in range(2))
    assert first == [0, 4]
    assert second == [1, 2, 3]


def test_an_epoch_holds_every_training_document_exactly_once(corpus: Corpus) -> None:
    count = corpus.num_documents("train")
    stream = DocumentStream([corpus_documents(corpus, 3)], SEGMENT, PAD)
    found = documents(read(stream, 300), 0)
    epochs = [[tuple(document) for document in found[e * count : (e + 1) * count]] for e in range(3)]
    expected = sorted(tuple(corpus.document("train", i).tolist()) for i in range(count))
    assert [sorted(epoch) for epoch in epochs] == [expected] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_documents_come_in_the_order_of_the_seed(corpus: Corpus) -> None:
    def order(seed: int) -> list[list[int]]:
        source = corpus_documents(corpus, seed)
        return [source(number).tolist() for number in range(30)]

    assert order(3) == order(3)
    assert order(3) != order(4)
    batch = read(DocumentStream([corpus_documents(corpus, 3)], SEGMENT, PAD), 300)
    assert documents(batch, 0)[:30] == order(3)


def test_an_earlier_epoch_can_be_asked_for_again(corpus: Corpus) -> None:
    source, count = corpus_documents(corpus, 3), corpus.num_documents("train")
    numbers = [0, count, 1, 5 * count + 2, 2]
    assert [source(n).tolist() for n in numbers] == [corpus_documents(corpus, 3)(n).tolist() for n in numbers]


# ---- recall rows


def test_rows_of_recall_take_no_documents_from_the_corpus() -> None:
    texts, recall = series(9, 2, 14), recall_documents(TASK, 1, 40)
    mixed = read(DocumentStream([texts, recall, texts, recall], SEGMENT, PAD), 40)
    plain = read(DocumentStream([texts, texts], SEGMENT, PAD), 40)
    assert [documents(mixed, row) for row in (0, 2)] == [documents(plain, row) for row in (0, 1)]
    read_by = [documents(mixed, row)[:-1] for row in (1, 3)]
    expected = [recall(number).tolist() for number in range(40)]
    assert read_by[0][0] == expected[0]
    assert read_by[1][0] == expected[1]
    assert all(document in expected for row in read_by for document in row)
    assert sum(map(len, read_by)) > 4


def test_a_recall_document_depends_on_seed_and_number_alone() -> None:
    source = recall_documents(TASK, 1, 80)
    backwards = [source(number).tolist() for number in reversed(range(10))]
    assert [recall_documents(TASK, 1, 80)(number).tolist() for number in range(10)] == backwards[::-1]
    assert len({tuple(document) for document in backwards}) == 10
    assert recall_documents(TASK, 2, 80)(0).tolist() != source(0).tolist()


def test_recall_documents_have_all_lengths_from_a_quarter_to_the_longest() -> None:
    source = recall_documents(TASK, 1, 40)
    lengths = {len(source(number)) for number in range(1000)}
    assert lengths == set(range(10, 41))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_recall_documents_has_text_as_filler(share: float) -> None:
    text = np.arange(1000, 3000, dtype=np.uint16)
    source = recall_documents(TASK, 1, 80, text, share)
    noisy = [bool((source(number) >= 1000).any()) for number in range(400)]
    assert np.mean(noisy) == pytest.approx(share, abs=4 * (share * (1 - share) / 400) ** 0.5)


def test_text_in_recall_documents_is_one_piece_cut_anywhere() -> None:
    source = recall_documents(TASK, 1, 80, np.arange(1000, 3000), 1.0)
    starts = set()
    for number in range(50):
        places = (source(number) >= 1000).nonzero()[0]
        cut = set((source(number)[places] - places).tolist())
        assert len(cut) == 1
        starts |= cut
    assert len(starts) > 40
    assert max(starts) > 2000


def test_a_text_too_short_for_recall_is_refused() -> None:
    source = recall_documents(TASK, 1, 400, np.arange(1000, 1090), 1.0)
    with pytest.raises(ValueError, match="tokens of text are needed as filler, got 90"):
        source(0)


# ---- state


@pytest.mark.parametrize("batches", range(8))
def test_a_restored_stream_goes_on_identically(corpus: Corpus, batches: int) -> None:
    def fresh() -> DocumentStream:
        texts, recall = corpus_documents(corpus, 3), recall_documents(TASK, 1, 40)
        return DocumentStream([texts, texts, recall], 16, PAD)

    stream = fresh()
    for _ in range(batches):
        stream.next_batch(5)
    state = json.loads(json.dumps(stream.state()))
    expected = read(stream, 6, 5)

    again = fresh()
    again.restore(state)
    assert same(read(again, 6, 5), expected)
    again.restore(state)  # a stream that has read already can go back
    assert same(read(again, 6, 5), expected)


def test_reading_on_does_not_change_a_state_that_was_taken() -> None:
    stream = DocumentStream([series(9, 2, 14)] * 2, SEGMENT, PAD)
    stream.next_batch(3)
    state = stream.state()
    before = json.dumps(state)
    stream.next_batch(10)
    stream.restore(state)
    stream.next_batch(10)
    assert json.dumps(state) == before


@pytest.mark.parametrize("rows", [1, 3])
def test_a_state_of_other_rows_is_refused(rows: int) -> None:
    state = DocumentStream([series(9)] * 2, SEGMENT, PAD).state()
    with pytest.raises(ValueError, match=f"the saved data cursor has 2 rows, this training {rows}"):
        DocumentStream([series(9)] * rows, SEGMENT, PAD).restore(state)


def test_a_state_without_recall_rows_is_refused_by_a_stream_with_them() -> None:
    shared = series(9)
    state = DocumentStream([shared, shared], SEGMENT, PAD).state()
    with pytest.raises(ValueError, match="data cursor"):
        DocumentStream([shared, series(5)], SEGMENT, PAD).restore(state)


# ---- windows


def test_every_window_is_read_once_per_epoch_in_another_order() -> None:
    windows = Windows(np.arange(1000, 1027, dtype=np.uint16), batch=2, width=6, stride=4, seed=1)
    starts = []
    for _ in range(9):  # three epochs of six windows
        batch = windows.next_batch()
        assert batch.ids_NBS.shape == (1, 2, 6)
        for ids, labels in zip(batch.ids_NBS[0], batch.labels_NBS[0], strict=True):
            starts.append(int(ids[0]))
            assert ids.tolist() == list(range(starts[-1], starts[-1] + 6))
            assert labels.tolist() == list(range(starts[-1] + 1, starts[-1] + 7))
        assert batch.starts_NB.all()
    epochs = [starts[e * 6 : (e + 1) * 6] for e in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [[1000, 1004, 1008, 1012, 1016, 1020]] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_segments_of_windows_are_further_windows() -> None:
    one, many = (Windows(np.arange(1000, 1100), batch=2, width=6, stride=3, seed=1) for _ in range(2))
    expected = [one.next_batch() for _ in range(4)]
    found = many.next_batch(4)
    assert found.ids_NBS.tolist() == [batch.ids_NBS[0].tolist() for batch in expected]
    assert found.labels_NBS.tolist() == [batch.labels_NBS[0].tolist() for batch in expected]
    assert found.starts_NB.tolist() == [[NEW_DOCUMENT, NEW_DOCUMENT]] * 4


@pytest.mark.parametrize("batches", [0, 1, 2, 3, 7])
def test_restored_windows_go_on_identically(batches: int) -> None:
    def fresh() -> Windows:
        return Windows(np.arange(1000, 1027), batch=4, width=6, stride=4, seed=1)  # epochs end within a batch

    windows = fresh()
    for _ in range(batches):
        windows.next_batch()
    state = json.loads(json.dumps(windows.state()))
    expected = [windows.next_batch().ids_NBS.tolist() for _ in range(5)]
    again = fresh()
    for _ in range(2):
        again.restore(state)
        assert [again.next_batch().ids_NBS.tolist() for _ in range(5)] == expected


def test_the_order_of_windows_follows_from_the_seed() -> None:
    def order(seed: int) -> list[list[list[list[int]]]]:
        windows = Windows(np.arange(1000, 1100), batch=2, width=6, stride=3, seed=seed)
        return [windows.next_batch().ids_NBS.tolist() for _ in range(3)]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_a_corpus_of_exactly_one_window_is_enough_and_a_token_less_is_refused() -> None:
    assert Windows(np.arange(7), batch=2, width=6, stride=4, seed=0).next_batch().ids_NBS.tolist() == [
        [[0, 1, 2, 3, 4, 5]] * 2
    ]
    with pytest.raises(ValueError, match="the corpus has 6 tokens, too few for one window of 6"):
        Windows(np.arange(6), batch=2, width=6, stride=4, seed=0)


def test_windows_and_streams_tell_their_number_of_rows() -> None:
    assert len(Windows(np.arange(50), batch=3, width=6, stride=4, seed=0)) == 3
    assert len(DocumentStream([series(9)] * 5, SEGMENT, PAD)) == 5


# ---- stages


def staged(batches: list[int]) -> Stages:
    return Stages([DocumentStream([series(5, first=100 * stage)] * 2, SEGMENT, PAD) for stage in (1, 2, 3)], batches)


def stages_read(stream: Stages, count: int) -> list[int]:
    """The stage that each of some batches is from: the first hundred of a token that is no end of text."""
    return [int(stream.next_batch().ids_NBS[0, 0, 1]) // 100_000 for _ in range(count)]


def test_stages_take_turns_and_the_last_one_goes_on() -> None:
    assert stages_read(staged([2, 1, 3]), 8) == [1, 1, 2, 3, 3, 3, 3, 3]


@pytest.mark.parametrize("done", range(7))
def test_stages_go_on_from_a_saved_place(done: int) -> None:
    whole, first, second = staged([2, 1, 3]), staged([2, 1, 3]), staged([2, 1, 3])
    for _ in range(done):
        whole.next_batch()
        first.next_batch()
    second.restore(json.loads(json.dumps(first.state())))
    for _ in range(7):
        expected, found = whole.next_batch(), second.next_batch()
        assert torch.equal(found.ids_NBS, expected.ids_NBS)
        assert torch.equal(found.starts_NB, expected.starts_NB)
