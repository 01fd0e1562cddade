"""A gate between a model and the same with its memory: who is asked where, and what stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.hf_models import tiny_model, tiny_tokenizer

from ulm.engram import EngramConfig, GatedEngramAdapter, add_engram

pytestmark = pytest.mark.thorough

TEXT = torch.arange(20, 60).reshape(2, 20)


def remembering(seed: int = 0) -> Any:
    """A model with a learned tier that speaks up everywhere."""
    torch.manual_seed(seed)
    model = add_engram(
        tiny_model(), EngramConfig(layers=(1,), heads=2, rows=499, head_size=8, exact=False), tiny_tokenizer()
    )
    for layer in model.adapter.tables.layers:
        torch.nn.init.normal_(layer.table.weight, std=0.5)
    return model


def probabilities(model: Any, ids: torch.Tensor, bare: bool) -> torch.Tensor:
    with torch.no_grad():
        if bare:
            with model.disable_adapter():
                return model(ids).logits.softmax(-1)
        return model(ids).logits.softmax(-1)


def test_an_untrained_gate_mixes_both_models_by_half() -> None:
    model = remembering()
    base, tuned = (probabilities(model, TEXT, bare) for bare in (True, False))
    output = GatedEngramAdapter(model)(TEXT)
    assert torch.allclose(output.gates, torch.full((2, 20), 0.5))
    assert torch.allclose(output.logits.exp(), (base + tuned) / 2, atol=1e-6)
    assert (base - tuned).abs().max() > 0.01


def test_a_threshold_leaves_alone_what_the_base_model_is_sure_of() -> None:
    model = remembering()
    base, tuned = (probabilities(model, TEXT, bare) for bare in (True, False))
    limit = float(base.max(-1).values.median())
    output = GatedEngramAdapter(model, "threshold", threshold=limit)(TEXT)
    sure = base.max(-1).values >= limit
    assert 0 < sure.sum() < sure.numel()
    assert torch.allclose(output.logits.exp()[sure], base[sure], atol=1e-6)
    assert torch.allclose(output.logits.exp()[~sure], tuned[~sure], atol=1e-6)
    assert (output.gates == (~sure).float()).all()


def test_a_gate_learns_to_ask_whoever_is_right() -> None:
    model = remembering()
    base, tuned = (probabilities(model, TEXT, bare).argmax(-1) for bare in (True, False))
    differs = (base != tuned)[:, :-1]
    assert differs.sum() > 10

    def batch(ids: torch.Tensor, following: torch.Tensor) -> dict[str, torch.Tensor]:
        labels = torch.full_like(ids, -100)
        labels[:, 1:] = following[:, :-1]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    # Of one text the memory knows what follows, of the other the base model.
    batches = [batch(TEXT[:1], tuned[:1]), batch(TEXT[1:], base[1:])]
    gate = GatedEngramAdapter(model)
    before = [gate(**each).loss.item() for each in batches]
    losses = gate.fit(batches, steps=1000)
    assert sum(losses[-2:]) < sum(before)
    gates = gate(TEXT).gates[:, :-1].detach()
    assert gates[0][differs[0]].mean() > 0.7 > 0.3 > gates[1][differs[1]].mean()
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="not learned"):
        GatedEngramAdapter(model, "threshold").fit(batches)


@pytest.mark.parametrize("kind", ["learned", "threshold"])
def test_generation_with_caches_and_padding_equals_asking_again_for_every_token(kind: Any) -> None:
    model = remembering()
    gate = GatedEngramAdapter(model, kind, threshold=0.05)
    torch.nn.init.normal_(gate.from_statistics.weight, std=0.3)
    prompts = [TEXT[0, :5], TEXT[1, :9]]
    wanted = []
    for prompt in prompts:
        ids = prompt[None]
        for _ in range(6):
            ids = torch.cat((ids, gate(ids).logits[:, -1].argmax(-1, keepdim=True)), 1)
        wanted.append(ids[0, len(prompt) :])
    padded, mask = torch.zeros(2, 9, dtype=torch.long), torch.zeros(2, 9, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        padded[row, 9 - len(prompt) :], mask[row, 9 - len(prompt) :] = prompt, 1
    out = gate.generate(padded, mask, max_new_tokens=6, min_new_tokens=6, do_sample=False, eos_token_id=None)
    for row in range(2):
        assert out[row, 9:].tolist() == wanted[row].tolist()
    with pytest.raises(ValueError, match="num_beams"):
        gate.generate(padded, mask, num_beams=2)


def test_a_gate_works_around_lora_too() -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = peft.get_peft_model(tiny_model(), peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    both = add_engram(model, EngramConfig(layers=(1,), heads=2, rows=499, head_size=8, exact=False), tiny_tokenizer())
    bare = tiny_model()(TEXT).logits.softmax(-1)
    for wrapped in (both, model):
        gate = GatedEngramAdapter(wrapped, "threshold", threshold=1e-6)  # always the base model
        assert torch.allclose(gate(TEXT).logits.exp(), bare, atol=1e-6)


def test_files_keep_a_gate_and_refuse_what_does_not_fit(tmp_path: Path) -> None:
    model = remembering()
    gate = GatedEngramAdapter(model)
    torch.nn.init.normal_(gate.from_statistics.weight)
    gate.save_pretrained(tmp_path)
    again = GatedEngramAdapter.from_pretrained(model, tmp_path)
    assert torch.equal(again(TEXT).logits, gate(TEXT).logits)
    (tmp_path / "gate.json").write_text((tmp_path / "gate.json").read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(ValueError, match="format 7"):
        GatedEngramAdapter.from_pretrained(model, tmp_path)
    (tmp_path / "gate.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="cannot read the gate"):
        GatedEngramAdapter.from_pretrained(model, tmp_path)
    with pytest.raises(ValueError, match="no disable_adapter"):
        GatedEngramAdapter(tiny_model())


def test_generation_takes_several_sequences_and_keeps_what_is_forbidden() -> None:
    gate = GatedEngramAdapter(remembering())
    torch.manual_seed(0)
    out = gate.generate(TEXT[:, :5], do_sample=True, num_return_sequences=3, max_new_tokens=4, pad_token_id=0)
    assert out.shape == (6, 9)
    free = gate.generate(TEXT[:, :5], do_sample=False, max_new_tokens=1, pad_token_id=0)[:, -1]
    out = gate.generate(TEXT[:, :5], do_sample=False, max_new_tokens=1, pad_token_id=0, suppress_tokens=free.tolist())[
        :, -1
    ]
    assert not set(out.tolist()) & set(free.tolist())
    with pytest.raises(ValueError, match=r"repetition_penalty=1\.2; leave it out"):
        gate.generate(TEXT, repetition_penalty=1.2)
