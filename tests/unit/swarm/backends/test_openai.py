"""Models behind an OpenAI-compatible endpoint: what is sent, the key, and what becomes of good and odd answers."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fakes.endpoint import (
    ABSENT,
    SOUND,
    Endpoint,
    Handler,
    Reply,
    fails,
    lists,
    says,
    sends,
    writes,
)
from fakes.endpoint_model import CHAT, HELLO, KEY, MOST, MOST_CHAT, PLAIN, PROBE, ask, cost, fault_of, model_at
from fakes.endpoint_quirks import DRIPS, PAGE

from swarm.backends.openai import OpenAIModel
from swarm.backends.protocol import Structure, TextRequest, TextResult
from swarm.config.engine import OpenAIEngine
from swarm.errors import Outage, SwarmError
from ulm.tokenizer import Tokenizer

# What is sent.


def test_plain_text_is_continued_by_completions(endpoint: Endpoint) -> None:
    request = TextRequest("2 + 2 =", None, 5, 7, 0.5, ("\n", ";"))
    assert ask(endpoint.url + "/", request) == HELLO
    (asked,) = endpoint.asked
    assert asked.path == "/v1/completions"
    assert asked.payload == {
        "model": "tiny",
        "prompt": "2 + 2 =",
        "seed": 5,
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 1.0,
        "stop": ["\n", ";"],
    }


@pytest.mark.parametrize(
    ("system", "messages"),
    [
        ("Be brief.", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]),
        ("", [{"role": "user", "content": "hi"}]),
        (
            "<|im<|x|>_end|>Be[INST] brief.</s>",
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        ),
    ],
)
def test_a_chat_opens_with_the_system_message_unless_it_is_empty_and_holds_no_marks(
    endpoint: Endpoint, system: str, messages: list[dict[str, str]]
) -> None:
    assert ask(endpoint, TextRequest("h<|im_start|>i", system)) == HELLO
    (asked,) = endpoint.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.payload["messages"] == messages
    assert not {"prompt", "stop"} & set(asked.payload)


def test_seeds_are_reduced_to_31_bits(endpoint: Endpoint) -> None:
    ask(endpoint, TextRequest("x", seed=(1 << 62) + 12345))
    assert endpoint.asked[0].payload["seed"] == 12345


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
WANTED_JSON = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}


@pytest.mark.parametrize(
    ("structure", "fields"),
    [
        (Structure(regex="[ab]+"), {"structured_outputs": {"regex": "[ab]+"}}),
        (Structure(choices=("yes", "no")), {"structured_outputs": {"choice": ["yes", "no"]}}),
        (Structure(grammar='root ::= "a"'), {"structured_outputs": {"grammar": 'root ::= "a"'}}),
        (Structure(regex=r"\{.*\}", json_schema=SCHEMA), {"response_format": WANTED_JSON}),
    ],
)
def test_a_structure_is_asked_for_in_one_way(endpoint: Endpoint, structure: Structure, fields: dict[str, Any]) -> None:
    ask(endpoint, TextRequest("x", "", structure=structure))
    payload = endpoint.asked[0].payload
    assert {name: payload[name] for name in payload if name in ("structured_outputs", "response_format")} == fields


@pytest.mark.parametrize(
    ("structure", "finish", "is_fault"),
    [
        (Structure(choices=("yes", "no")), "stop", False),
        (Structure(regex="h.*o"), "stop", False),
        (Structure(regex="[0-9]+"), "stop", True),
        (Structure(regex="[0-9]+"), "length", False),
        (Structure(regex="[0-9]+", json_schema=SCHEMA), "stop", False),
    ],
)
def test_only_a_whole_answer_that_breaks_a_pattern_shows_that_structures_are_ignored(
    endpoint: Endpoint, structure: Structure, finish: str, is_fault: bool
) -> None:
    endpoint.reply = says("hello", finish_reason=finish)
    result = ask(endpoint, TextRequest("x", structure=structure))
    assert cost(result) == (11, 3)
    assert ("may not know structured_outputs" in (result.fault or "")) is is_fault


def test_a_request_that_cannot_be_written_does_not_take_its_neighbour_down(endpoint: Endpoint) -> None:
    bad = TextRequest("x", structure=Structure(json_schema={"a": object()}))
    results = model_at(endpoint).generate([bad, PLAIN])
    assert "cannot ask the endpoint: TypeError" in fault_of(results[0])
    assert results[1] == HELLO


def test_half_characters_of_a_prompt_are_sent(endpoint: Endpoint) -> None:
    assert ask(endpoint, TextRequest("\ud83d")) == HELLO
    assert endpoint.asked[0].prompt == "\ud83d"


# Many at once.


def test_results_come_in_the_order_of_the_requests_not_of_the_answers(endpoint: Endpoint) -> None:
    def echo_late(handler: Handler) -> None:
        time.sleep(0.1 if handler.asked.prompt == "0" else 0)
        says(handler.asked.prompt)(handler)

    endpoint.reply = echo_late
    results = model_at(endpoint, connections=4).generate([TextRequest(str(i)) for i in range(12)])
    assert [result.text for result in results] == [str(i) for i in range(12)]


def test_as_many_requests_as_connections_are_in_flight(endpoint: Endpoint) -> None:
    together = threading.Barrier(4)
    in_flight, most = 0, 0

    def reply(handler: Handler) -> None:
        nonlocal in_flight, most
        with endpoint.lock:
            in_flight += 1
            most = max(most, in_flight)
        together.wait(20)
        time.sleep(0.1)  # for more than four, if there were any
        with endpoint.lock:
            in_flight -= 1
        says("hello")(handler)

    endpoint.reply = reply
    assert model_at(endpoint, connections=4).generate([PLAIN] * 12) == [HELLO] * 12
    assert most == 4


def test_no_requests_need_no_endpoint() -> None:
    assert model_at("http://127.0.0.1:1/v1").generate([]) == []


# The key.


@pytest.mark.parametrize("environ", [{}, {"MY_KEY": ""}, {"MY_KEY": " \n"}])
def test_a_missing_key_is_the_users_mistake(environ: dict[str, str]) -> None:
    with pytest.raises(SwarmError, match=r"variable MY_KEY is not set; put .* \(engine\.key_env\)"):
        OpenAIModel("tiny", OpenAIEngine(model="tiny", url="http://localhost/v1", key_env="MY_KEY"), environ)


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(SwarmError, match="MY_KEY holds no key") as caught:
        model_at("http://localhost/v1", key)
    assert key not in str(caught.value)


def test_the_key_travels_in_the_authorization_header_and_nowhere_else(endpoint: Endpoint) -> None:
    model = model_at(endpoint, KEY + "\n")
    model.generate([CHAT])
    (asked,) = endpoint.asked
    assert asked.headers.pop("Authorization") == f"Bearer {KEY}"
    assert KEY not in str(asked)
    assert KEY not in repr(model)


def test_pickles_and_copies_hold_no_key_and_read_it_where_they_are_loaded(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_at(endpoint, KEY)
    pickled = pickle.dumps(model)
    assert KEY.encode() not in pickled
    with pytest.raises(SwarmError, match="MY_KEY is not set"):
        copy.copy(model)
    monkeypatch.setenv("MY_KEY", "another")
    assert pickle.loads(pickled).generate([PLAIN]) == [HELLO]  # noqa: S301 - our own
    assert endpoint.asked[0].headers["Authorization"] == "Bearer another"


@pytest.mark.parametrize(
    "reply",
    [
        sends(f"<p>{KEY}</p>".encode(), kind="text/html"),
        sends(KEY.encode(), kind=f"text/{KEY}"),
        sends({"error": KEY}),
        fails(400, KEY),
        fails(500, KEY),
        sends(b" " * 980 + KEY.encode(), status=500),
        sends(b"", status=302, headers={"Location": f"/{KEY}"}),
        fails(401, KEY),
        fails(404, KEY),
        says(f"your key is {KEY}"),
        says(KEY, body={"usage": None}),
        writes(f"{KEY}\r\n\r\n".encode()),
    ],
)
def test_a_key_that_the_endpoint_repeats_is_never_shown(endpoint: Endpoint, reply: Reply) -> None:
    endpoint.reply, endpoint.models = reply, lists(KEY)
    try:
        result = ask(endpoint, key=KEY)
        shown = repr(result)
        assert result.fault
    except SwarmError as error:
        shown = f"{error!r} {error.__context__!r} {error.__cause__!r}"
    assert KEY[:6] not in shown


def test_a_short_dummy_key_does_not_forbid_a_word(endpoint: Endpoint) -> None:
    endpoint.reply = says("EMPTY")
    assert ask(endpoint, key="EMPTY").text == "EMPTY"


# Answers that cannot be trusted.


@pytest.mark.parametrize("usage", [ABSENT, None, {}, {"prompt_tokens": 0, "completion_tokens": 0}])
def test_without_a_usage_that_can_be_the_text_is_kept_and_charged_the_most(endpoint: Endpoint, usage: Any) -> None:
    """Failed at e48e5b3: the answer was thrown away, and 0/0 was believed."""
    endpoint.reply = says("hello", body={"usage": usage})
    told: list[dict[str, Any]] = []
    model = model_at(endpoint, on_event=lambda kind, **facts: told.append({"kind": kind, **facts}))
    assert model.generate([CHAT] * 3) == [TextResult("hello", *MOST_CHAT, "end")] * 3
    (note,) = told
    assert note["kind"] == "endpoint_note"
    assert "charged is the most there can be; set engine.tokenizer" in note["text"]


def test_without_usage_a_tokenizer_counts_prompt_and_answer(endpoint: Endpoint, tmp_path: Path) -> None:
    """Failed at e48e5b3."""
    tokenizer = Tokenizer.train(["hello hello hello"] * 3, 300)
    tokenizer.save(tmp_path / "tokenizer.json")
    read, written = (len(tokenizer.encode(text)) for text in ("hello hello", "hello"))
    endpoint.replies += [
        says("hello", body={"usage": None}),
        says("hello", body={"usage": None}, finish_reason="length"),
    ]
    model = model_at(endpoint, tokenizer=str(tmp_path), connections=1)
    whole, cut = model.generate([TextRequest("hello hello")] * 2)
    assert (cost(whole), cost(cut)) == ((read, written + 1), (read, written))


def test_an_answer_that_ignores_its_limit_is_charged_what_it_says(endpoint: Endpoint) -> None:
    endpoint.reply = says("hello " * 50, body={"usage": SOUND | {"completion_tokens": 60}})
    assert cost(ask(endpoint)) == (11, 60)


def test_where_no_limit_was_sent_thoughts_that_nobody_sees_are_charged(endpoint: Endpoint) -> None:
    endpoint.reply = says("hello", body={"usage": SOUND | {"completion_tokens": 800}})
    assert cost(ask(endpoint)) == (11, MOST[1])
    assert cost(ask(endpoint, fields={"max_tokens": None})) == (11, 800)


def test_a_fault_quotes_what_was_answered_in_its_place(endpoint: Endpoint) -> None:
    endpoint.replies += [sends([PAGE.decode()]), says(None)]
    page, textless = model_at(endpoint, connections=1).generate([PLAIN] * 2)
    assert fault_of(page).startswith('the answer is no JSON object: ["<html><title>Sign in</title>')
    assert cost(page) == MOST
    assert 'no text at choices[0].text: {"id": "cmpl-1", ' in fault_of(textless)
    assert cost(textless) == (11, 3)
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize(
    ("text", "choice", "expected"),
    [
        ("4", {"finish_reason": "length"}, ("4", "length")),
        ("4", {"finish_reason": "stop"}, ("4", "end")),
        ("4", {"finish_reason": "stop", "stop_reason": ";"}, ("4", "stop")),
        ("4", {"finish_reason": "stop", "stop_reason": 50256}, ("4", "end")),
        ("4", {"finish_reason": "stop", "stop_reason": "end_turn"}, ("4", "end")),
        ("4", {"finish_reason": ["?"], "stop_reason": {}}, ("4", "end")),
        ("4", {}, ("4", "end")),
        ("", {"finish_reason": "stop"}, ("", "end")),
        ("4; 5\n6;", {"finish_reason": "length"}, ("4", "stop")),
        ("\n4;", {"finish_reason": "stop"}, ("", "stop")),
    ],
)
def test_answers_end_at_the_first_stop_string_or_as_the_endpoint_says(
    endpoint: Endpoint, text: str, choice: dict[str, Any], expected: tuple[str, str]
) -> None:
    endpoint.reply = says(text, **choice)
    assert ask(endpoint, TextRequest("x", stop=("\n", ";", ""))) == TextResult(expected[0], 11, 3, expected[1])  # type: ignore[arg-type]


# Counting, checking, closing.


def test_without_a_tokenizer_prompts_are_estimated_texts_are_bytes_and_messages_get_an_allowance() -> None:
    model = model_at("http://localhost/v1")
    assert model.count_tokens(["", "abc", "µLM", "\ud83d"]) == [0, 3, 4, 3]
    requests = [TextRequest("abcd"), TextRequest("abcd", ""), TextRequest("abcd", "µ")]
    assert model.count_prompts(requests) == [2, 2 + 16, 2 + 1 + 32]
    assert model.count_prompts([]) == model.count_tokens([]) == []


def test_with_a_tokenizer_its_tokens_are_counted(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["hello hello hello"] * 3, 300)
    tokenizer.save(tmp_path / "tokenizer.json")
    model = model_at("http://localhost/v1", tokenizer=str(tmp_path))
    num_tokens = len(tokenizer.encode("hello hello"))
    assert num_tokens < len("hello hello")
    assert model.count_tokens(["hello hello", ""]) == [num_tokens, 0]
    assert model.count_prompts([TextRequest("hello hello", "hello hello")]) == [2 * num_tokens + 32]


def test_a_tokenizer_that_cannot_be_read_is_the_users_mistake(endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(SwarmError, match=r"engine\.tokenizer: cannot read tokenizer"):
        model_at(endpoint, tokenizer=str(tmp_path)).check(PROBE)


# The start.


def test_a_check_asks_for_one_answer_of_the_runs_own_kind_and_says_what_it_cost(endpoint: Endpoint) -> None:
    """Failed at e48e5b3: a list of models decided, with wildcards and aliases."""
    endpoint.models = lists("*", "vendor/*")
    form, result = model_at(endpoint, KEY).check(PROBE)
    assert (form, result) == ("pattern", HELLO)
    (asked,) = endpoint.asked
    assert (asked.path, asked.headers["Authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")


def test_a_model_that_only_thinks_in_so_short_a_time_passes(endpoint: Endpoint) -> None:
    endpoint.reply = says("<think>Yes or", finish_reason="length")
    assert model_at(endpoint).check(PROBE)[1].finish == "fault"


def test_a_check_waits_for_an_endpoint_that_is_loading(endpoint: Endpoint) -> None:
    """Failed at e48e5b3: it passed, and the first episodes were lost."""
    told: list[str] = []
    endpoint.replies += [fails(503, "Loading model")] * 3
    model = model_at(endpoint, patience_s=60, on_event=lambda kind, **facts: told.append(kind))
    assert model.check(PROBE)[1] == HELLO
    assert told == ["endpoint_waits", "endpoint_back"]


@pytest.mark.parametrize(
    ("reply", "models", "message"),
    [
        (
            sends(PAGE, kind="text/html"),
            lists(),
            r"a web page and no OpenAI.* correct engine.url.*·\[2J Please sign in",
        ),
        (sends({"status": "running"}), lists(), r"something else and no OpenAI.*no text at choices"),
        (
            fails(404, "No such model"),
            lists("tinny\x1b", *"abcdefghij"),
            r"knows no model 'tiny', or no /chat.*No such model.*; it offers tinny·, a, b, c, d, .*, \.\.\.;",
        ),
        (fails(404), lists("b", "a"), r"knows no model 'tiny'.*; it offers b, a; correct engine.model"),
        (DRIPS["headers"], lists(), r"no answer from .*timeout: no answer within 0\.1 s.*raise faults.call_timeout_s"),
        (fails(401, "Who are you?"), lists(), r"refuses the key: set engine\.key_env .*Who are you\?"),
        (fails(402, "Buy credits"), lists(), r"no credit left for this key.*Buy credits"),
        (fails(400, "Bad " + "x" * 900), lists(), r"refuses the request: HTTP 400: Bad x{900}$"),
    ],
)
def test_a_check_says_in_one_line_what_is_wrong_in_the_endpoints_words(
    endpoint: Endpoint, reply: Reply, models: Reply, message: str
) -> None:
    endpoint.reply, endpoint.models = reply, models
    with pytest.raises(Outage, match=message) as caught:
        model_at(endpoint, timeout_s=0.1, patience_s=0.2).check(PROBE)
    assert str(caught.value).isprintable()
