"""Marks, weights, errors, and the endless series of documents with holes."""

from __future__ import annotations

import numpy as np
import pytest

from ulm.data.infill import CUE, END_WEIGHT, MARKS, InfillTask, infill_documents
from ulm.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the sun was warm and the wind was still"] * 9, 300, marks=MARKS)
TASK = InfillTask.of(TOKENIZER)
TEXT = np.arange(1000, 9000)


def test_marks_are_tokens_that_no_text_is_encoded_as() -> None:
    marks = {TASK.fill_id, TASK.end_id, *TASK.hole_ids}
    assert len(marks) == len(MARKS)
    assert not marks & set(TOKENIZER.encode(" ".join(MARKS)))
    with pytest.raises(ValueError, match="special tokens <hole 1>"):
        InfillTask.of(Tokenizer.bytes())


def test_what_nothing_can_predict_has_no_weight() -> None:
    weights = TASK.weights(TOKENIZER.vocab_size)
    assert weights[[TASK.fill_id, *TASK.hole_ids]].tolist() == [0.0] * 4
    assert weights[TASK.end_id] == END_WEIGHT
    assert set(np.delete(weights, [TASK.fill_id, TASK.end_id, *TASK.hole_ids])) == {1.0}


def test_a_passage_too_short_for_a_hole_is_refused() -> None:
    with pytest.raises(ValueError, match="a passage of 7 tokens is too short"):
        TASK.cut(np.random.default_rng(1), np.arange(7))


def test_an_orders_of_one_text() -> None:
    passage = np.arange(100, 120)
    cut = TASK.cut(np.random.default_rng(3), passage)
    before, after, span = *cut.sides, cut.spans[0]
    hole = TASK.hole_ids[0]
    assert TASK.window(cut).tolist() == [1, *before, hole, *after, TASK.fill_id, hole, *span, TASK.end_id]
    assert TASK.window(cut, suffix_first=True).tolist() == [
        1, hole, *after, TASK.fill_id, hole, *before, *span, TASK.end_id,
    ]  # fmt: skip
    assert TASK.far(cut)[-1].tolist() == [1, TASK.fill_id, hole, *before[-CUE:], *span, TASK.end_id]


def test_documents_are_drawn_by_number_and_fit_into_the_window() -> None:
    series = infill_documents(TASK, TEXT, 1, 64, far=0.5, seen=0.5, longest=256)
    documents = [series(number) for number in range(200)]
    again = [infill_documents(TASK, TEXT, 1, 64, far=0.5, seen=0.5, longest=256)(number) for number in range(200)]
    assert all(
        np.array_equal(x, y)
        for one, other in zip(documents, again, strict=True)
        for x, y in zip(one, other, strict=True)
    )
    far = [document for document in documents if len(document) > 1]
    assert 60 < len(far) < 140
    assert all(len(text) <= 65 for document in documents for text in (document[0], document[-1]))
    assert max(len(document[1]) for document in far) > 128
    for _, between, asked in far:
        hidden = set(asked[2 + 1 :]) & set(TEXT)
        assert not hidden & set(between)


def test_too_little_text_is_refused() -> None:
    with pytest.raises(ValueError, match="100 tokens of text are too few"):
        infill_documents(TASK, TEXT[:100], 1, 64, far=0.5, seen=0.5, longest=256)
