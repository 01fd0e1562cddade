from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ulm.config import ModelConfig
from ulm.model import Decoder, KVCache

pytestmark = pytest.mark.usefixtures("one_thread")

VOCAB = 31


def make_model(window: int, n_layer: int = 2) -> Decoder:
    config = ModelConfig(VOCAB, n_layer, n_head=4, n_kv_head=2, d_model=16, d_ff=24, head_size=4, window=window)
    model = Decoder(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval().requires_grad_(False)


MODELS = {window: make_model(window) for window in (1, 3, 8, 64)}
windows = st.sampled_from(sorted(MODELS))
texts = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=24)


@settings(deadline=None, max_examples=60)
@given(windows, texts, st.data())
def test_a_future_token_never_alters_a_past_logit(window: int, text: list[int], data: st.DataObject) -> None:
    model = MODELS[window]
    at = data.draw(st.integers(0, len(text) - 1))
    tail = data.draw(st.lists(st.integers(0, VOCAB - 1), min_size=len(text) - at, max_size=len(text) - at))
    first = model(torch.tensor([text]))[0, :at]
    second = model(torch.tensor([text[:at] + tail]))[0, :at]
    assert torch.equal(first, second)


@settings(deadline=None, max_examples=60)
@given(windows, texts, st.data())
def test_cached_logits_equal_uncached_ones_for_any_chunking(window: int, text: list[int], data: st.DataObject) -> None:
    model = MODELS[window]
    cache = KVCache.empty(model.config, 1)
    pieces, at = [], 0
    while at < len(text):
        size = data.draw(st.integers(1, min(cache.slots, len(text) - at)))
        pieces.append(model.extend(torch.tensor([text[at : at + size]]), cache)[0])
        at += size
    assert (torch.cat(pieces, dim=1) - model(torch.tensor([text]))).abs().max() <= 1e-5


@settings(deadline=None, max_examples=40)
@given(windows, st.lists(texts, min_size=1, max_size=5), st.data())
def test_rows_of_any_lengths_read_together_as_alone(window: int, rows: list[list[int]], data: st.DataObject) -> None:
    model = MODELS[window]
    cache = KVCache.empty(model.config, len(rows))
    seen = [0] * len(rows)
    got: list[list[torch.Tensor]] = [[] for _ in rows]
    while any(count < len(row) for count, row in zip(seen, rows, strict=True)):
        width = data.draw(st.integers(1, min(cache.slots, 6)))
        counts = [min(width, len(row) - count) for count, row in zip(seen, rows, strict=True)]
        ids = torch.full((len(rows), width), data.draw(st.integers(0, VOCAB - 1)))  # anything may stand in padding
        for i, (row, at, count) in enumerate(zip(rows, seen, counts, strict=True)):
            ids[i, :count] = torch.tensor(row[at : at + count], dtype=torch.long)
        logits, _ = model.extend(ids, cache, torch.tensor(counts))
        for i, count in enumerate(counts):
            got[i].append(logits[i, :count])
            seen[i] += count
    for row, pieces in zip(rows, got, strict=True):
        assert (torch.cat(pieces) - model(torch.tensor([row]))[0]).abs().max() <= 1e-5


@settings(deadline=None, max_examples=40)
@given(windows, texts)
def test_ring_holds_the_last_window_positions(window: int, text: list[int]) -> None:
    model = MODELS[window]
    cache = KVCache.empty(model.config, 1)
    for token in text:
        model.extend(torch.tensor([[token]]), cache)
    held = sorted(p for p in cache.positions_BW[0].tolist() if p >= 0)
    assert held == list(range(max(0, len(text) - window), len(text)))
