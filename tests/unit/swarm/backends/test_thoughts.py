"""What of an answer counts where models think: one rule, on text alone and in the engines that are here."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from fakes.hf_models import tiny_model, tiny_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from swarm.backends.local import LocalModel
from swarm.backends.models import ChatFormat, open_model
from swarm.backends.protocol import Structure, TextRequest, TextResult
from swarm.backends.thoughts import open_thought, without_thoughts
from swarm.config.engine import TransformersEngine, UlmEngine
from swarm.errors import SwarmError
from ulm.tokenizer import Tokenizer

HARMONY = "<|channel|>analysis<|message|>We need 2.<|end|><|start|>assistant<|channel|>final<|message|>1+1<|return|>"
SAID = {
    "1+1": ("1+1", ""),
    "  two lines\n<b>kept</b> as they are ": ("  two lines\n<b>kept</b> as they are ", ""),
    "<think>hm</think>1+1": ("1+1", "hm"),
    "<think>\n\n</think>\n\n1+1": ("1+1", ""),
    "<THINKING>hm</THINKING>\n1+1": ("1+1", "hm"),
    "<thought>hm</thought>1+1": ("1+1", "hm"),
    "<reasoning>hm</reasoning>1+1": ("1+1", "hm"),
    "[THINK]hm[/THINK]1+1": ("1+1", "hm"),
    "so it begins\nhm</think>\n1+1": ("1+1", "so it begins\nhm"),
    "<think>a<think>b</think>c</think>1+1": ("1+1", "a\nb\nc"),
    "<think>a</think>1<think>b</think>+1": ("1+1", "a\nb"),
    HARMONY: ("1+1", "We need 2."),
    "analysisWe need 2.assistantfinal1+1": ("1+1", "We need 2."),
    "analysis of 1+1": ("analysis of 1+1", ""),
    "<|channel|>commentary<|message|>Soon.<|end|>" + HARMONY: ("1+1", "Soon.\nWe need 2."),
    "\u25c1think\u25b7hm\u25c1/think\u25b71+1": ("1+1", "hm"),
    "<|START_THINKING|>hm<|END_THINKING|>1+1": ("1+1", "hm"),
    "<|begin_of_thought|>hm<|end_of_thought|>1+1": ("1+1", "hm"),
    "<seed:think>hm</seed:think>1+1": ("1+1", "hm"),
    "<unused94>thought\nhm<unused95>1+1": ("1+1", "hm"),
    "<|channel>thought\nhm<channel|>1+1": ("1+1", "hm"),
    "<think>hm</think><answer>1+1</answer>": ("1+1", "hm"),
}
"""Answers of models, with what of them counts, and their thoughts."""

ONLY_THOUGHTS = (
    "<think>hm",
    "<think>hm</think>",
    "<think>hm</think>\n",
    "[THINK]hm",
    "<|channel|>analysis<|message|>hm",
    "analysisWe need",
)


@pytest.mark.parametrize("answer", SAID)
def test_thoughts_are_taken_out_of_an_answer(answer: str) -> None:
    said = without_thoughts(answer)
    assert (said.text, said.thoughts, said.fault) == (*SAID[answer], None)


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("answer", ONLY_THOUGHTS)
def test_thoughts_alone_are_a_fault_that_names_the_remedy(answer: str, is_cut: bool) -> None:
    said = without_thoughts(answer, is_cut=is_cut)
    assert (said.text, bool(said.thoughts)) == ("", True)
    assert said.fault is not None
    assert "raise max_new_tokens" in said.fault
    assert "engine.chat_template_kwargs: {enable_thinking: false}" in said.fault
    assert ("token limit" in said.fault) is is_cut


def test_a_thought_that_the_server_has_taken_out_is_a_thought_too() -> None:
    assert without_thoughts("1+1", "hm\n").thoughts == "hm"
    assert "thoughts and no answer" in str(without_thoughts("", "hm").fault)
    assert "wrote nothing" in str(without_thoughts(" \n").fault)


PIECES = ["<think>", "</think>", "a", "\n", "<|channel|>", "<|message|>", "final", "analysis", "[THINK]", "<", "A"]


@given(st.lists(st.sampled_from(PIECES)).map("".join), st.booleans())
def test_any_answer_says_something_or_is_a_fault(answer: str, is_cut: bool) -> None:
    said = without_thoughts(answer, "", is_cut)
    assert (said.fault is None) == bool(said.text.strip())


@pytest.mark.parametrize(
    "part", [" ", "<", "< ", "<think>", "<|channel|>", "analysis", "<|start|>", "a", "<|message|>"]
)
def test_no_answer_takes_long(part: str) -> None:
    began_s = time.process_time()
    without_thoughts(part * (65_536 // len(part)))
    without_thoughts("analysisA" + part * (65_536 // len(part)))
    assert time.process_time() - began_s < 5


class Scripted(LocalModel[TextRequest]):
    """An engine of this cluster whose model says one thing."""

    def __init__(self, answer: str, template: str = "{{ messages[-1].content }}", finish: str = "end") -> None:
        super().__init__(Tokenizer.bytes(), ChatFormat(template, (), {}), 1000)
        self.answer, self.finish = answer, finish

    def _call(self, request: TextRequest, ids: list[int]) -> TextRequest:
        return request

    def _answers(self, calls: list[TextRequest], deadline_s: float | None) -> list[TextResult]:
        return [TextResult(self.answer, 5, 9, self.finish) for _ in calls]  # type: ignore[arg-type]


CHAT = TextRequest("2?", system="")


def asked(model: Scripted, request: TextRequest = CHAT) -> TextResult:
    return model.generate([request])[0]


@pytest.mark.parametrize("answer", [answer for answer, (_, thoughts) in SAID.items() if thoughts])
def test_engines_drop_the_thoughts_of_chats_and_charge_them(answer: str) -> None:
    """Failed at e48e5b3: the answer of `<think>hm</think>1+1` was all of it."""
    result = asked(Scripted(answer))
    assert (result.text, result.fault, result.generated_tokens) == ("1+1", None, 9)
    assert result.thoughts


@pytest.mark.parametrize("answer", [*ONLY_THOUGHTS, "", "\n"])
def test_an_answer_of_thoughts_or_nothing_is_a_fault_of_its_call(answer: str) -> None:
    """Failed at e48e5b3: it was the empty action, without a fault."""
    result = asked(Scripted(answer, finish="length"))
    assert (result.text, result.finish, result.prompt_tokens, result.generated_tokens) == ("", "fault", 5, 9)
    assert "enable_thinking" in str(result.fault)


def test_a_thought_that_the_template_has_opened_is_one_even_where_it_does_not_end() -> None:
    """Failed at e48e5b3. DeepSeek-R1's template ends in the mark, so an answer that is cut has none at all."""
    template = "{{ messages[-1].content }} assistant:<think>\n"
    assert asked(Scripted("hm, let me see", template, "length")).fault is not None
    result = asked(Scripted("hm</think>1+1", template))
    assert (result.text, result.thoughts) == ("1+1", "hm")
    assert open_thought("user <think> x</think> hi\n<think>\n") == "<think>"
    assert [open_thought(text) for text in ("", "<think>a", "<think>\n\n</think>\n\n")] == ["", "", ""]


@pytest.mark.parametrize("changes", [{"system": None}, {"structure": Structure(regex="(?s).*")}])
def test_a_text_that_is_continued_or_kept_to_a_form_counts_as_it_is(changes: dict[str, Any]) -> None:
    request = TextRequest("2?", **{"system": "", **changes})
    for answer in ("<think>hm</think>1+1", ""):
        assert asked(Scripted(answer), request) == TextResult(answer, 5, 9, "end")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer has the marks around thoughts as special tokens, and whose template can open none."""
    path = tmp_path_factory.mktemp("thinker")
    tiny_model("llama").save_pretrained(path)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<|x|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking is false %}nothink{% endif %}"
    )
    tokenizer.save_pretrained(path)
    return path


def test_marks_that_are_special_tokens_stay_in_texts(folder: Path) -> None:
    """Failed at e48e5b3: Magistral's were left out of texts, so that thought and answer could not be told apart."""
    tokenizer = open_model("thinker", folder).tokenizer()
    vocab = tokenizer.inner.get_vocab()
    ids = [vocab["[THINK]"], *tokenizer.encode("hm"), vocab["[/THINK]"], vocab["<|x|>"], *tokenizer.encode("1+1")]
    assert tokenizer.decode(ids) == "[THINK]hm[/THINK]1+1"
    assert open_model("thinker", folder).marks_thoughts


def test_a_chat_template_is_told_what_the_engine_says(folder: Path) -> None:
    """Failed at e48e5b3: nothing could be said to it."""
    chats = [open_model("thinker", folder, told).chat for told in ({}, {"enable_thinking": False})]
    assert [chat and chat.render("", "hi") for chat in chats] == ["hi", "hinothink"]


def test_arguments_that_a_template_cannot_take_are_one_line(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ effort.lower() }}{{ messages[-1].content }}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eot>"}))
    with pytest.raises(SwarmError, match="chat template cannot be rendered"):
        open_model("thinker", tmp_path, {"effort": 3})
    assert open_model("thinker", tmp_path, {"effort": "HIGH"}).chat is not None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prompt": "plain", "chat_template_kwargs": {"a": 1}}, "no meaning without a chat"),
        ({"prompt": "chat", "chat_template_kwargs": {"messages": []}}, "messages cannot be set here"),
        ({"prompt": "chat", "chat_template_kwargs": {"a": float("nan")}}, "not finite"),
    ],
)
def test_what_templates_cannot_be_told_is_refused_with_the_file(settings: dict[str, Any], says: str) -> None:
    for kind in (UlmEngine, TransformersEngine):
        with pytest.raises(ValueError, match=says):
            kind(model="m", **settings)
