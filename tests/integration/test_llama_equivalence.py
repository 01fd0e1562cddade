"""Logits here and in transformers, on the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ulm.config import ModelConfig
from ulm.hf import from_llama, to_llama, to_mistral
from ulm.model import Decoder, KVCache
from ulm.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
SHAPES: dict[str, dict[str, Any]] = {
    "gqa tied": {},
    "untied": {"tie_embeddings": False},
    "one kv head": {"n_kv_head": 1},
    "no gqa": {"n_kv_head": 4},
    "wide heads, other theta": {"head_size": 64, "rope_theta": 100_000.0, "norm_eps": 1e-6},
}


def make_decoder(**changes: Any) -> Decoder:
    fields = {
        "vocab_size": 97,
        "n_layer": 3,
        "n_head": 4,
        "n_kv_head": 2,
        "d_model": 64,
        "d_ff": 96,
        "head_size": 32,
        "window": 24,
    }
    model = Decoder(ModelConfig(**{**fields, **changes}), seed=1)
    # Initial weights give logits near zero; larger ones make a wrong rotation or head order visible.
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model.eval()


def make_llama(**changes: Any) -> Any:
    fields = {
        "vocab_size": 97,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 40,
        "initializer_range": 0.2,
    }
    torch.manual_seed(3)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**fields, **changes})).eval()


def ids(length: int) -> torch.Tensor:
    return torch.randint(0, 97, (3, length), generator=torch.Generator().manual_seed(length))


@torch.no_grad()
def gap(decoder: Decoder, other: Any, length: int) -> float:
    tokens = ids(length)
    expected = other(tokens).logits
    assert expected.abs().max() > 0.5  # else a small difference would mean nothing
    return float((decoder(tokens) - expected).abs().max())


@pytest.mark.parametrize("shape", SHAPES)
def test_exported_llama_has_the_same_logits_up_to_the_window(shape: str) -> None:
    decoder = make_decoder(**SHAPES[shape])
    assert gap(decoder, to_llama(decoder), decoder.config.window) <= TOLERANCE


def test_exported_llama_differs_beyond_the_window() -> None:
    decoder = make_decoder()
    assert gap(decoder, to_llama(decoder), decoder.config.window + 8) > 100 * TOLERANCE


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_exported_mistral_has_the_same_logits_beyond_the_window(attention: str) -> None:
    decoder = make_decoder()
    mistral = to_mistral(decoder)
    mistral.set_attn_implementation(attention)
    assert gap(decoder, mistral, 3 * decoder.config.window) <= TOLERANCE


def test_exported_mistral_agrees_with_cached_decoding_beyond_the_window() -> None:
    decoder = make_decoder()
    tokens = ids(60)
    cache = KVCache.empty(decoder.config, 3)
    with torch.no_grad():
        steps = [decoder.extend(tokens[:, t : t + 1], cache)[0] for t in range(60)]
        expected = to_mistral(decoder)(tokens).logits
    assert (torch.cat(steps, dim=1) - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 4},
        {"head_dim": 16, "rms_norm_eps": 1e-5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
    ],
)
def test_imported_llama_has_the_same_logits(changes: dict[str, Any]) -> None:
    llama = make_llama(**changes)
    decoder, tokenizer = from_llama(llama)
    assert tokenizer is None
    assert decoder.config.window == 40
    assert gap(decoder, llama, 40) <= TOLERANCE


def test_imported_mistral_keeps_its_window() -> None:
    decoder = make_decoder(tie_embeddings=False)
    back, _ = from_llama(to_mistral(decoder))
    assert back.config == decoder.config
    assert torch.equal(back(ids(60)), decoder(ids(60)))


def test_a_round_trip_changes_no_bit() -> None:
    decoder = make_decoder()
    back, _ = from_llama(to_llama(decoder))
    assert back.config == decoder.config
    for (name, mine), (_, theirs) in zip(decoder.state_dict().items(), back.state_dict().items(), strict=True):
        assert torch.equal(mine, theirs), name


def test_export_copies_the_weights() -> None:
    decoder = make_decoder()
    llama = to_llama(decoder)
    with torch.no_grad():
        llama.model.layers[0].mlp.down_proj.weight.zero_()
        llama.model.embed_tokens.weight.zero_()
    assert decoder.blocks[0].down.weight.abs().max() > 0
    assert decoder.embed.weight.abs().max() > 0


def test_export_leaves_the_global_generator_alone() -> None:
    decoder = make_decoder()
    before = torch.get_rng_state()
    to_llama(decoder)
    assert torch.equal(before, torch.get_rng_state())


def test_export_in_bfloat16_keeps_exact_rotary_frequencies() -> None:
    exact = to_llama(make_decoder()).model.rotary_emb.inv_freq
    llama = to_llama(make_decoder().to(torch.bfloat16))
    assert llama.dtype == torch.bfloat16
    assert llama.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(llama.model.rotary_emb.inv_freq, exact)


def test_import_from_a_folder_brings_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = Tokenizer.bytes()
    decoder = make_decoder(vocab_size=tokenizer.vocab_size)
    llama = to_llama(decoder, tokenizer)
    assert (llama.config.eos_token_id, llama.config.pad_token_id) == (tokenizer.eot_id, tokenizer.pad_id)
    llama.save_pretrained(tmp_path)
    _, nothing = from_llama(tmp_path)
    assert nothing is None
    tokenizer.save(tmp_path / "tokenizer.json")
    back, loaded = from_llama(tmp_path)
    assert torch.equal(back(ids(20)), decoder(ids(20)))
    assert loaded is not None
    assert loaded.encode("12+3") == tokenizer.encode("12+3")


@pytest.mark.parametrize(
    ("changes", "feature"),
    [
        ({"attention_bias": True}, "attention bias"),
        ({"mlp_bias": True}, "MLP bias"),
        ({"hidden_act": "gelu"}, "activation gelu"),
        (
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
            "rope scaling linear",
        ),
    ],
)
def test_unsupported_feature_is_named(changes: dict[str, Any], feature: str) -> None:
    with pytest.raises(ValueError, match=feature):
        from_llama(make_llama(**changes))


def test_another_architecture_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ValueError, match="cannot import a gpt2 model"):
        from_llama(tmp_path)


def test_a_folder_without_a_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no Llama model with safetensors at") as caught:
        from_llama(tmp_path)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    llama = make_llama()
    llama.config.save_pretrained(tmp_path)
    torch.save(llama.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors"):
        from_llama(tmp_path)


def test_width_that_llama_cannot_hold_is_refused_and_mistral_holds_it() -> None:
    decoder = make_decoder(n_head=3, n_kv_head=1)
    with pytest.raises(ValueError, match="use to_mistral"):
        to_llama(decoder)
    assert gap(decoder, to_mistral(decoder), 30) <= TOLERANCE
