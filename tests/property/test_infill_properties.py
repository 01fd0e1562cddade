"""Infilling leaks nothing: what is hidden changes no prediction before its own, and no byte of memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ulm.config import LTMConfig, ModelConfig
from ulm.data.infill import InfillTask
from ulm.model import Decoder
from ulm.streaming import read_document

pytestmark = pytest.mark.usefixtures("one_thread")

VOCAB, FIRST = 40, 10
TASK = InfillTask(eot_id=1, fill_id=7, end_id=8, hole_ids=(4, 5, 6))
passages = st.lists(st.integers(FIRST, VOCAB - 1), min_size=8, max_size=40).map(lambda ids: np.array(ids, np.int64))
seeds = st.integers(0, 10_000)


def make_model() -> Decoder:
    """A model with a memory that is written and read all the time."""
    ltm = LTMConfig(layers=(1,), n_head=2, head_size=8, capacity=64, segment=8, threshold_bits=0.1, similarity=0.1)
    model = Decoder(ModelConfig(VOCAB, 2, 2, 1, 16, 24, 8, window=16, ltm=ltm), seed=1)
    with torch.no_grad():
        model.ltm.readers[0].gate.fill_(1.0)  # type: ignore[union-attr,operator]
    return model.eval().requires_grad_(False)


MODEL = make_model()


@given(passages, seeds, st.integers(1, 3))
def test_every_token_of_a_passage_is_read_once(passage: np.ndarray, seed: int, holes: int) -> None:
    cut = TASK.cut(np.random.default_rng(seed), passage, holes)
    assert 1 <= len(cut.spans) <= holes
    assert all(len(part) for part in cut.spans)
    whole = [part for pair in zip(cut.sides, [*cut.spans, []], strict=True) for part in pair]
    assert np.concatenate(whole).tolist() == passage.tolist()
    assert sum(map(len, cut.spans)) <= max(1, TASK.hidden * len(passage))
    texts = [TASK.window(cut)]
    if len(cut.spans) == 1:
        texts += [TASK.window(cut, suffix_first=True)]
    for text in texts:
        assert sorted(t for t in text if t >= FIRST) == sorted(passage.tolist())
        assert (text == TASK.end_id).sum() == len(cut.spans)


@given(passages, seeds, st.booleans(), st.data())
@settings(deadline=None)
def test_a_hidden_token_changes_nothing_before_its_own_prediction(
    passage: np.ndarray, seed: int, suffix_first: bool, data: st.DataObject
) -> None:
    cut = TASK.cut(np.random.default_rng(seed), passage)
    text = TASK.window(cut, suffix_first=suffix_first)
    first = len(text) - 1 - len(cut.spans[0])
    hidden = data.draw(st.integers(first, len(text) - 2))
    other = text.copy()
    other[hidden] = FIRST + (text[hidden] - FIRST + 1) % (VOCAB - FIRST)
    ours, theirs = (read_document(MODEL, torch.from_numpy(ids)[None]) for ids in (text, other))
    assert torch.equal(ours.all_logits()[:, :hidden], theirs.all_logits()[:, :hidden])
    before, theirs_before = (read_document(MODEL, torch.from_numpy(ids[:hidden])[None]) for ids in (text, other))
    assert before.state.memory is not None
    assert theirs_before.state.memory is not None
    assert before.state.memory.to_bytes() == theirs_before.state.memory.to_bytes()


@given(passages, seeds)
def test_a_far_text_is_told_without_what_it_hides(passage: np.ndarray, seed: int) -> None:
    """The hidden tokens stand in the last text alone; where the passage is seen, in the first one, too."""
    numbered = np.arange(FIRST, FIRST + len(passage))
    cut = TASK.cut(np.random.default_rng(seed), numbered)
    filler = np.array([1, 200, 201])
    told, between, asked = TASK.far(cut, [filler])
    assert between is filler
    assert not set(cut.spans[0]) & set(told)
    assert set(numbered) - set(cut.spans[0]) <= set(told)
    assert not set(cut.sides[1]) & set(asked)
    seen, *_ = TASK.far(cut, seen=True)
    assert seen.tolist() == [1, *numbered]
    assert asked.tolist()[-1 - len(cut.spans[0]) : -1] == cut.spans[0].tolist()
