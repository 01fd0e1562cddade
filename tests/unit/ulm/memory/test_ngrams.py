"""Addresses of n-grams: what they are by hand, the same on every path, and what a text's start and padding mean."""

from __future__ import annotations

import pytest
import torch

from ulm.memory.ngrams import NOTHING, NgramHash

VOCAB = 50
HASH = NgramHash(list(range(VOCAB)), layers=2, orders=(2, 3), heads=2, rows=101, seed=3)


def by_hand(history: list[int], layer: int, head: int) -> int:
    """Return the row of the n-gram that ends a text, in Python's unbounded integers."""
    longest = [NOTHING] * 3 + history
    mixed = 0
    for token, multiplier in zip(reversed(longest[-3:]), HASH.multipliers_LHN[layer, head].tolist(), strict=True):
        product = (token + 1) * multiplier % 2**64
        mixed ^= product - 2**64 if product >= 2**63 else product
    mixed = (mixed ^ (mixed >> 29)) & (2**62 - 1)
    return mixed % int(HASH.primes_LH[layer, head]) + int(HASH.primes_LH[layer, :head].sum())


def test_rows_are_those_computed_by_hand() -> None:
    text = torch.randint(0, VOCAB, (20,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = HASH(torch.tensor([text]), len(text))
    assert rows.shape == (2, 1, 20, 4)
    for layer in range(2):
        for head in range(4):
            wanted = [by_hand(text[: at + 1], layer, head) for at in range(len(text))]
            assert rows[layer, 0, :, head].tolist() == wanted


def test_numpy_and_torch_lead_to_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.randint(NOTHING, VOCAB, (3, 9), generator=torch.Generator().manual_seed(1))
    by_numpy = [HASH(ids, last) for last in (1, 2, 7, 9)]
    monkeypatch.setattr(torch.Tensor, "numpy", lambda tensor: tensor)
    for last, rows in zip((1, 2, 7, 9), by_numpy, strict=True):
        assert torch.equal(HASH(ids, last), rows)


def test_a_text_behind_padding_has_the_rows_that_it_has_alone() -> None:
    text = torch.tensor([[4, 9, 2, 2]])
    padded = torch.cat((torch.full((1, 3), NOTHING), text), dim=1)
    assert torch.equal(HASH(padded, 4), HASH(text, 4))


def test_steps_lead_to_the_rows_of_the_whole_text() -> None:
    text = torch.randint(0, VOCAB, (2, 8), generator=torch.Generator().manual_seed(2))
    steps = [HASH(text[:, : at + 1], 1) for at in range(8)]
    assert torch.equal(torch.cat(steps, dim=2), HASH(text, 8))
