"""Sentences are cut where they end, and pairs come from one document."""

from __future__ import annotations

import numpy as np
import pytest

from ulm.data.coherence import Sentences
from ulm.tokenizer import Tokenizer

SENTENCES = Sentences(eot_id=1, end_ids=(2,), most=40)
DOCUMENT = np.array([1, *(token for n in range(10) for token in (10 + n, 30 + n, 50 + n, 70 + n, 2))])


def test_a_document_is_cut_where_sentences_end() -> None:
    parts = SENTENCES.cut(np.append(DOCUMENT, [99, 98]))
    assert [part.tolist() for part in parts[:2]] == [[10, 30, 50, 70, 2], [11, 31, 51, 71, 2]]
    assert len(parts) == 10  # what no mark ends is none
    assert SENTENCES.cut(np.array([1])) == []


def test_the_right_sentence_follows_its_context_and_the_wrong_one_does_not() -> None:
    for seed in range(50):
        pair = SENTENCES.continuations(np.random.default_rng(seed), DOCUMENT)
        assert pair is not None
        assert pair.context[0] == 1
        assert pair.right[0] == pair.context[-5] + 1
        assert pair.wrong[0] not in (pair.right[0], pair.context[-5])
        assert len(pair.context) + len(pair.right) <= SENTENCES.most
    assert SENTENCES.continuations(np.random.default_rng(0), DOCUMENT[:16]) is None


@pytest.mark.parametrize("block", [1, 2])
def test_shuffled_blocks_are_the_same_sentences_in_another_order(block: int) -> None:
    pair = SENTENCES.shuffled(np.random.default_rng(1), DOCUMENT, block)
    assert pair is not None
    whole, other = pair
    assert whole.tolist() == DOCUMENT[: len(whole)].tolist()
    assert len(whole) <= SENTENCES.most
    assert whole.tolist() != other.tolist()
    assert sorted(whole.tolist()) == sorted(other.tolist())
    assert SENTENCES.shuffled(np.random.default_rng(1), DOCUMENT[:6], block) is None


def test_a_tokenizer_without_a_full_stop_is_refused() -> None:
    codec = Tokenizer.train(["One. Two! Three?"] * 9, 300)
    assert len(Sentences.of(codec).end_ids) == 3
    with pytest.raises(ValueError, match="needs a tokenizer with a token"):
        Sentences.of(_Silent())  # type: ignore[arg-type]


class _Silent:
    """A tokenizer of letters alone."""

    eot_id = 1
    token_texts = ("a", "b")
