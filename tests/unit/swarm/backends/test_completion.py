"""Answers of endpoints: what their status means, and what is read out of sound, odd and hostile ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes.endpoint import ABSENT, completion

from swarm.backends.completion import Completion, is_plausible, judge, model_names, read_completion
from swarm.backends.timed_http import MAX_BODY_BYTES, Answer

JSON = "application/json"


def answer(body: bytes | object, kind: str = JSON, status: int = 200) -> Answer:
    return Answer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), kind)


def test_statuses_tell_what_may_pass_from_what_will_not() -> None:
    verdicts = {status: judge(Answer(status, b"{}")).verdict for status in (0, *range(200, 600))}
    found = {name: {s for s, verdict in verdicts.items() if verdict == name} for name in set(verdicts.values())}
    assert found.pop("answer") == {200}
    assert found.pop("away") == {0}
    assert found.pop("busy") == {408, 409, 424, 425, 429, 498, 502, 503, 504, 529}
    assert found.pop("broken") == {*range(201, 300), *range(500, 600)} - {501, 502, 503, 504, 529}
    assert found.pop("refused") == {*range(300, 400), 401, 402, 403, 404, 405, 407, 410, 501}
    assert set(found) == {"bad request"}


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ({"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, "credit"),
        ({"error": {"message": "Access denied: Arrearage", "code": "Arrearage"}}, "credit"),
        ({"error": {"message": "Rate limit reached. Please try again in 2 s"}}, None),
        ({"error": {"message": "Quota of 5 per minute exceeded"}}, None),
        ({"error": {"message": "Request too large: limit 100 tokens per minute"}}, "the request"),
    ],
)
def test_exhausted_credit_is_told_from_a_rate_limit(said: object, cause: str | None) -> None:
    """Failed at e48e5b3: both were tried again and then faults."""
    found = judge(answer(said, status=429))
    wanted = {"credit": "refused", "the request": "bad request", None: "busy"}
    assert found.verdict == wanted[cause]


@pytest.mark.parametrize("is_chat", [False, True])
def test_a_completion_is_read_with_its_cost_and_how_it_ended(is_chat: bool) -> None:
    body = completion("hello", finish_reason="length", stop_reason=";")
    expected = Completion("hello", "", (11, 3), 0, "length", ";")
    assert read_completion(answer(body, "application/problem+JSON; charset=utf-8"), is_chat) == expected


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (answer(b'{"choices": ['), "cannot be read as JSON in UTF-8"),
        (answer(b""), "cannot be read as JSON in UTF-8"),
        (answer(b"[" * 100_000), "too deep, or of another encoding"),
        (answer('{"a": "é"}'.encode("latin-1")), "too deep, or of another encoding"),
        (answer([1, 2]), "the answer is no JSON object"),
        (answer(b" " * (MAX_BODY_BYTES + 1)), "the answer is longer than 4194304 bytes"),
    ],
)
def test_what_is_no_json_object_is_a_fault_of_unknown_cost(read: Answer, fault: str) -> None:
    found = read_completion(read, is_chat=False)
    assert (found.text, found.usage) == ("", (None, None))
    assert fault in str(found.fault)


@pytest.mark.parametrize("kind", ["", "text/html", "text/event-stream", "application/problem+JSON; charset=utf-8"])
def test_a_content_type_says_nothing(kind: str) -> None:
    """Failed at e48e5b3: what was not called JSON was a fault."""
    assert read_completion(answer(completion("x"), kind), is_chat=True).text == "x"


@pytest.mark.parametrize("choices", [[], None, {"0": 1}, ["x"], "x", [[]], [{"text": None}], [{"text": ["x"]}]])
@pytest.mark.parametrize("is_chat", [False, True])
def test_an_answer_without_text_is_a_fault_that_costs_what_it_says(choices: object, is_chat: bool) -> None:
    where = "choices[0].message.content" if is_chat else "choices[0].text"
    found = read_completion(answer(completion("x", {"choices": choices})), is_chat)
    assert found == Completion(usage=(11, 3), fault=f"the answer has no text at {where}")


@pytest.mark.parametrize("message", ["x", {}, {"content": None}, {"content": 5}])
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


@pytest.mark.parametrize("usage", [ABSENT, None, "many", {}, [11, 3]])
def test_without_usage_no_count_is_known(usage: Any) -> None:
    body = completion("x", {"usage": usage} if usage is not ABSENT else {})
    if usage is ABSENT:
        del body["usage"]
    assert read_completion(answer(body), is_chat=False) == Completion("x")


@pytest.mark.parametrize("count", [ABSENT, None, -1, True, 3.0, "3", 10**9 + 1])
def test_each_unsound_count_is_unknown_for_itself(count: Any) -> None:
    usage = {name: n for name, n in (SOUND | {"completion_tokens": count}).items() if n is not ABSENT}
    assert read_completion(answer(completion("x", {"usage": usage})), is_chat=False) == Completion(
        "x", usage=(11, None)
    )


@pytest.mark.parametrize(
    ("count", "texts", "is_so"),
    [
        (1, ["a"], True),
        (0, [""], True),
        (0, ["a"], False),
        (1, ["a" * 64], True),
        (1, ["a" * 65], False),
        (2, ["a" * 64, "b"], True),
        (7, ["a"], True),
        (8, ["a"], False),
        (None, [""], False),
    ],
)
def test_a_count_is_plausible_between_the_least_and_the_most(count: int | None, texts: list[str], is_so: bool) -> None:
    assert is_plausible(count, texts, 7) is is_so


@pytest.mark.parametrize(
    ("listing", "names"),
    [
        (answer({"data": [{"id": "b"}, {"id": "a"}]}), ["b", "a"]),
        (answer({"data": [5, {"id": 5}, {}, None, {"id": "a"}]}), ["a"]),
        (answer({"data": "tiny"}), []),
        (answer([1]), []),
        (answer(b"[" * 100_000), []),
        (answer({"data": [{"id": "a"}]}, status=404), []),
    ],
)
def test_listed_models_are_read_and_what_is_no_listing_lists_none(listing: Answer, names: list[str]) -> None:
    assert model_names(listing) == names
