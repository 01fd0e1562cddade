"""Answers of endpoints: what their status means, and what is read out of sound, odd and hostile ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes.endpoint import ABSENT, completion

from swarm.backends.completion import Completion, judge, model_names, read_completion
from swarm.backends.timed_http import MAX_BODY_BYTES, Answer

JSON = "application/json"


def answer(body: bytes | object, kind: str = JSON, status: int = 200) -> Answer:
    return Answer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), kind)


def test_statuses_tell_what_may_pass_from_what_will_not() -> None:
    verdicts = {status: judge(Answer(status)) for status in (0, *range(200, 600))}
    passing = {status for status, verdict in verdicts.items() if verdict == "may pass"}
    assert passing == {0, 408, 409, 425, 429, *range(500, 600)}
    others = {status: verdict for status, verdict in verdicts.items() if verdict not in ("may pass", "bad request")}
    assert others == {200: "completion", 401: "key refused", 403: "key refused", 404: "not found"}


@pytest.mark.parametrize("is_chat", [False, True])
def test_a_completion_is_read_with_its_cost_and_how_it_ended(is_chat: bool) -> None:
    body = completion("hello", finish_reason="length", stop_reason=";")
    expected = Completion("hello", (11, 3), "length", ";")
    assert read_completion(answer(body, "application/problem+JSON; charset=utf-8"), is_chat) == expected


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (answer(b'{"choices": ['), "cannot be read as JSON in UTF-8"),
        (answer(b""), "cannot be read as JSON in UTF-8"),
        (answer(b"[" * 100_000), "cannot be read as JSON in UTF-8"),
        (answer('{"a": "é"}'.encode("latin-1")), "cannot be read as JSON in UTF-8"),
        (answer([1, 2]), "the answer is no JSON object"),
        (answer(completion("x"), "text/html"), "of type 'text/html', not JSON"),
        (answer(completion("x"), ""), "of type '', not JSON"),
        (answer(b" " * (MAX_BODY_BYTES + 1)), "the answer is longer than 4194304 bytes"),
    ],
)
def test_what_is_no_json_object_is_a_fault_of_unknown_cost(read: Answer, fault: str) -> None:
    found = read_completion(read, is_chat=False)
    assert (found.text, found.usage) == ("", None)
    assert fault in str(found.fault)


@pytest.mark.parametrize("choices", [[], None, {"0": 1}, ["x"], "x", [[]], [{"text": None}], [{"text": ["x"]}]])
@pytest.mark.parametrize("is_chat", [False, True])
def test_an_answer_without_text_is_a_fault_that_costs_what_it_says(choices: object, is_chat: bool) -> None:
    where = "choices[0].message.content" if is_chat else "choices[0].text"
    found = read_completion(answer(completion("x", {"choices": choices})), is_chat)
    assert found == Completion(usage=(11, 3), fault=f"the answer has no text at {where}")


@pytest.mark.parametrize("message", [ABSENT, None, "x", {}, {"content": None}, {"content": 5}])
def test_a_chat_without_content_is_a_fault_even_beside_plain_text(message: object) -> None:
    found = read_completion(answer(completion("x", message=message)), is_chat=True)
    assert found == Completion(usage=(11, 3), fault="the answer has no text at choices[0].message.content")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("\ud83d", "the answer's text holds half characters (lone surrogates)"),
        ("é" * 33_000, "the answer's text is longer than 65536 bytes"),
        ("é" * 32_768, None),
    ],
)
def test_texts_are_whole_characters_and_not_too_long(text: str, fault: str | None) -> None:
    found = read_completion(answer(completion(text)), is_chat=False)
    assert (found.fault, found.usage) == (fault, (11, 3))
    assert found.text == ("" if fault else text)


SOUND = {"prompt_tokens": 11, "completion_tokens": 3}


@pytest.mark.parametrize(
    "usage",
    [ABSENT, None, "many", {}, [11, 3]]
    + [SOUND | {"completion_tokens": count} for count in (ABSENT, None, -1, True, 3.0, "3", 10**9 + 1)],
)
def test_unsound_token_counts_are_none(usage: Any) -> None:
    if isinstance(usage, dict):
        usage = {name: count for name, count in usage.items() if count is not ABSENT}
    assert read_completion(answer(completion("x", {"usage": usage})), is_chat=False) == Completion("x")


@pytest.mark.parametrize(
    ("listing", "names"),
    [
        (answer({"data": [{"id": "b"}, {"id": "a"}]}), ["b", "a"]),
        (answer({"data": [5, {"id": 5}, {}, None, {"id": "a"}]}), ["a"]),
        (answer({"data": "tiny"}), []),
        (answer([1]), []),
        (answer(b"[" * 100_000), []),
        (answer({"data": [{"id": "a"}]}, "text/html"), []),
        (answer({"data": [{"id": "a"}]}, status=404), []),
    ],
)
def test_listed_models_are_read_and_what_is_no_listing_lists_none(listing: Answer, names: list[str]) -> None:
    assert model_names(listing) == names
