from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from ulm.config import PRESETS, ModelConfig, preset
from ulm.model import Decoder, KVCache

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "n_layer": 2,
    "n_head": 4,
    "n_kv_head": 2,
    "d_model": 32,
    "d_ff": 48,
    "head_size": 8,
    "window": 6,
}


def make_model(**changes: Any) -> Decoder:
    """Return a model whose logits react to everything: larger weights than the initial ones."""
    model = Decoder(ModelConfig(**{**SHAPE, **changes}), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval().requires_grad_(False)


def random_ids(rows: int, length: int, seed: int = 3) -> Tensor:
    return torch.randint(0, SHAPE["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(seed))


def changed(ids: Tensor, position: int) -> Tensor:
    other = ids.clone()
    other[:, position] = (other[:, position] + 1) % SHAPE["vocab_size"]
    return other


# STM


def test_window_evicts_oldest_token() -> None:
    model, ids = make_model(n_layer=1), random_ids(2, 12)
    last = model(ids)[:, -1]
    assert torch.equal(last, model(changed(ids, 12 - 6 - 1))[:, -1])  # one further back than the window
    assert not torch.equal(last, model(changed(ids, 12 - 6))[:, -1])  # the oldest token in it


def test_window_evicts_oldest_token_from_the_cache() -> None:
    model, ids = make_model(n_layer=1), random_ids(2, 12)

    def last(tokens: Tensor) -> Tensor:
        cache = KVCache.empty(model.config, 2)
        return torch.cat([model.extend(tokens[:, t : t + 1], cache)[0] for t in range(12)], dim=1)[:, -1]

    assert torch.equal(last(ids), last(changed(ids, 12 - 6 - 1)))
    assert not torch.equal(last(ids), last(changed(ids, 12 - 6)))


def test_depth_widens_what_a_position_has_heard_of() -> None:
    model, ids = make_model(n_layer=2), random_ids(1, 20)
    last = model(ids)[:, -1]
    reach = 2 * (6 - 1)  # each layer looks window - 1 tokens further back
    assert not torch.equal(last, model(changed(ids, 19 - reach))[:, -1])
    assert torch.equal(last, model(changed(ids, 19 - reach - 1))[:, -1])


def test_cache_never_holds_more_than_the_window() -> None:
    model = make_model()
    cache = KVCache.empty(model.config, 1, slots=100)
    assert cache.slots == 6
    for token in random_ids(1, 15).T:
        model.extend(token[None], cache)
    assert sorted(cache.positions_BW[0].tolist()) == [9, 10, 11, 12, 13, 14]
    assert cache.lengths_B.tolist() == [15]


def test_chunk_longer_than_the_cache_is_refused() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="a chunk of 7 tokens does not fit a cache of 6 slots"):
        model.extend(random_ids(1, 7), KVCache.empty(model.config, 1))


def test_fewer_slots_are_exact_for_texts_that_fit() -> None:
    model, ids = make_model(window=40), random_ids(4, 8)
    small, _ = model.extend(ids, KVCache.empty(model.config, 4, slots=8))
    assert (small - model(ids)).abs().max() <= 1e-5


# Padding and batches


def test_padding_alters_neither_other_rows_nor_later_logits() -> None:
    model, ids = make_model(), random_ids(4, 5)
    counts = torch.tensor([5, 2, 0, 4])
    follow = random_ids(4, 3, seed=4)
    outputs = []
    for filler in (0, 7):  # whatever stands in the padding
        padded = torch.where(torch.arange(5) < counts[:, None], ids, filler)
        cache = KVCache.empty(model.config, 4)
        first, _ = model.extend(padded, cache, counts)
        second, _ = model.extend(follow, cache)
        outputs.append((first, second))
        assert cache.lengths_B.tolist() == [8, 5, 3, 7]
    for row, count in enumerate(counts.tolist()):
        alone = torch.cat([ids[row : row + 1, :count], follow[row : row + 1]], dim=1)
        expected = model(alone)[0]
        for first, second in outputs:
            assert torch.allclose(first[row, :count], expected[:count], atol=1e-5)
            assert torch.allclose(second[row], expected[count:], atol=1e-5)
    assert torch.equal(outputs[0][1], outputs[1][1])


def test_padding_does_not_evict_what_a_full_ring_holds() -> None:
    model, ids = make_model(), random_ids(4, 6)
    cache = KVCache.empty(model.config, 4)
    model.extend(ids, cache)
    before = cache.select(torch.arange(4))
    model.extend(random_ids(4, 3, seed=5), cache, torch.tensor([0, 3, 1, 0]))
    for row in (0, 3):
        assert torch.equal(cache.kv_LBWED[:, row], before.kv_LBWED[:, row])
        assert torch.equal(cache.positions_BW[row], before.positions_BW[row])
    assert sorted(cache.positions_BW[1].tolist()) == [3, 4, 5, 6, 7, 8]


def test_last_only_returns_the_last_real_token() -> None:
    model, ids = make_model(), random_ids(4, 5)
    counts = torch.tensor([5, 2, 1, 4])
    every, _ = model.extend(ids, KVCache.empty(model.config, 4), counts)
    last, _ = model.extend(ids, KVCache.empty(model.config, 4), counts, last_only=True)
    assert last.shape == (4, 1, SHAPE["vocab_size"])
    assert torch.allclose(last[:, 0], every[torch.arange(4), counts - 1], atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [4, 8, 12, 64])
def test_a_row_has_the_same_bits_whatever_its_companions(batch: int, threads: int) -> None:
    """Equal shapes and batches of a multiple of four rows give equal bits.

    Other sizes differ: `linear` splits its rows over the threads, and a share of less than four takes another
    kernel (torch 2.13, AVX2: 5, 6, 7, 9, 10 and 11 rows at 2 and 8 threads, up to 27 at 16; no multiple of four).
    """
    torch.set_num_threads(threads)
    model = make_model(vocab_size=50, n_layer=2, d_model=64, n_head=4, head_size=32, d_ff=96, window=16)
    mine, next_token = random_ids(1, 7), random_ids(1, 1, seed=6)
    generator = torch.Generator().manual_seed(batch)
    results = []
    for position in (0, 1, batch // 2, batch - 1):
        ids = torch.randint(0, 50, (batch, 7), generator=generator)
        counts = torch.randint(1, 8, (batch,), generator=generator)
        follow = torch.randint(0, 50, (batch, 1), generator=generator)
        ids[position], counts[position], follow[position] = mine[0], 7, next_token[0]
        cache = KVCache.empty(model.config, batch)
        first, _ = model.extend(ids, cache, counts, last_only=True)
        second, _ = model.extend(follow, cache)
        results.append(torch.cat((first[position], second[position])))
    ids, follow = mine.expand(4, 7), next_token.expand(4, 1)  # the smallest batch the engine pads to
    cache = KVCache.empty(model.config, 4)
    results.append(torch.cat((model.extend(ids, cache, last_only=True)[0][0], model.extend(follow, cache)[0][0])))
    for other in results[1:]:
        assert torch.equal(results[0], other)


def test_select_continues_only_the_chosen_rows() -> None:
    model, ids = make_model(), random_ids(5, 6)
    cache = KVCache.empty(model.config, 5)
    model.extend(ids[:, :4], cache, torch.tensor([4, 3, 4, 2, 4]))
    chosen = cache.select(torch.tensor([2, 0, 2]))
    expected, _ = model.extend(ids[:, 4:], cache)
    got, _ = model.extend(ids[[2, 0, 2], 4:], chosen)
    assert torch.allclose(got, expected[[2, 0, 2]], atol=1e-6)
    assert chosen.lengths_B.tolist() == [6, 6, 6]


def test_select_copies() -> None:
    model = make_model()
    cache = KVCache.empty(model.config, 3)
    model.extend(random_ids(3, 4), cache)
    copy = cache.select(torch.tensor([1, 2]))
    kept = copy.select(torch.tensor([0, 1]))
    model.extend(random_ids(3, 4, seed=8), cache)
    for field in ("kv_LBWED", "positions_BW", "lengths_B"):
        assert torch.equal(getattr(copy, field), getattr(kept, field)), field


# Weights and configs


def test_same_seed_gives_the_same_weights_whatever_the_global_generator() -> None:
    torch.manual_seed(1)
    first = Decoder(ModelConfig(**SHAPE), seed=5).state_dict()
    torch.manual_seed(2)
    second = Decoder(ModelConfig(**SHAPE), seed=5).state_dict()
    other = Decoder(ModelConfig(**SHAPE), seed=6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embed.weight"], other["embed.weight"])


@pytest.mark.process
def test_same_seed_gives_the_same_weights_in_another_process() -> None:
    script = (
        "from ulm import Decoder, ModelConfig\n"
        f"model = Decoder(ModelConfig(**{SHAPE!r}), seed=5)\n"
        "print([p.double().sum().item().hex() for p in model.parameters()])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    mine = [p.double().sum().item().hex() for p in Decoder(ModelConfig(**SHAPE), seed=5).parameters()]
    assert done.stdout.strip() == str(mine)


@pytest.mark.parametrize("tied", [True, False])
def test_config_counts_the_parameters_of_the_model(tied: bool) -> None:
    config = ModelConfig(**SHAPE, tie_embeddings=tied)
    assert config.num_parameters() == Decoder(config).num_parameters()


@pytest.mark.parametrize(("name", "least", "most"), [("1m", 0.8e6, 1.6e6), ("5m", 4e6, 6e6), ("10m", 8e6, 12e6)])
def test_presets_have_the_size_they_are_named_after(name: str, least: float, most: float) -> None:
    assert least <= preset(name, vocab_size=300).num_parameters() <= most


def test_the_135m_preset_is_smollm2() -> None:
    assert preset("135m", vocab_size=49_152).num_parameters() == 134_515_008


@pytest.mark.parametrize("name", PRESETS)
def test_presets_use_head_sizes_that_servers_support(name: str) -> None:
    assert preset(name, vocab_size=300).head_size in (32, 64)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": 0}, "vocab_size must be a whole number"),
        ({"window": -1}, "window must be a whole number"),
        ({"n_layer": 1.5}, "n_layer must be a whole number"),
        ({"n_kv_head": 3}, "n_head 4 is not a multiple of n_kv_head 3"),
        ({"head_size": 7}, "head_size 7 must be even"),
    ],
)
def test_a_config_that_cannot_be_built_is_explained(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig(**{**SHAPE, **changes})


def test_config_round_trips_and_names_unknown_and_missing_keys() -> None:
    config = ModelConfig(**SHAPE)
    assert ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=r"unknown keys depth; known: .*n_layer"):
        ModelConfig.from_dict({**config.to_dict(), "depth": 3})
    with pytest.raises(ValueError, match="vocab_size"):
        ModelConfig.from_dict({})


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown model preset '2m'; available: tiny, 1m"):
        preset("2m", vocab_size=10)
