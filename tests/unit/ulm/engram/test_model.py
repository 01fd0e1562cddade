"""Engram on models of transformers: what it adds, how it decodes, and its files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.hf_models import CONFIGS, VOCAB, tiny_model, tiny_tokenizer
from torch import Tensor

from ulm.config import preset
from ulm.engram import EngramConfig, EngramModel, add_engram
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer

LEARNED = EngramConfig(layers=(1, 2), heads=2, rows=97, head_size=4)
KINDS = sorted(CONFIGS)


def texts(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(3, VOCAB - 20, (rows, length), generator=torch.Generator().manual_seed(seed))


def trained(kind: str = "llama", config: EngramConfig = LEARNED) -> EngramModel:
    """A model whose memory says something everywhere, as after training."""
    model = add_engram(tiny_model(kind), config, tiny_tokenizer())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in model.adapter.tables.layers:
            layer.table.weight.copy_(torch.randn(layer.table.shape, generator=generator))
            layer.conv.copy_(torch.randn(layer.conv.shape, generator=generator))
    return model


def trainable(model: EngramModel) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def logits(model: Any, ids: Tensor, **kwargs: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, **kwargs).logits


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_memory_changes_no_bit(kind: str) -> None:
    ids = texts(3, 20)
    bare = logits(tiny_model(kind), ids)
    assert torch.equal(logits(add_engram(tiny_model(kind), LEARNED, tiny_tokenizer()), ids), bare)
    changed = trained(kind)
    assert not torch.allclose(logits(changed, ids), bare, atol=1e-2)
    with changed.disable_adapter():
        assert torch.equal(logits(changed, ids), bare)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_chunks_and_left_padding_equal_the_full_forward(kind: str) -> None:
    model, ids = trained(kind), texts(3, 24)
    whole = logits(model, ids)
    for cuts in (range(1, 25), [5, 6, 13, 24], [23, 24]):
        cache, start, parts = None, 0, []
        for end in cuts:
            with torch.no_grad():
                out = model(input_ids=ids[:, start:end], past_key_values=cache, use_cache=True)
            cache, start = out.past_key_values, end
            parts.append(out.logits)
        assert (torch.cat(parts, 1) - whole).abs().max() < 1e-4
    padded = torch.cat((torch.zeros(3, 5, dtype=torch.long), ids), 1)
    padded[1, :8] = torch.cat((torch.zeros(8, dtype=torch.long),))
    mask = torch.ones_like(padded)
    mask[:, :5], mask[1, :8] = 0, 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    left = logits(model, padded, attention_mask=mask, position_ids=positions)
    assert (left[0, 5:] - whole[0]).abs().max() < 1e-4
    assert (left[1, 8:] - logits(model, ids[1:2, 3:])[0]).abs().max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beams", [1, 3])
def test_generation_equals_generation_without_a_cache(kind: str, beams: int) -> None:
    model = trained(kind)
    ids = texts(2, 9)
    mask = torch.ones_like(ids)
    mask[1, :4], ids[1, :4] = 0, 0
    settings = {"max_new_tokens": 8, "do_sample": False, "num_beams": beams, "attention_mask": mask}
    assert torch.equal(
        model.generate(ids, use_cache=True, **settings), model.generate(ids, use_cache=False, **settings)
    )


def test_facts_are_recalled_word_by_word_and_nothing_else_changes() -> None:
    tokenizer = tiny_tokenizer()
    model = add_engram(tiny_model(), EngramConfig(), tokenizer)
    ids = tokenizer(["what is x? ", "who is y?"], return_tensors="pt", padding=True, padding_side="left")
    bare = logits(tiny_model(), ids["input_ids"], attention_mask=ids["attention_mask"])
    model.memory.write("what is x?", " the letter x", "an alphabet")
    found = logits(model, ids["input_ids"], attention_mask=ids["attention_mask"])
    hit = torch.zeros(2, ids["input_ids"].shape[1], dtype=torch.bool)
    hit[0, -2:] = True  # after the key, and after the first character of the value
    assert torch.equal(found[~hit], bare[~hit])
    assert not torch.equal(found[hit], bare[hit])
    query = tokenizer("what is x?", return_tensors="pt")
    for beams in (1, 2):
        out = model.generate(**query, max_new_tokens=30, do_sample=False, num_beams=beams)
        assert tokenizer.decode(out[0]) == "what is x? the letter x<eot>"
    model.memory.forget("what is x?")
    assert torch.equal(logits(model, ids["input_ids"], attention_mask=ids["attention_mask"]), bare)


def test_loss_is_of_the_logits_that_come_out() -> None:
    model = add_engram(tiny_model(), EngramConfig(), tiny_tokenizer())
    ids = tiny_tokenizer()("key value", return_tensors="pt")["input_ids"]
    labels = ids.clone()
    labels[:, :3] = -100
    with torch.no_grad():
        before = model(input_ids=ids, labels=labels).loss
        model.memory.write("key", " value")
        after = model(input_ids=ids, labels=labels).loss
    assert before > 4.0
    assert after < 0.01


def test_memories_by_name_are_switched_and_only_the_active_one_is_trained() -> None:
    model = add_engram(tiny_model(), EngramConfig(), tiny_tokenizer(), "facts")
    model.memory.write("k", "1")
    model.add_adapter("tables", LEARNED)
    assert model.active_adapter == "tables"
    assert trainable(model) == sum(p.numel() for p in model.adapters["tables"].parameters())
    model.set_adapter("facts")
    assert trainable(model) == 0
    assert model.memory.get("k") is not None
    with pytest.raises(ValueError, match="no adapter 'others'; there are: facts, tables"):
        model.set_adapter("others")
    with pytest.raises(ValueError, match="already"):
        model.add_adapter("facts", LEARNED)
    model.delete_adapter("facts")
    assert model.active_adapter == "tables"


def test_unloading_gives_the_model_back_as_it_was() -> None:
    model, ids = trained(), texts(2, 9)
    bare = model.unload()
    assert type(bare) is type(tiny_model())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in bare.modules())
    assert torch.equal(logits(bare, ids), logits(tiny_model(), ids))


def test_gradients_reach_tables_and_gates_but_not_the_model() -> None:
    model = add_engram(tiny_model(), LEARNED, tiny_tokenizer()).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=10.0)
    ids = texts(2, 12)
    for _ in range(2):  # the table begins at zero, and what it is multiplied with learns from the second step on
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    layer = model.adapter.tables.layers[0]
    assert layer.table.weight.grad.is_sparse
    for parameter in (layer.key, layer.value, layer.conv, layer.norm_query):
        assert parameter.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.base_model.parameters())


@pytest.mark.parametrize("table", ["model", "ram", "disk"])
def test_saved_and_loaded_it_answers_alike(tmp_path: Path, table: str) -> None:
    model, ids = trained(config=EngramConfig(layers=(0, 3), heads=2, rows=97, head_size=4)), texts(2, 16)
    model.memory.write("k", " 1", "a test")
    model.save_pretrained(tmp_path, tables_on_disk=table == "disk")
    if table == "ram":
        edited(tmp_path, engram={"table": "ram"})
    again = EngramModel.from_pretrained(tiny_model(), tmp_path, tiny_tokenizer())
    assert torch.equal(logits(again, ids), logits(model, ids))
    assert [(f.key, f.value, f.source, f.revision) for f in again.memory] == [("k", " 1", "a test", 1)]
    again.save_pretrained(tmp_path)  # over what it reads from
    assert torch.equal(logits(again, ids), logits(model, ids))
    once_more = EngramModel.from_pretrained(tiny_model(), tmp_path, tiny_tokenizer())
    assert torch.equal(logits(once_more, ids), logits(model, ids))


def test_a_folder_may_be_that_of_the_facts_themselves(tmp_path: Path) -> None:
    model = add_engram(tiny_model(), EngramConfig(), tiny_tokenizer(), facts=str(tmp_path / "memory.sqlite"))
    model.memory.write("a", " 1")
    model.save_pretrained(tmp_path)
    model.memory.write("b", " 2")
    model.memory.close()
    again = EngramModel.from_pretrained(tiny_model(), tmp_path, tiny_tokenizer())
    assert [fact.key for fact in again.memory] == ["a", "b"]


def test_a_load_that_fails_leaves_what_was_active_active(tmp_path: Path) -> None:
    model = trained()
    model.add_adapter("second", LEARNED)
    model.save_pretrained(tmp_path, ["second"], tables_on_disk=True)
    (tmp_path / "second" / "table_0.npy").unlink()
    before = trainable(model)
    with pytest.raises(ValueError, match=r"table_0\.npy"):
        model.load_adapter(tmp_path / "second", "third")
    assert (model.active_adapter, trainable(model)) == ("second", before)
    model.delete_adapter("second")
    assert model.active_adapter == "default"
    assert trainable(model) > 0


def test_a_model_has_one_set_of_hooks_and_a_copy_has_its_own() -> None:
    model, ids = trained(), texts(2, 12)
    with pytest.raises(ValueError, match=r"has an Engram already; use its add_adapter\(\)"):
        add_engram(model.base_model, EngramConfig(), tiny_tokenizer())
    copied = copy.deepcopy(model)
    assert torch.equal(logits(copied, ids), logits(model, ids))
    with torch.no_grad():
        for layer in copied.adapter.tables.layers:
            layer.table.weight.zero_()
            layer.conv.zero_()
    with model.disable_adapter():
        bare = logits(model, ids)
    assert torch.equal(logits(copied, ids), bare)
    assert not torch.equal(logits(model, ids), bare)
    add_engram(model.unload(), EngramConfig(), tiny_tokenizer())


@pytest.mark.parametrize("config", [LEARNED, EngramConfig()])
def test_a_recorded_cache_forgets_its_last_tokens(config: EngramConfig) -> None:
    model, ids = add_engram(tiny_model(), config, tiny_tokenizer()) if not config.layers else trained(), texts(2, 12)
    cache = model(input_ids=ids[:, :5], use_cache=True).past_key_values
    if config.layers:
        with pytest.raises(RuntimeError, match="was not recorded"):
            cache.layers[-1].crop(-1)
    cache.activate_past_recording()
    logits(model, ids[:, 5:7], past_key_values=cache)
    logits(model, texts(2, 3, seed=1), past_key_values=cache)
    cache.crop(-3)
    assert cache.get_seq_length() == 7
    rest = logits(model, ids[:, 7:], past_key_values=cache)
    assert (rest - logits(model, ids)[:, 7:]).abs().max() < 1e-4


def test_a_cache_belongs_to_the_memory_that_filled_it() -> None:
    model = trained()
    model.add_adapter("second", LEARNED)
    cache = model(input_ids=texts(1, 4), use_cache=True).past_key_values
    model.set_adapter("default")
    with pytest.raises(ValueError, match="filled without this memory"):
        model(input_ids=texts(1, 1), past_key_values=cache)


def edited(folder: Path, **changes: Any) -> None:
    about = json.loads((folder / "adapter_config.json").read_text())
    about.update({key: value for key, value in changes.items() if key != "engram"})
    about["engram"].update(changes.get("engram", {}))
    (folder / "adapter_config.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 99}, "format 99, this version reads 1"),
        ({"kind": "lora"}, "describes no Engram"),
        ({"tokenizer": "other"}, "another model or tokenizer: tokenizer other, here"),
        ({"engram": {"seed": 5}}, "multipliers_LHN: other values"),
        ({"engram": {"rows": 50}}, "another shape"),
        ({"engram": {"layers": [1]}}, "unknown"),
        ({"engram": {"layers": [1, 9]}}, "no block 9 in model.layers, which has blocks 0 to 3"),
        ({"engram": {"colour": 1}}, "unknown keys colour"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    trained().save_pretrained(tmp_path)
    edited(tmp_path, **changes)
    with pytest.raises(ValueError, match=says):
        EngramModel.from_pretrained(tiny_model(), tmp_path, tiny_tokenizer())


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "memory.sqlite"])
def test_missing_and_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    trained().save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(b"\x00" * 5000)
    with pytest.raises(ValueError, match=name):
        EngramModel.from_pretrained(tiny_model(), tmp_path, tiny_tokenizer())
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=name):
        EngramModel.from_pretrained(tiny_model(), tmp_path, tiny_tokenizer())


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(ValueError, match="fast tokenizer"):
        add_engram(tiny_model(), EngramConfig())
    with pytest.raises(ValueError, match="causal language model of transformers, got Linear"):
        add_engram(torch.nn.Linear(2, 2), EngramConfig(), tiny_tokenizer())
    with pytest.raises(ValueError, match=r"no block 4 in model\.layers, which has blocks 0 to 3"):
        add_engram(tiny_model(), EngramConfig(layers=(4,)), tiny_tokenizer())
    with pytest.raises(ValueError, match=r"transformer\.h"):
        add_engram(tiny_model("gpt2"), EngramConfig(layers=(4,)), tiny_tokenizer())
    with pytest.raises(ValueError, match="nothing to remember with"):
        EngramConfig(exact=False)
    model = trained()
    with pytest.raises(ValueError, match="reads input_ids"):
        model(inputs_embeds=torch.zeros(1, 3, 32))
    with model.disable_adapter():
        cache = model(input_ids=texts(1, 4), use_cache=True).past_key_values
    with pytest.raises(ValueError, match="filled without this memory"):
        model(input_ids=texts(1, 1), past_key_values=cache)
    model.adapters["default"].memory = None
    with pytest.raises(ValueError, match="exact tier of adapter 'default' is off"):
        _ = model.memory


def test_phrases_fill_the_tables_before_training_and_nothing_else_changes() -> None:
    tokenizer, config = tiny_tokenizer(), EngramConfig(layers=(1, 2), heads=2, rows=4999, head_size=8, exact=False)
    model = add_engram(tiny_model(), config, tokenizer)
    written = model.prepopulate(["the tower", "a bridge"], strength=30.0)
    assert 0 < written <= 2 * 2 * 2 * 6
    embedding = model.base_model.get_input_embeddings().weight
    added: list[torch.Tensor] = []
    layer = model.adapter.tables.layers[0]
    hook = layer.register_forward_hook(lambda module, args, output: added.append(output[0][0]))
    for phrase in ("the tower", "a bridge"):
        ids = tokenizer(f"see {phrase} now", add_special_tokens=False).input_ids
        model(torch.tensor([ids]))
        end = 4 + len(phrase) - 1  # a token is a byte
        wanted = embedding[torch.tensor(tokenizer(" " + phrase, add_special_tokens=False).input_ids)].mean(0)
        assert torch.cosine_similarity(added[-1][end], wanted, 0) > 0.5
        assert (added[-1][: end - 1] == 0).all()
        assert (added[-1][end + 1 :] == 0).all()
    hook.remove()
    plain, other = torch.tensor([tokenizer("nothing of it").input_ids]), tiny_model()
    assert torch.equal(model(plain).logits, other(plain).logits)
    with pytest.raises(ValueError, match="learned tier of adapter 'default' is off"):
        add_engram(tiny_model(), EngramConfig(), tokenizer).prepopulate(["x"])


def test_a_ulm_gets_a_memory_like_any_other_model() -> None:
    tokenizer = Tokenizer.bytes()
    decoder = Decoder(preset("tiny", tokenizer.vocab_size, window=16), seed=3).eval()
    model = add_engram(decoder, EngramConfig(layers=(1,), heads=2, rows=499, head_size=8), tokenizer)
    text = "what opens the old door of the tower?"
    ids = torch.tensor([tokenizer.encode(text)])
    assert torch.allclose(model(ids).logits, decoder(ids), atol=1e-5)
    model.memory.write(text, " a red key", "the librarian")
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
    assert tokenizer.decode(out[0, ids.shape[1] :].tolist()).startswith(" a red key")
    with pytest.raises(ValueError, match="comes with its own tokenizer"):
        add_engram(decoder, EngramConfig())
    remembering = Decoder(
        preset("tiny", tokenizer.vocab_size, window=16, ltm={"layers": [0], "head_size": 8, "segment": 8})
    )
    with pytest.raises(ValueError, match="no long-term memory; export"):
        add_engram(remembering, EngramConfig(), tokenizer)


def test_paraphrases_are_answered_strange_prompts_are_not_and_files_keep_it(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = add_engram(tiny_model(), EngramConfig(content=True), tokenizer)
    names = [a + b + c for a in "bdfg" for b in "aeo" for c in "lmn"]
    told = {name: f"the code of {name} is" for name in names[:20]}
    other = {name: f"{name} has the code" for name in names}
    model.memory.write_all([(key, f" {name[::-1]}", "test") for name, key in told.items()])
    query = tokenizer(other[names[0]], return_tensors="pt")
    with pytest.raises(ValueError, match="call fit_content"):
        model.generate(**query, max_new_tokens=2)
    texts = [text.format(name) for name in names for text in ("the code of {} is", "{} has the code", "code: {}")]
    model.fit_content(texts, [name for name in names for _ in range(3)], [f"who is {n}?" for n in range(30)])
    (fact, odds), (nothing, _), (same, _) = model.meant([other[names[0]], "who is 99?", told[names[1]]])
    assert (fact.key if fact else None, nothing, same) == (told[names[0]], None, None)
    assert odds > model.adapter.content.threshold
    both = tokenizer([other[names[0]], "who is 99?"], return_tensors="pt", padding=True, padding_side="left")
    out = model.generate(**both, max_new_tokens=6, do_sample=False)
    answer = tokenizer.decode(out[0], skip_special_tokens=True)
    assert answer == f"{other[names[0]]} {names[0][::-1]}"
    with model.disable_adapter():
        bare = model.generate(**both, max_new_tokens=6, do_sample=False)
    assert torch.equal(out[1], bare[1])
    # A row that ends like the prompt of its neighbour, but means nothing, gets nothing of it.
    longer = "zz " + other[names[0]]
    assert model.meant([longer])[0][1] < model.meant([other[names[0]]])[0][1]
    model.adapter.content.threshold = sum(model.meant([x])[0][1] for x in (longer, other[names[0]])) / 2
    both = tokenizer([other[names[0]], longer], return_tensors="pt", padding=True, padding_side="left")
    out = model.generate(**both, max_new_tokens=6, do_sample=False)
    assert tokenizer.decode(out[0], skip_special_tokens=True) == answer
    alone = model.generate(**tokenizer(longer, return_tensors="pt"), max_new_tokens=6, do_sample=False)
    assert torch.equal(out[1], alone[0])
    model.save_pretrained(tmp_path)
    again = EngramModel.from_pretrained(tiny_model(), tmp_path, tokenizer)
    assert again.meant([other[names[0]]])[0][0] == fact
    assert tokenizer.decode(again.generate(**query, max_new_tokens=6)[0], skip_special_tokens=True) == answer
    again.memory.forget(told[names[0]])
    assert again.meant([other[names[0]]])[0][0] != fact
