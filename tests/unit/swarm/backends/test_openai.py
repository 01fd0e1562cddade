"""Models behind an OpenAI-compatible endpoint, played by a server in a thread: good, slow, failing and hostile ones."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from swarm.backends.openai import OpenAIModel
from swarm.backends.protocol import Structure, TextRequest, TextResult
from swarm.backends.timed_http import Watch
from swarm.config.engine import OpenAIEngine
from swarm.errors import SwarmError
from ulm.tokenizer import Tokenizer

KEY = "sk-0123456789abcdef-secret"
PLAIN = TextRequest("2 + 2 =", max_new_tokens=7)
MOST = (len(PLAIN.prompt), 7)
"""Tokens that it is charged when nobody says what it cost."""
LATE = "timeout: no answer from the endpoint before the deadline (faults.call_timeout_s)"
CHAT = TextRequest("hi", system="Be brief.", max_new_tokens=7)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    endpoint: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked = Asked(self.path, dict(self.headers), json.loads(body or b"{}"), self.client_address[1])
        with self.endpoint.lock:
            self.endpoint.asked.append(self.asked)
            reply = self.endpoint.replies.popleft() if self.endpoint.replies else self.endpoint.reply
        reply(self)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        pass


Reply = Callable[[Handler], None]


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    payload: dict[str, Any]
    port: int


class Endpoint(ThreadingHTTPServer):
    """Answers with `replies` in turn, then with `reply` for ever."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), type("_", (Handler,), {"endpoint": self}))
        self.lock = threading.Lock()
        self.asked: list[Asked] = []
        self.replies: deque[Reply] = deque()
        self.reply: Reply = says("hello")
        self.is_over = threading.Event()
        self.cut = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *_: Any) -> None:
        self.cut.set()

    def stop(self) -> None:
        self.is_over.set()
        self.shutdown()
        self.server_close()


def sends(
    body: bytes | object, status: int = 200, kind: str = "application/json", headers: dict[str, str] | None = None
) -> Reply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def reply(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return reply


def completion(text: object, **choice: Any) -> dict[str, Any]:
    """Return what both kinds of completion give back, in one."""
    usage = {"prompt_tokens": 11, "completion_tokens": 3}
    return {"choices": [{"text": text, "message": {"content": text}, **choice}], "usage": usage}


def says(text: object, **choice: Any) -> Reply:
    return sends(completion(text, **choice))


def lists(*names: str) -> Reply:
    return sends({"data": [{"id": name} for name in names]})


def hangs(handler: Handler) -> None:
    handler.endpoint.is_over.wait(20)
    handler.close_connection = True


def drips(before: bytes, drop: bytes) -> Reply:
    """Send something, then a little more of it every 20 ms, until somebody hangs up."""

    def reply(handler: Handler) -> None:
        handler.wfile.write(before)
        while not handler.endpoint.is_over.wait(0.02):
            handler.wfile.write(drop)

    return reply


def by_prompt(replies: dict[str, Reply]) -> Reply:
    return lambda handler: replies[handler.asked.payload["prompt"]](handler)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.stop()


@pytest.fixture
def closed_url() -> str:
    endpoint = Endpoint()
    endpoint.stop()
    return endpoint.url


def model_at(url: str, environ: dict[str, str] | None = None, **settings: Any) -> OpenAIModel:
    config = OpenAIEngine(model="tiny", url=url, **{"retries": 2, "timeout_s": 30.0, **settings})
    return OpenAIModel("tiny", config, environ or {}, backoff_s=0.01)


def fault_of(result: TextResult) -> str:
    assert (result.text, result.finish) == ("", "fault")
    assert result.fault
    assert result.fault.isprintable()
    assert len(result.fault) < 400
    return result.fault


# What is sent.


def test_plain_text_is_continued_by_completions(endpoint: Endpoint) -> None:
    request = TextRequest("2 + 2 =", None, 5, 7, 0.5, 0.9, ("\n", ";"))
    assert model_at(endpoint.url + "/").generate([request]) == [TextResult("hello", 11, 3, "end")]
    (asked,) = endpoint.asked
    assert asked.path == "/v1/completions"
    assert asked.payload == {
        "model": "tiny",
        "prompt": "2 + 2 =",
        "seed": 5,
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["\n", ";"],
    }


@pytest.mark.parametrize(
    ("system", "messages"),
    [
        ("Be brief.", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]),
        ("", [{"role": "user", "content": "hi"}]),
    ],
)
def test_a_chat_opens_with_the_system_message_unless_it_is_empty(
    endpoint: Endpoint, system: str, messages: list[dict[str, str]]
) -> None:
    assert model_at(endpoint.url).generate([TextRequest("hi", system)])[0].text == "hello"
    (asked,) = endpoint.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.payload["messages"] == messages
    assert "prompt" not in asked.payload
    assert "stop" not in asked.payload


def test_seeds_are_reduced_to_31_bits(endpoint: Endpoint) -> None:
    model_at(endpoint.url).generate([TextRequest("x", seed=(1 << 62) + 12345)])
    assert endpoint.asked[0].payload["seed"] == 12345


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("structure", "fields"),
    [
        (Structure(regex="[ab]+"), {"structured_outputs": {"regex": "[ab]+"}}),
        (Structure(choices=("yes", "no")), {"structured_outputs": {"choice": ["yes", "no"]}}),
        (Structure(grammar='root ::= "a"'), {"structured_outputs": {"grammar": 'root ::= "a"'}}),
        (
            Structure(regex=r"\{.*\}", json_schema=SCHEMA),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
                }
            },
        ),
    ],
)
def test_a_structure_is_asked_for_in_one_way(endpoint: Endpoint, structure: Structure, fields: dict[str, Any]) -> None:
    model_at(endpoint.url).generate([TextRequest("x", "", structure=structure)])
    payload = endpoint.asked[0].payload
    assert {name: payload[name] for name in payload if name in ("structured_outputs", "response_format")} == fields


def test_an_answer_without_the_wanted_structure_is_returned_as_it_is(endpoint: Endpoint) -> None:
    request = TextRequest("x", structure=Structure(choices=("yes", "no")))
    assert model_at(endpoint.url).generate([request])[0] == TextResult("hello", 11, 3, "end")


def test_a_request_that_cannot_be_written_down_does_not_take_its_neighbour_down(endpoint: Endpoint) -> None:
    bad = TextRequest("x", structure=Structure(json_schema={"a": object()}))
    results = model_at(endpoint.url).generate([bad, PLAIN])
    assert "cannot ask the endpoint: TypeError" in fault_of(results[0])
    assert results[1].text == "hello"


# Many at once.


def test_results_come_in_the_order_of_the_requests_not_of_the_answers(endpoint: Endpoint) -> None:
    def echo_late(handler: Handler) -> None:
        prompt = handler.asked.payload["prompt"]
        time.sleep(0.1 if prompt == "0" else 0)
        says(prompt)(handler)

    endpoint.reply = echo_late
    results = model_at(endpoint.url, connections=4).generate([TextRequest(str(i)) for i in range(12)])
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
        with endpoint.lock:
            in_flight -= 1
        says("hello")(handler)

    endpoint.reply = reply
    results = model_at(endpoint.url, connections=4, retries=0).generate([PLAIN] * 12)
    assert all(result.text == "hello" for result in results)
    assert most == 4


def test_connections_are_used_again(endpoint: Endpoint) -> None:
    model = model_at(endpoint.url, connections=3)
    for _ in range(2):
        model.generate([PLAIN] * 8)
    assert len(endpoint.asked) == 16
    assert len({asked.port for asked in endpoint.asked}) <= 3


def test_no_requests_need_no_endpoint(closed_url: str) -> None:
    assert model_at(closed_url).generate([]) == []


# The key.


@pytest.mark.parametrize("environ", [{}, {"MY_KEY": ""}, {"MY_KEY": " \n"}])
def test_a_missing_key_is_the_users_mistake(environ: dict[str, str]) -> None:
    with pytest.raises(SwarmError, match=r"variable MY_KEY is not set; put .* \(engine\.key_env\)"):
        model_at("http://localhost/v1", environ, key_env="MY_KEY")


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(SwarmError, match="MY_KEY holds no key") as caught:
        model_at("http://localhost/v1", {"MY_KEY": key}, key_env="MY_KEY")
    assert key not in str(caught.value)


def test_the_key_travels_in_the_authorization_header_and_nowhere_else(endpoint: Endpoint) -> None:
    model = model_at(endpoint.url, {"MY_KEY": KEY + "\n"}, key_env="MY_KEY")
    model.generate([CHAT])
    (asked,) = endpoint.asked
    assert asked.headers.pop("Authorization") == f"Bearer {KEY}"
    assert KEY not in str(asked)
    assert KEY not in repr(model)


def test_without_key_env_no_authorization_is_sent_even_if_netrc_has_one(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    model_at(endpoint.url).generate([PLAIN])
    assert "Authorization" not in endpoint.asked[0].headers


def test_pickles_and_copies_hold_no_key_and_read_it_where_they_are_loaded(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_at(endpoint.url, {"MY_KEY": KEY}, key_env="MY_KEY")
    pickled = pickle.dumps(model)
    assert KEY.encode() not in pickled
    with pytest.raises(SwarmError, match="MY_KEY is not set"):
        copy.copy(model)
    monkeypatch.setenv("MY_KEY", "another")
    assert pickle.loads(pickled).generate([PLAIN])[0].text == "hello"  # noqa: S301 - our own
    assert endpoint.asked[0].headers["Authorization"] == "Bearer another"


@pytest.mark.parametrize(
    "reply",
    [
        sends(f"<p>{KEY}</p>".encode(), kind="text/html"),
        sends(KEY.encode(), kind=f"text/{KEY}"),
        sends({"error": KEY}),
        sends({"error": KEY}, status=400),
        sends({"error": KEY}, status=500),
        sends(b" " * 980 + KEY.encode(), status=500),
        sends(b"", status=302, headers={"Location": f"/{KEY}"}),
        sends({"error": KEY}, status=401),
        sends({"data": [{"id": KEY}]}, status=404),
        says(f"your key is {KEY}"),
        says(KEY, usage=None),
        lambda handler: handler.wfile.write(f"{KEY}\r\n\r\n".encode()),
    ],
)
def test_a_key_that_the_endpoint_repeats_is_never_shown(endpoint: Endpoint, reply: Reply) -> None:
    endpoint.reply = reply
    model = model_at(endpoint.url, {"MY_KEY": KEY}, key_env="MY_KEY", retries=1)
    try:
        shown = repr(model.generate([PLAIN]))
        assert "fault=None" not in shown
    except SwarmError as error:
        shown = f"{error!r} {error.__context__!r}"
    assert KEY[:6] not in shown


def test_a_listed_model_named_like_the_key_is_not_shown(endpoint: Endpoint) -> None:
    endpoint.replies.extend([sends({}, status=404), lists(KEY, "other")])
    with pytest.raises(SwarmError, match=r"it offers \[key\], other"):
        model_at(endpoint.url, {"MY_KEY": KEY}, key_env="MY_KEY").generate([PLAIN])


def test_a_short_dummy_key_does_not_forbid_a_word(endpoint: Endpoint) -> None:
    endpoint.reply = says("EMPTY")
    model = model_at(endpoint.url, {"MY_KEY": "EMPTY"}, key_env="MY_KEY")
    assert model.generate([PLAIN])[0].text == "EMPTY"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(endpoint: Endpoint, status: int) -> None:
    elsewhere = Endpoint()
    endpoint.reply = sends(b"", status, headers={"Location": elsewhere.url + "/completions"})
    (result,) = model_at(endpoint.url, {"MY_KEY": KEY}, key_env="MY_KEY").generate([PLAIN])
    elsewhere.stop()
    assert f"HTTP {status}: a redirect, and those are not followed" in fault_of(result)
    assert len(endpoint.asked) == 1
    assert elsewhere.asked == []


# Answers that cannot be trusted.

SOUND = {"prompt_tokens": 11, "completion_tokens": 3}
UPPER = (len(PLAIN.prompt), PLAIN.max_new_tokens)


@pytest.mark.parametrize(
    ("reply", "fault", "charged"),
    [
        (sends(b'{"choices": ['), "cannot be read as JSON in UTF-8", UPPER),
        (sends(b""), "cannot be read as JSON in UTF-8", UPPER),
        (sends(b"[" * 100_000), "cannot be read as JSON in UTF-8", UPPER),
        (
            sends(json.dumps(completion("é"), ensure_ascii=False).encode("latin-1")),
            "cannot be read as JSON in UTF-8",
            UPPER,
        ),
        (sends([1, 2]), "the answer is no JSON object", UPPER),
        (sends(b"<html>\x1b[2J Log in!", kind="text/html"), "'text/html', not JSON: <html>·[2J Log in!", UPPER),
        (sends(completion("x"), kind="text/event-stream"), "of type 'text/event-stream', not JSON", UPPER),
        (sends(completion("x"), kind=""), "of type '', not JSON", UPPER),
        (sends({"error": "overloaded"}), 'no text at choices[0].text: {"error": "overloaded"}', UPPER),
        (sends({"choices": [], "usage": SOUND}), "no text at choices[0].text", (11, 3)),
        (sends({"choices": {"0": 1}, "usage": SOUND}), "no text at choices[0].text", (11, 3)),
        (sends({"choices": ["x"], "usage": SOUND}), "no text at choices[0].text", (11, 3)),
        (says(None), "no text at choices[0].text", (11, 3)),
        (says(["x"]), "no text at choices[0].text", (11, 3)),
        (says("\ud83d"), "half characters", (11, 3)),
        (says("é" * 33_000), "text is longer than 65536 bytes", (11, 3)),
    ],
)
def test_an_answer_that_is_none_becomes_a_fault_of_its_request_alone(
    endpoint: Endpoint, reply: Reply, fault: str, charged: tuple[int, int]
) -> None:
    endpoint.reply = by_prompt({PLAIN.prompt: reply, "fine": says("hello")})
    bad, good = model_at(endpoint.url).generate([PLAIN, TextRequest("fine")])
    assert fault in fault_of(bad)
    assert (bad.prompt_tokens, bad.generated_tokens) == charged
    assert good == TextResult("hello", 11, 3, "end")
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize("message", [None, "x", {}, {"content": None}, {"content": 5}])
def test_a_chat_without_content_is_a_fault(endpoint: Endpoint, message: Any) -> None:
    endpoint.reply = says("x", message=message)
    assert "no text at choices[0].message.content" in fault_of(model_at(endpoint.url).generate([CHAT])[0])


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "many",
        {},
        {"prompt_tokens": 11},
        {"prompt_tokens": 11, "completion_tokens": None},
        {"prompt_tokens": -1, "completion_tokens": 3},
        {"prompt_tokens": True, "completion_tokens": 3},
        {"prompt_tokens": 11.0, "completion_tokens": 3},
        {"prompt_tokens": "11", "completion_tokens": 3},
        {"prompt_tokens": 11, "completion_tokens": 10**9 + 1},
    ],
)
def test_without_sound_usage_the_answer_is_a_fault_that_is_charged_the_most_it_can_have_used(
    endpoint: Endpoint, usage: Any
) -> None:
    endpoint.reply = sends({**completion("hello"), "usage": usage})
    (result,) = model_at(endpoint.url).generate([CHAT])
    assert "the endpoint reports no token usage, so nothing can be charged" in fault_of(result)
    assert (result.prompt_tokens, result.generated_tokens) == (len("Be brief.") + len("hi") + 2 * 16, 7)


def test_an_endless_body_is_cut(endpoint: Endpoint) -> None:
    sent = 0

    def reply(handler: Handler) -> None:
        nonlocal sent
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while not endpoint.is_over.is_set():
            handler.wfile.write(b" " * (1 << 16))
            sent += 1 << 16

    endpoint.reply = reply
    (result,) = model_at(endpoint.url, timeout_s=10.0).generate([PLAIN])
    assert "the answer is longer than 4194304 bytes" in fault_of(result)
    assert endpoint.cut.wait(5)
    assert sent < 16 << 20


def test_a_packed_body_is_not_unpacked(endpoint: Endpoint) -> None:
    endpoint.reply = sends(b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"})
    assert "cannot be read as JSON in UTF-8" in fault_of(model_at(endpoint.url).generate([PLAIN])[0])
    assert endpoint.asked[0].headers["Accept-Encoding"] == "identity"


# How an answer ends.


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
    (result,) = model_at(endpoint.url).generate([TextRequest("x", stop=("\n", ";", ""))])
    assert (result.text, result.finish) == expected
    assert (result.prompt_tokens, result.generated_tokens, result.fault) == (11, 3, None)


# Trying again.


def hangs_up(handler: Handler) -> None:
    handler.close_connection = True


@pytest.mark.parametrize("reply", [*(sends({}, status) for status in (408, 409, 425, 429, 500, 503, 529)), hangs_up])
def test_what_may_pass_is_tried_again(endpoint: Endpoint, reply: Reply) -> None:
    endpoint.replies.extend([reply, reply])
    lost = 2 if reply is hangs_up else 0  # what was taken and never answered may have been computed
    charged = (11 + lost * MOST[0], 3 + lost * MOST[1])
    assert model_at(endpoint.url).generate([PLAIN]) == [TextResult("hello", *charged, "end")]
    assert len(endpoint.asked) == 3


@pytest.mark.parametrize("status", [201, 400, 402, 405, 413, 418, 422])
def test_what_will_not_pass_is_not_tried_again(endpoint: Endpoint, status: int) -> None:
    endpoint.reply = sends({"error": "no\x1b"}, status)
    (result,) = model_at(endpoint.url).generate([PLAIN])
    assert fault_of(result) == f'HTTP {status}: {{"error": "no\\u001b"}}'
    assert len(endpoint.asked) == 1


def test_after_the_last_retry_the_last_trouble_is_the_fault(endpoint: Endpoint) -> None:
    endpoint.replies.extend([sends({}, 500), hangs_up])
    endpoint.reply = sends(b"too \x1b[31m hot", 503)
    (result,) = model_at(endpoint.url).generate([PLAIN])
    assert fault_of(result) == "HTTP 503: too ·[31m hot (tries: 3)"
    assert len(endpoint.asked) == 3


def test_a_fault_after_broken_connections_names_no_address_in_memory(endpoint: Endpoint) -> None:
    endpoint.reply = hangs_up
    fault = fault_of(model_at(endpoint.url).generate([PLAIN])[0])
    assert "Remote end closed connection without response" in fault
    assert "0x" not in fault


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note delays before retries instead of waiting."""
    noted: list[float] = []
    monkeypatch.setattr(Watch, "sleep", lambda _, delay_s: noted.append(delay_s) or True)
    return noted


def test_delays_double_up_to_half_a_minute(endpoint: Endpoint, delays: list[float]) -> None:
    endpoint.reply = sends({}, 500)
    OpenAIModel("tiny", OpenAIEngine(model="tiny", url=endpoint.url, retries=8)).generate([PLAIN])
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(
    ("after", "delay_s"),
    [
        ("45", 45),
        ("2.5", 2.5),
        ("0", 0.5),
        ("999999999", 60),
        ("soon", 0.5),
        ("-5", 0.5),
        ("nan", 0.5),
        ("1e9", 0.5),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 0.5),
    ],
)
def test_seconds_of_retry_after_are_obeyed_for_as_long_as_a_request_may_take(
    endpoint: Endpoint, delays: list[float], after: str, delay_s: float
) -> None:
    endpoint.replies.append(sends({}, 429, headers={"Retry-After": after}))
    OpenAIModel("tiny", OpenAIEngine(model="tiny", url=endpoint.url, timeout_s=60)).generate([PLAIN])
    assert delays == [delay_s]


def test_a_retry_after_is_really_waited_for(endpoint: Endpoint) -> None:
    endpoint.replies.append(sends({}, 429, headers={"Retry-After": "0.3"}))
    started_s = time.monotonic()
    assert model_at(endpoint.url).generate([PLAIN])[0].text == "hello"
    assert time.monotonic() - started_s >= 0.295


def test_a_retry_after_beyond_the_deadline_is_not_waited_for(endpoint: Endpoint) -> None:
    endpoint.reply = sends({}, 429, headers={"Retry-After": "999999999"})
    started_s = time.monotonic()
    (result,) = model_at(endpoint.url).generate([PLAIN], started_s + 5)
    assert time.monotonic() - started_s < 4
    assert fault_of(result) == "timeout: no time before the deadline to try again after HTTP 429: {}"


# What makes every further call pointless.


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_the_users_mistake_and_not_tried_again(endpoint: Endpoint, status: int) -> None:
    endpoint.reply = sends({"error": "who?"}, status)
    with pytest.raises(SwarmError, match=rf"refuses the key: check what is in MY_KEY \(HTTP {status}: .*who\?"):
        model_at(endpoint.url, {"MY_KEY": KEY}, key_env="MY_KEY", connections=1).generate([PLAIN] * 5)
    assert len(endpoint.asked) == 1


def test_an_endpoint_that_wants_a_key_says_how_to_give_one(endpoint: Endpoint) -> None:
    endpoint.reply = sends({}, 401)
    with pytest.raises(SwarmError, match=r"set engine\.key_env"):
        model_at(endpoint.url).generate([PLAIN])


def test_an_unknown_model_is_the_users_mistake_and_the_known_ones_are_listed(endpoint: Endpoint) -> None:
    endpoint.replies.extend([sends({}, 404), lists("tinny", "big")])
    with pytest.raises(SwarmError, match=r"no model 'tiny'.*HTTP 404.*it offers tinny, big; did you mean tinny\?"):
        model_at(endpoint.url).generate([PLAIN])
    assert [asked.path for asked in endpoint.asked] == ["/v1/completions", "/v1/models"]


def test_an_unknown_path_is_the_users_mistake_even_if_no_models_are_listed(endpoint: Endpoint) -> None:
    endpoint.reply = sends({}, 404)
    with pytest.raises(SwarmError, match=r"or no /chat/completions \(HTTP 404\); correct"):
        model_at(endpoint.url).generate([CHAT])


def test_an_endpoint_that_was_never_there_is_the_users_mistake(closed_url: str) -> None:
    with pytest.raises(SwarmError, match=rf"no endpoint at {closed_url}: start it or correct engine\.url .*refused"):
        model_at(closed_url).generate([PLAIN] * 3)


def test_an_endpoint_that_goes_away_later_costs_faults(endpoint: Endpoint) -> None:
    endpoint.reply = sends(completion("hello"), headers={"Connection": "close"})
    model = model_at(endpoint.url)
    assert model.generate([PLAIN])[0].text == "hello"
    endpoint.stop()
    assert "refused" in fault_of(model.generate([PLAIN])[0])


def test_an_endpoint_that_comes_up_while_it_is_tried_is_found(closed_url: str) -> None:
    port = int(closed_url.removesuffix("/v1").rpartition(":")[2])
    started: list[Endpoint] = []
    threading.Timer(0.1, lambda: started.append(Endpoint(port))).start()
    assert model_at(closed_url, retries=8).generate([PLAIN])[0].text == "hello"
    started[0].stop()


# Time.

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
DRIPS = {
    "status": drips(b"HTTP/1.1 2", b"0"),
    "headers": drips(HEAD + b"X: ", b"x"),
    "body": drips(HEAD + b"Content-Length: 9999\r\n\r\n", b" "),
    "body until the connection ends": drips(HEAD + b"Connection: close\r\n\r\n", b" "),
    "size of a chunk": drips(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "chunks": drips(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
}


@pytest.mark.parametrize("name", DRIPS)
def test_no_endpoint_outlasts_the_deadline_and_all_are_hung_up_on(endpoint: Endpoint, name: str) -> None:
    endpoint.reply = DRIPS[name]
    started_s = time.monotonic()
    (late,) = model_at(endpoint.url).generate([PLAIN], started_s + 0.15)
    assert 0.14 <= time.monotonic() - started_s < 5
    assert fault_of(late) == LATE
    assert (late.prompt_tokens, late.generated_tokens) == MOST
    assert endpoint.cut.wait(5)
    assert num_http_threads_after(5) == 0


def num_http_threads_after(limit_s: float) -> int:
    """Return how many threads of the backend are left once none is, or after so many seconds."""
    deadline_s = time.monotonic() + limit_s
    while (num := sum(thread.name == "http" for thread in threading.enumerate())) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return num


def test_an_endpoint_that_says_nothing_is_hung_up_on_at_the_deadline(endpoint: Endpoint) -> None:
    endpoint.reply = hangs
    assert fault_of(model_at(endpoint.url).generate([PLAIN], time.monotonic() + 0.15)[0]).startswith("timeout: ")
    assert num_http_threads_after(2) == 0


def test_answers_from_before_the_deadline_are_kept(endpoint: Endpoint) -> None:
    endpoint.reply = by_prompt({PLAIN.prompt: hangs, "fine": says("hello")})
    late, fine = model_at(endpoint.url).generate([PLAIN, TextRequest("fine")], time.monotonic() + 1)
    assert fault_of(late).startswith("timeout: ")
    assert fine == TextResult("hello", 11, 3, "end")


@pytest.mark.parametrize("name", DRIPS)
def test_without_a_deadline_a_slow_answer_ends_with_its_time_out(endpoint: Endpoint, name: str) -> None:
    endpoint.reply = DRIPS[name]
    (result,) = model_at(endpoint.url, timeout_s=0.1, retries=0).generate([PLAIN])
    assert fault_of(result) == "timeout: no answer within 0.1 s (tries: 1)"


def test_a_time_out_is_tried_again(endpoint: Endpoint) -> None:
    endpoint.replies.extend([hangs, DRIPS["body"]])
    (result,) = model_at(endpoint.url, timeout_s=0.3, retries=8).generate([PLAIN])
    lost = len(endpoint.asked) - 1
    assert lost >= 2
    assert result == TextResult("hello", 11 + lost * MOST[0], 3 + lost * MOST[1], "end")


def test_requests_that_were_not_started_before_the_deadline_are_faults(endpoint: Endpoint) -> None:
    endpoint.reply = hangs
    results = model_at(endpoint.url, connections=2).generate([PLAIN] * 20, time.monotonic() + 0.2)
    assert {fault_of(result) for result in results} == {LATE}
    charged = [(result.prompt_tokens, result.generated_tokens) for result in results]
    assert charged.count(MOST) <= 2
    assert charged.count((0, 0)) >= 18
    assert len(endpoint.asked) <= 2


def test_back_off_ends_at_the_deadline(endpoint: Endpoint) -> None:
    endpoint.reply = sends({}, 500)
    started_s = time.monotonic()
    model = OpenAIModel("tiny", OpenAIEngine(model="tiny", url=endpoint.url, retries=20), backoff_s=0.05)
    (result,) = model.generate([PLAIN], started_s + 0.2)
    assert time.monotonic() - started_s < 5
    assert fault_of(result).startswith("timeout: ")


def test_after_the_deadline_nothing_is_sent(endpoint: Endpoint) -> None:
    (result,) = model_at(endpoint.url).generate([PLAIN], time.monotonic() - 1)
    assert fault_of(result).startswith("timeout: ")
    assert endpoint.asked == []


def test_a_refused_key_ends_calls_that_hang(endpoint: Endpoint) -> None:
    endpoint.reply = by_prompt({PLAIN.prompt: hangs, "refused": sends({}, 401)})
    started_s = time.monotonic()
    with pytest.raises(SwarmError, match="refuses the key"):
        model_at(endpoint.url).generate([PLAIN, TextRequest("refused")])
    assert time.monotonic() - started_s < 10


def test_a_model_answers_again_after_calls_were_cut(endpoint: Endpoint) -> None:
    model = model_at(endpoint.url)
    endpoint.reply = by_prompt({"slow": hangs, "drip": DRIPS["body"], "fine": says("hello")})
    model.generate([TextRequest("slow"), TextRequest("drip")], time.monotonic() + 0.1)
    assert [result.text for result in model.generate([TextRequest("fine")] * 2)] == ["hello", "hello"]


def test_the_watch_reaches_through_a_proxy(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", endpoint.url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    endpoint.replies.append(DRIPS["headers"])
    assert model_at("http://far.invalid/v1", timeout_s=0.3, retries=8).generate([PLAIN])[0].text == "hello"
    assert endpoint.asked[0].path == "http://far.invalid/v1/completions"


SCRIPT = """
import sys, threading, time
from swarm.backends.openai import OpenAIModel
from swarm.backends.protocol import TextRequest
from swarm.config.engine import OpenAIEngine

model = OpenAIModel("tiny", OpenAIEngine(model="tiny", url=sys.argv[1]))
threading.Thread(target=model.generate, args=([TextRequest("x")],), daemon=True).start()
while not any(thread.name == "http" for thread in threading.enumerate()):
    time.sleep(0.01)
time.sleep(0.3)
print("hanging")
"""


def test_an_endpoint_that_hangs_does_not_keep_the_process_alive(endpoint: Endpoint) -> None:
    endpoint.reply = hangs
    command = [sys.executable, "-c", SCRIPT, endpoint.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "hanging\n"


# Counting, and the rest.


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
        model_at(endpoint.url, tokenizer=str(tmp_path)).check()


def test_the_length_is_the_configured_one_or_unknown() -> None:
    assert model_at("http://localhost/v1", max_length=2048).max_length == 2048
    assert model_at("http://localhost/v1").max_length == 1 << 20


def test_closing_twice_is_harmless(endpoint: Endpoint) -> None:
    model = model_at(endpoint.url)
    model.generate([PLAIN])
    model.close()
    model.close()


@pytest.mark.parametrize(
    "reply",
    [
        lists("other", "tiny"),
        lists("tiny:latest"),
        lists(),
        sends({}, 404),
        sends({}, 500),
        sends(b"<html>", 404, kind="text/html"),
        sends({"data": "tiny"}),
        sends({"data": [5, {"id": 5}, {}]}),
        sends(b"[" * 100_000),
    ],
)
def test_a_check_passes_if_the_model_is_listed_or_nothing_is(endpoint: Endpoint, reply: Reply) -> None:
    endpoint.reply = reply
    model_at(endpoint.url, {"MY_KEY": KEY}, key_env="MY_KEY").check()
    (asked,) = endpoint.asked
    assert (asked.path, asked.headers["Authorization"]) == ("/v1/models", f"Bearer {KEY}")


def test_a_check_refuses_a_web_page(endpoint: Endpoint) -> None:
    endpoint.reply = sends(b"<html>\x1b[2J Log in!", kind="text/html; charset=utf-8")
    with pytest.raises(SwarmError, match=r"a web page and no OpenAI.* correct engine.url.*\(<html>·\[2J Log in!\)"):
        model_at(endpoint.url).check()


def test_a_check_refuses_a_model_that_is_not_listed_and_suggests_one(endpoint: Endpoint) -> None:
    endpoint.reply = lists("tinny\x1b[31m", *(f"big-{i}" for i in range(20)))
    with pytest.raises(SwarmError) as caught:
        model_at(endpoint.url).check()
    message = str(caught.value)
    assert message.startswith(f"the endpoint {endpoint.url} has no model 'tiny'; it offers tinny·[31m, big-0, ")
    assert "big-8, ...; did you mean" not in message  # nothing is close enough to the name with the escape in it
    assert message.endswith("big-8, ...")


def test_a_check_tells_that_nobody_answers(closed_url: str) -> None:
    with pytest.raises(SwarmError, match=f"no endpoint at {closed_url}: start it or correct"):
        model_at(closed_url).check()


def test_a_check_does_not_wait_for_an_endpoint_that_drips(endpoint: Endpoint) -> None:
    endpoint.reply = DRIPS["headers"]
    with pytest.raises(SwarmError, match=r"no endpoint at .* \(timeout: "):
        model_at(endpoint.url, timeout_s=0.2).check()


def test_a_check_tells_that_the_key_is_refused(endpoint: Endpoint) -> None:
    endpoint.reply = sends({}, 401)
    with pytest.raises(SwarmError, match="refuses the key"):
        model_at(endpoint.url).check()


def test_a_check_makes_a_later_absence_a_fault(endpoint: Endpoint) -> None:
    endpoint.reply = sends({"data": []}, headers={"Connection": "close"})
    model = model_at(endpoint.url)
    model.check()
    endpoint.stop()
    assert "refused" in fault_of(model.generate([PLAIN])[0])
