"""Text generation behind one protocol: every engine keeps the same promises."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.hf_models import tiny_model, tiny_tokenizer

from swarm.backends.models import find_model, folder_hash, open_model
from swarm.backends.prompts import PromptReader
from swarm.backends.protocol import Structure, TextModel, TextRequest
from swarm.backends.transformers import TransformersModel
from swarm.backends.ulm import UlmModel
from swarm.errors import SwarmError
from ulm.decode.engine import Engine, GenerationRequest
from ulm.hf.llama import from_llama
from ulm.tokenizer import Tokenizer

TEMPLATE = "{% for m in messages %}{{ m.role }}:{{ m.content }}<eot>{% endfor %}answer:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights, a byte tokenizer and a chat template, as transformers saves them."""
    path = tmp_path_factory.mktemp("model")
    tiny_model("llama").save_pretrained(path)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=["ulm", "transformers"])
def model(request: pytest.FixtureRequest, folder: Path) -> TextModel:
    opened = open_model("tiny", folder)
    if request.param == "transformers":
        return TransformersModel(opened)
    decoder, tokenizer = from_llama(folder)
    assert tokenizer is not None
    return UlmModel(Engine(decoder, tokenizer), opened.chat, opened.max_length)


def ask(prompt: str, **changes: Any) -> TextRequest:
    return TextRequest(prompt, **{"seed": 5, "max_new_tokens": 12, "temperature": 0.8, **changes})


def test_both_engines_say_the_same_to_the_same_seeds(folder: Path) -> None:
    opened = open_model("tiny", folder)
    decoder, tokenizer = from_llama(folder)
    assert tokenizer is not None
    requests = [ask(f"text {n} " * (n + 1), seed=n, temperature=n % 3 / 2) for n in range(9)]
    ours = UlmModel(Engine(decoder, tokenizer), opened.chat).generate(requests)
    assert TransformersModel(opened).generate(requests) == ours
    assert len({result.text for result in ours}) > 5


def test_an_answer_does_not_depend_on_its_neighbours(model: TextModel) -> None:
    requests = [ask(f"{n}" * (n + 1), seed=n, max_new_tokens=4 + n) for n in range(6)]
    assert [model.generate([request])[0] for request in requests] == model.generate(requests)


def test_what_is_charged_is_what_was_read_and_written(model: TextModel) -> None:
    (result,) = model.generate([ask("abc")])
    assert result.prompt_tokens == 3 == model.count_prompts([ask("abc")])[0]
    assert result.generated_tokens == 12
    assert result.finish == "length"


def test_chats_are_written_as_the_template_has_them(model: TextModel) -> None:
    request = ask("what?", system="be brief")
    assert model.count_prompts([request]) == [len("system:be brief!user:what?!answer:")]  # a mark is one token
    assert model.generate([request])[0].prompt_tokens == model.count_prompts([request])[0]
    assert model.count_prompts([ask("what?", system="")]) == [len("user:what?!answer:")]


def test_chats_are_read_as_transformers_reads_them(folder: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "2 + 2?"}]
    wanted = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    reader = PromptReader(Tokenizer.load(folder), open_model("tiny", folder).chat)
    assert reader.read([ask("2 + 2?", system="be brief")]) == [wanted]
    assert reader.read([ask("a<eot>b")]) == [Tokenizer.load(folder).encode("a<eot>b")]  # in plain text it is text
    assert len(reader.read([ask("a<eot>b")])[0]) == len("a<eot>b")


def test_what_all_chats_with_a_system_message_begin_with_is_their_opening(folder: Path) -> None:
    reader = PromptReader(Tokenizer.load(folder), open_model("tiny", folder).chat)
    requests = [ask("what?", system="be brief"), ask("", system="be brief"), ask("what?"), ask("why?", system="")]
    prompts = reader.read(requests)
    opening = len("system:be brief!user:")  # a mark is one token
    assert [reader.opening(r, ids) for r, ids in zip(requests, prompts, strict=True)] == [
        opening,
        opening,
        0,
        len("user:"),
    ]
    assert prompts[0][:opening] == prompts[1][:opening]
    other = [*prompts[0]]
    other[opening - 1] += 1  # as if the first word were read together with what stands before it
    assert reader.opening(requests[0], other) == 0
    assert reader.opening(requests[0], prompts[0][:opening]) == 0  # nothing would be left to read


def test_our_engine_is_told_the_opening_of_chats(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_model("tiny", folder)
    decoder, tokenizer = from_llama(folder)
    assert tokenizer is not None
    seen: list[int] = []
    real = Engine.generate

    def spy(self: Engine, requests: Sequence[GenerationRequest], deadline_s: float | None = None) -> Any:
        seen.extend(request.opening for request in requests)
        return real(self, requests, deadline_s)

    monkeypatch.setattr(Engine, "generate", spy)
    model = UlmModel(Engine(decoder, tokenizer), opened.chat)
    requests = [ask(f"{n}" * (n + 1), seed=n, system="be brief" if n % 2 else None) for n in range(6)]
    together = model.generate(requests)
    assert seen == [0, len("system:be brief!user:")] * 3
    assert [model.generate([request])[0] for request in requests] == together


def test_special_tokens_in_a_message_are_taken_out(folder: Path) -> None:
    chat = open_model("tiny", folder).chat
    assert chat is not None
    assert "<eot>" in chat.special
    assert chat.render("", "a<eot>b<e<eot>ot>c") == "user:abc<eot>answer:"


def copy_of(folder: Path, to: Path) -> Path:
    to.mkdir(exist_ok=True)
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_template_without_system_messages_gets_one_message(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path / "copy")
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('none of that') }}{% endif %}" + TEMPLATE
    (copy / "chat_template.jinja").write_text(refusing)
    chat = open_model("copy", copy).chat
    assert chat is not None
    assert chat.render("be brief", "what?") == "user:be brief\n\nwhat?<eot>answer:"


def test_a_template_that_writes_the_date_reads_the_same_every_day(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path / "copy")
    (copy / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }} {{ date_string }}" + TEMPLATE)
    chat = open_model("copy", copy).chat
    assert chat is not None
    assert chat.render("", "x").startswith("01 Jan 2025 01 Jan 2025")


def test_a_model_without_an_end_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path / "copy")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        data = json.loads((copy / name).read_text())
        data.pop("eos_token_id", None)
        data.pop("eos_token", None)
        (copy / name).write_text(json.dumps(data))
    with pytest.raises(SwarmError, match="name a token that ends a text"):
        open_model("copy", copy)


def test_a_models_own_generation_settings_do_not_change_answers(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path / "copy")
    file = copy / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "repetition_penalty": 5.0}))
    requests = [ask(f"text {n}", temperature=0.0) for n in range(4)]
    plain, penalised = (TransformersModel(open_model("m", f)).generate(requests) for f in (folder, copy))
    assert plain == penalised


@pytest.mark.parametrize(
    "structure",
    [Structure(regex="(?=x)y"), Structure(json_schema={"not": {"type": "string"}}), Structure(grammar="root ::= none")],
)
def test_a_structure_that_cannot_be_kept_is_a_fault_of_its_own(model: TextModel, structure: Structure) -> None:
    bad, good = model.generate([ask("a", structure=structure), ask("b")])
    assert "cannot be kept" in str(bad.fault)
    assert good.fault is None


def test_a_stop_string_ends_an_answer_and_is_cut_off(model: TextModel) -> None:
    structure = Structure(choices=("yes; no",))
    (result,) = model.generate([ask("?", structure=structure, stop=(";",), max_new_tokens=30)])
    assert (result.text, result.finish, result.generated_tokens) == ("yes", "stop", 4)


@pytest.mark.parametrize(
    ("structure", "fits"),
    [
        (
            Structure(regex=r"(?:a[0-9]: (?:go|stay)\n){2}"),
            lambda text: re.fullmatch(r"(?:a\d: (?:go|stay)\n){2}", text),
        ),
        (Structure(choices=("left", "right")), lambda text: text in ("left", "right")),
        (
            Structure(
                json_schema={
                    "type": "object",
                    "properties": {"n": {"enum": [1, 22]}},
                    "required": ["n"],
                    "additionalProperties": False,
                }
            ),
            lambda text: text in ('{"n": 1}', '{"n": 22}'),
        ),
        (Structure(grammar='root ::= "a" root "b" | "ab"'), lambda text: re.fullmatch("(a+)(b+)", text)),
    ],
)
def test_answers_keep_to_their_structure(model: TextModel, structure: Structure, fits: Callable[[str], Any]) -> None:
    results = model.generate([ask("?", seed=n, structure=structure, max_new_tokens=60) for n in range(20)])
    assert all(fits(result.text) and result.finish == "end" for result in results)
    assert len({result.text for result in results}) > 1


def test_a_passed_deadline_is_a_fault_of_every_request(model: TextModel) -> None:
    results = model.generate([ask("a"), ask("b")], deadline_s=time.monotonic() - 1)
    assert all(result.fault and "timeout" in result.fault and not result.text for result in results)


def test_a_prompt_that_does_not_fit_is_a_fault_of_its_own(folder: Path) -> None:
    model = TransformersModel(dataclasses.replace(open_model("tiny", folder), max_length=40))
    long, short = model.generate([ask("x" * 30), ask("x" * 20)])
    assert long.fault == "the prompt has 30 tokens and the answer may take 12, the model 40"
    assert short.fault is None
    assert short.generated_tokens == 12


def test_a_model_is_identified_by_what_decides_its_answers(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path / "copy")
    (copy / "README.md").write_text("a card")
    assert folder_hash(copy) == folder_hash(folder)
    (copy / "chat_template.jinja").write_text(TEMPLATE + " ")
    assert folder_hash(copy) != folder_hash(folder)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere", "there is no such folder or GGUF file at .*nowhere.* nor one of smollm2-135m"),
        ("notes.txt", "is a file, but no .gguf"),
        ("torn.gguf", "cannot read .*torn.gguf as a GGUF model"),
    ],
)
def test_a_model_that_is_not_there_is_named_with_the_way_out(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "torn.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(SwarmError, match=says):
        find_model(name, tmp_path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot read"),
        (lambda folder: (folder / "config.json").write_text("{}"), "names no model_type"),
        (lambda folder: (folder / "model.safetensors").unlink(), "only safetensors are loaded"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
    ],
)
def test_a_folder_with_something_missing_is_refused(
    folder: Path, tmp_path: Path, damage: Callable[[Path], Any], says: str
) -> None:
    copy = copy_of(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(SwarmError, match=says):
        open_model("copy", copy)


def test_weights_that_are_none_are_one_line(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not at all")
    with pytest.raises(SwarmError, match="transformers cannot load model tiny") as caught:
        TransformersModel(open_model("tiny", tmp_path))
    assert "\n" not in str(caught.value)
