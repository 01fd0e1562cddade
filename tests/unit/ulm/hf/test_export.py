"""Checkpoints as folders of transformers: tokens and ids as ours, with memory and without, or one clear line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from fakes.character_tokenizer import characters
from fakes.memory_policy import write_policy
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

import ulm.hf.ulm_model
from ulm.checkpoint import checkpoint_hash, load_checkpoint, save_checkpoint
from ulm.config import preset
from ulm.decode.engine import Engine, GenerationRequest
from ulm.hf.export import export_checkpoint
from ulm.hf.ulm_model import IdTokenizer, UlmForCausalLM
from ulm.model import Decoder
from ulm.streaming import read_document
from ulm.tokenizer import Tokenizer

pytestmark = pytest.mark.thorough

WINDOW = 32
NEW = 12
LENGTHS = (1, 5, WINDOW - NEW, WINDOW, WINDOW + 9, 3 * WINDOW + 1)


def make_model(seed: int = 3, **changes: Any) -> Decoder:
    model = Decoder(preset("tiny", 259, window=WINDOW, **changes), seed=seed)
    # Initial weights repeat the last token whatever came before; larger ones let all of the window have a say.
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("policies") / "tiny"
    save_checkpoint(folder, make_model(), Tokenizer.bytes(), {"recipe": {"seed": 7}, "scores": {"solved": 0.25}})
    return folder


@pytest.fixture(scope="module")
def with_ltm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policies") / "remembers")


@pytest.fixture(scope="module")
def memory_model(with_ltm: Path, tmp_path_factory: pytest.TempPathFactory) -> UlmForCausalLM:
    out = tmp_path_factory.mktemp("exported") / "hf"
    export_checkpoint(with_ltm, out, memory=True)
    return AutoModelForCausalLM.from_pretrained(out)


@pytest.fixture
def told(swarm: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Return a function that runs a command line and returns its exit code and errors."""
    return lambda *arguments: (swarm(*arguments), capsys.readouterr().err)


def random_ids(rows: int, length: int, high: int = 259) -> torch.Tensor:
    return torch.randint(3, high, (rows, length), generator=torch.Generator().manual_seed(length))


def ours(model: Decoder, prompt: list[int], eot_id: int = 1, **changes: Any) -> list[int]:
    """Return the greedy tokens of our engine, with the end of text."""
    tokenizer = IdTokenizer(model.config.vocab_size, eot_id)
    request = replace(GenerationRequest(tokenizer.decode(prompt), 0, NEW, 0.0), **changes)
    (result,) = Engine(model, tokenizer).generate([request])
    return tokenizer.encode(result.text) + [eot_id] * (result.finish == "end")


def theirs(model: Any, prompt: list[int]) -> list[int]:
    """Return the greedy tokens of transformers."""
    ids = torch.tensor([prompt])
    return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW)[0, len(prompt) :].tolist()


@pytest.mark.parametrize("tied", [True, False])
def test_greedy_tokens_are_ours_for_prompts_shorter_and_longer_than_the_window(tmp_path: Path, tied: bool) -> None:
    save_checkpoint(tmp_path / "a", make_model(tie_embeddings=tied), Tokenizer.bytes(), {})
    export_checkpoint(tmp_path / "a", tmp_path / "hf")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert type(exported).__name__ == "MistralForCausalLM"
    model = load_checkpoint(tmp_path / "a").model
    found = [theirs(exported, prompt) for length in LENGTHS for prompt in random_ids(3, length).tolist()]
    assert found == [ours(model, prompt) for length in LENGTHS for prompt in random_ids(3, length).tolist()]
    assert len(set(map(tuple, found))) > len(found) / 2  # prompts matter
    assert min(len(set(tokens)) for tokens in found) > 1


def test_llama_has_our_greedy_tokens_up_to_the_window_and_others_beyond(checkpoint: Path, tmp_path: Path) -> None:
    export_checkpoint(checkpoint, tmp_path / "hf", architecture="llama")
    exported, model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf"), load_checkpoint(checkpoint).model
    assert type(exported).__name__ == "LlamaForCausalLM"
    for prompt in [*random_ids(3, 5).tolist(), *random_ids(3, WINDOW - NEW).tolist()]:
        assert theirs(exported, prompt) == ours(model, prompt)
    beyond = random_ids(8, 2 * WINDOW).tolist()
    assert [theirs(exported, prompt) for prompt in beyond] != [ours(model, prompt) for prompt in beyond]
    assert "at most 32 tokens" in (tmp_path / "hf" / "README.md").read_text()


def test_generation_ends_at_our_end_of_text_and_pads_with_our_padding(tmp_path: Path) -> None:
    model, prompts = make_model(), random_ids(2, 9)
    first = ours(model, prompts[0].tolist())
    end = next(i for i in range(2, NEW) if first[i] not in first[:i])
    tokenizer = Tokenizer.bytes()
    tokenizer.eot_id, tokenizer.pad_id = first[end], 2
    save_checkpoint(tmp_path / "a", model, tokenizer, {})
    export_checkpoint(tmp_path / "a", tmp_path / "hf")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    out = exported.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=NEW)[:, 9:].tolist()
    assert ours(model, prompts[0].tolist(), first[end]) == first[: end + 1]
    assert out[0] == [*first[: end + 1], *[2] * (NEW - end - 1)]
    assert json.loads((tmp_path / "hf" / "generation_config.json").read_text())["do_sample"] is False


TEXTS = [
    "",
    " ",
    "half 3 7 11 target 145\n",
    "a  b\t\r\n\n",
    "é 漢字 😀 \ufffd \x00",
    "<eot>",
    "x<pad>y<unk> <eot>",
    "1234567",
]


@pytest.mark.parametrize(
    "tokenizer",
    [
        Tokenizer.bytes(),
        Tokenizer.train(["half 3 7 11 target 145 value"] * 3, 300),
        Tokenizer.train(["half 3 7 11 target 145 value"] * 3, 300).spelled(),
        characters("ab 123<>\n"),
    ],
    ids=["bytes", "bpe", "spelled", "characters"],
)
def test_exported_tokenizer_gives_our_ids_and_adds_none(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", Decoder(preset("tiny", tokenizer.vocab_size)), tokenizer, {})
    export_checkpoint(tmp_path / "a", tmp_path / "hf")
    fast = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert [fast(text)["input_ids"] for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    for ids in map(tokenizer.encode, TEXTS):
        assert fast.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
    assert (fast.eos_token_id, fast.pad_token_id) == (tokenizer.eot_id, tokenizer.pad_id)


def test_a_foreign_tokenizer_that_begins_texts_with_a_marker_does_so_no_more(tmp_path: Path) -> None:
    tokenizer = Tokenizer.bytes()
    tokenizer.inner.post_processor = tokenizers.processors.TemplateProcessing("<eot> $A", special_tokens=[("<eot>", 1)])
    assert tokenizer.inner.encode("ab").ids[0] == 1
    save_checkpoint(tmp_path / "a", make_model(), tokenizer, {})
    export_checkpoint(tmp_path / "a", tmp_path / "hf")
    assert AutoTokenizer.from_pretrained(tmp_path / "hf")("ab")["input_ids"] == tokenizer.encode("ab")


def test_half_precision_halves_the_weights_and_the_card_warns(checkpoint: Path, tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        export_checkpoint(checkpoint, tmp_path / dtype, dtype=dtype)
        assert AutoModelForCausalLM.from_pretrained(tmp_path / dtype).dtype == getattr(torch, dtype)
        assert ("may differ" in (tmp_path / dtype / "README.md").read_text()) == (dtype != "float32")
    whole, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("float32", "bfloat16"))
    assert half < 0.6 * whole


@pytest.mark.parametrize("memory", [False, True])
def test_the_card_names_the_checkpoint_and_its_code_runs(
    with_ltm: Path, tmp_path: Path, memory: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    export_checkpoint(with_ltm, tmp_path / "hf", memory=memory)
    card = (tmp_path / "hf" / "README.md").read_text()
    assert checkpoint_hash(with_ltm) in card
    assert '"trained": false' in card
    assert ("long-term memory, which is added" in card) is not memory
    assert ("vllm serve FOLDER --dtype float32 --max-model-len" in card) is not memory
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 1 + memory
    exec("".join(blocks).replace("FOLDER", str(tmp_path / "hf")), {})  # noqa: S102 - our own card
    assert capsys.readouterr().out.startswith("the text to continue")


def test_seed_and_scores_of_the_checkpoint_are_in_the_card(checkpoint: Path, tmp_path: Path) -> None:
    export_checkpoint(checkpoint, tmp_path / "hf")
    card = (tmp_path / "hf" / "README.md").read_text()
    said = json.loads(card.partition("```json\n")[2].partition("```")[0])
    assert said == {"recipe": {"seed": 7}, "scores": {"solved": 0.25}}


def test_everybody_may_read_all_files(checkpoint: Path, tmp_path: Path) -> None:
    export_checkpoint(checkpoint, tmp_path / "deep" / "hf")
    (tmp_path / "plain").touch()
    modes = {path.stat().st_mode for path in (tmp_path / "deep" / "hf").iterdir()}
    assert modes == {(tmp_path / "plain").stat().st_mode}


def test_without_memory_greedy_tokens_are_those_of_the_model_with_memory_off(with_ltm: Path, tmp_path: Path) -> None:
    export_checkpoint(with_ltm, tmp_path / "hf")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    bare = load_checkpoint(write_policy(tmp_path / "bare", with_ltm=False)).model
    for length in LENGTHS:
        prompt = random_ids(1, length, bare.config.vocab_size)[0].tolist()
        assert theirs(exported, prompt) == ours(bare, prompt)


def test_with_memory_logits_are_those_of_our_reading(with_ltm: Path, memory_model: UlmForCausalLM) -> None:
    model = load_checkpoint(with_ltm).model
    ids = random_ids(3, 3 * WINDOW + 5, model.config.vocab_size)
    with torch.no_grad():
        found, expected = memory_model(ids).logits, read_document(model, ids)
        unread = read_document(model, ids, control="no_reads").all_logits()
    assert torch.equal(found, expected.all_logits())
    assert (found - unread).abs().max() > 0.1  # the memory has a say


def test_with_memory_padding_changes_nothing_wherever_it_stands(memory_model: UlmForCausalLM) -> None:
    ids, masks = random_ids(3, 70, 259), torch.ones(3, 70, dtype=torch.long)
    masks[1, :21], masks[2, 60:] = 0, 0
    labels = ids.masked_fill(masks == 0, -100)
    with torch.no_grad():
        batch = memory_model(ids, attention_mask=masks, labels=labels)
        alone = [memory_model(row[mask.bool()][None]).logits[0] for row, mask in zip(ids, masks, strict=True)]
    for logits, mask, expected in zip(batch.logits, masks, alone, strict=True):
        assert (logits[mask.bool()] - expected).abs().max() < 1e-4
    texts = [row[mask.bool()] for row, mask in zip(ids, masks, strict=True)]
    expected_loss = F.cross_entropy(torch.cat([x[:-1] for x in alone]), torch.cat([text[1:] for text in texts]))
    assert batch.loss.item() == pytest.approx(expected_loss.item(), abs=1e-5)


def test_with_memory_greedy_tokens_are_our_engine_s(with_ltm: Path, memory_model: UlmForCausalLM) -> None:
    model = load_checkpoint(with_ltm).model
    vocab_size = model.config.vocab_size
    bare = load_checkpoint(with_ltm).model
    for reader in bare.ltm.readers:  # type: ignore[union-attr]
        torch.nn.init.zeros_(reader.gate)  # type: ignore[arg-type]
    prompts = [random_ids(1, length, vocab_size)[0].tolist() for length in LENGTHS]
    found = [theirs(memory_model, prompt) for prompt in prompts]
    assert found == [ours(model, prompt) for prompt in prompts]
    assert found != [ours(bare, prompt) for prompt in prompts]
    width = max(LENGTHS)
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    batch = memory_model.generate(ids, attention_mask=mask, max_new_tokens=NEW)
    assert batch[:, width:].tolist() == found


def test_memories_go_on_in_a_later_call(with_ltm: Path, memory_model: UlmForCausalLM) -> None:
    model = load_checkpoint(with_ltm).model
    told, asked = (random_ids(1, length, model.config.vocab_size) for length in (50, 20))
    first = memory_model.generate(told, max_new_tokens=NEW, return_dict_in_generate=True)
    (memory,) = first.memories
    assert (memory.position_BM >= 0).any()
    later = memory_model.generate(asked, max_new_tokens=NEW, memories=[memory])[0, 20:].tolist()
    assert later == ours(model, asked[0].tolist(), memory=memory)
    assert later != theirs(memory_model, asked[0].tolist())


def test_with_memory_generation_ends_and_fills_up(memory_model: UlmForCausalLM) -> None:
    ids = random_ids(2, 9)
    free = memory_model.generate(ids, max_new_tokens=NEW)[:, 9:].tolist()
    end = next(i for i in range(NEW) if free[0][i] not in free[0][:i] + free[1])
    out = memory_model.generate(ids, max_length=9 + NEW, eos_token_id=[free[0][end]], pad_token_id=4)[:, 9:].tolist()
    assert out == [[*free[0][: end + 1], *[4] * (NEW - end - 1)], free[1]]
    assert memory_model.generate(ids).shape == (2, 9 + 20)


def test_samples_follow_torch_s_seed(memory_model: UlmForCausalLM) -> None:
    def sampled(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        return memory_model.generate(random_ids(2, 9), do_sample=True, top_p=0.9, max_new_tokens=NEW).tolist()

    assert sampled(1) == sampled(1) != sampled(2)
    before = torch.get_rng_state()
    memory_model.generate(random_ids(2, 9), max_new_tokens=2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_beams": 4}, "num_beams=4"),
        ({"do_sample": True, "num_return_sequences": 2}, "num_return_sequences=2"),
        ({"repetition_penalty": 1.2}, "repetition_penalty=1.2"),
        ({"do_sample": True, "top_k": 50}, "top_k=50; give 0"),
        ({"stop_strings": "x"}, "stop_strings=x"),
        ({"logits_processor": [print]}, "logits_processor=list"),
        ({"past_key_values": ()}, None),
        ({"num_beams": 1, "top_k": 50, "repetition_penalty": 1.0, "use_cache": False}, None),
        ({"inputs_embeds": torch.zeros(1, 1, 64)}, "inputs_embeds=Tensor"),
        ({"eos_token_id": [1, 2]}, "several end tokens"),
        ({"max_length": 9}, "no room"),
        ({"attention_mask": torch.tensor([[1] * 9, [0] * 9])}, "a row without a token"),
    ],
)
def test_what_our_engine_lacks_is_refused_by_name(
    memory_model: UlmForCausalLM, options: dict[str, Any], named: str | None
) -> None:
    if named is None:
        assert memory_model.generate(random_ids(2, 9), max_new_tokens=2, **options).shape == (2, 11)
        return
    with pytest.raises(ValueError, match=re.escape(named)):
        memory_model.generate(random_ids(2, 9), **options)


def test_reading_with_a_cache_of_transformers_is_refused(memory_model: UlmForCausalLM) -> None:
    with pytest.raises(ValueError, match="position_ids=Tensor"):
        memory_model(random_ids(1, 4), position_ids=torch.arange(4)[None])
    assert memory_model(random_ids(1, 4), use_cache=True).logits.shape == (1, 4, memory_model.config.vocab_size)


def test_memory_learns_through_transformers(with_ltm: Path) -> None:
    model = ulm.hf.ulm_model.to_ulm(load_checkpoint(with_ltm).model)
    ids = random_ids(2, 60, model.config.vocab_size)
    loss = model(ids, labels=ids).loss
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.model.ltm.readers[0].gate.grad.abs().max() > 0


def bad_arguments(checkpoint: Path, folder: Path) -> dict[str, tuple[list[Any], str]]:
    for name in ("damaged", "truncated"):
        shutil.copytree(checkpoint, folder / name)
    (folder / "damaged" / "tokenizer.json").write_text("{}")
    (folder / "truncated" / "model.safetensors").write_bytes(b"x" * 100)
    (folder / "full").mkdir()
    (folder / "full" / "kept").touch()
    (folder / "file").touch()
    out = folder / "new" / "hf"
    return {
        "missing": ([folder / "nowhere", "--out", out], "no checkpoint at "),
        "damaged": ([folder / "damaged", "--out", out], "was altered"),
        "truncated": ([folder / "truncated", "--out", out], "is truncated or no safetensors file"),
        "not empty": ([checkpoint, "--out", folder / "full"], "is not empty (it holds kept); choose another folder"),
        "a file": ([checkpoint, "--out", folder / "file"], "a file is in the way"),
        "below a file": ([checkpoint, "--out", folder / "file" / "hf"], "cannot write "),
        "format": ([checkpoint, "--out", out, "--to", "gguf"], "cannot export to 'gguf'; available: hf"),
        "architecture": ([checkpoint, "--out", out, "--architecture", "gpt2"], "available: mistral, llama"),
        "dtype": ([checkpoint, "--out", out, "--dtype", "int8"], "available: float32, bfloat16, float16"),
        "llama": ([checkpoint, "--out", out, "--architecture", "llama", "--memory"], "llama has no long-term memory"),
        "memory": ([checkpoint, "--out", out, "--memory"], "was trained without a long-term memory"),
    }


MISTAKES = ("missing", "damaged", "truncated", "not empty", "a file", "below a file", "format", "architecture", "dtype")


@pytest.mark.parametrize("mistake", [*MISTAKES, "llama", "memory"])
def test_a_mistake_is_one_line_and_leaves_nothing_behind(
    told: Callable[..., tuple[int, str]], checkpoint: Path, tmp_path: Path, mistake: str
) -> None:
    arguments, said = bad_arguments(checkpoint, tmp_path)[mistake]
    before = sorted(tmp_path.rglob("*"))
    code, err = told("export", *arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_halfway_leaves_nothing_behind(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ulm.hf.export.to_fast_tokenizer", full)
    with pytest.raises(ValueError, match="No space left on device; check space"):
        export_checkpoint(checkpoint, tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []


def test_the_command_fills_an_empty_folder_and_says_where(
    told: Callable[..., tuple[int, str]], checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "hf").mkdir()
    assert told("export", checkpoint, "--to", "hf", "--out", tmp_path / "hf") == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip


def test_help_ends_with_an_example(swarm: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert swarm("export", "--help") == 0
    assert "Example: swarm export" in capsys.readouterr().out
