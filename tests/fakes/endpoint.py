"""A scriptable server that speaks OpenAI's HTTP protocol, and the quirks that real ones are reported to have.

    with Endpoint() as endpoint:                          # or the fixture `endpoint`
        endpoint.replies += [busy(503), says("hello")]    # completions: each once, in this order ...
        endpoint.reply = says("hi")                       # ... then this one for ever
        endpoint.models = lists("tiny", "big")            # GET /models
        ...                                               # whatever asks at endpoint.url
        endpoint.asked[0].payload["max_tokens"]           # what it was asked, in order of arrival
        endpoint.stop(); endpoint.start()                 # an outage: connections are cut and refused

Sockets are real, on loopback. A `Reply` writes one answer; QUIRKS names one of each kind with what it should come to.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

__all__ = ["ABSENT", "DRIPS", "LISTINGS", "QUIRKS", "Asked", "Endpoint", "Handler", "Quirk", "Reply"]

ABSENT: Any = object()
"""As a field's value: leave the field out."""

JSON = "application/json"
SOUND = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


@dataclass
class Asked:
    """One request: its path, headers, JSON, the client's port, and when it came (`time.monotonic()`)."""

    path: str
    headers: dict[str, str]
    payload: dict[str, Any]
    port: int
    at_s: float = field(default_factory=time.monotonic)

    @property
    def prompt(self) -> str:
        """What is to be continued, or what the user says last."""
        return str(self.payload["prompt"] if "prompt" in self.payload else self.payload["messages"][-1]["content"])


class Handler(BaseHTTPRequestHandler):
    """One connection; replies write into `wfile`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    endpoint: Endpoint
    asked: Asked

    def setup(self) -> None:
        super().setup()
        self.endpoint.connections.add(self.connection)

    def finish(self) -> None:
        self.endpoint.connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        self.asked = Asked(self.path, dict(self.headers), {}, self.client_address[1])
        self.endpoint.asked.append(self.asked)
        self.endpoint.models(self)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked = Asked(self.path, dict(self.headers), json.loads(body), self.client_address[1])
        with self.endpoint.lock:
            self.endpoint.asked.append(self.asked)
            reply = self.endpoint.replies.popleft() if self.endpoint.replies else self.endpoint.reply
        reply(self)

    def log_message(self, *_: Any) -> None:
        pass


Reply = Callable[[Handler], None]


class Endpoint:
    """The server, in threads of this process.

    Attributes:
        url: for `engine.url`.
        asked: requests so far.
        replies, reply: to POST, in turn and then for ever.
        models: to GET.
        cut: set as soon as a client has hung up in the middle of an answer.
        is_over: set when the server stops; replies that wait, wait for it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: list[Asked] = []
        self.replies: deque[Reply] = deque()
        self.reply: Reply = says("hello")
        self.models: Reply = lists("tiny")
        self.cut = threading.Event()
        self.is_over = threading.Event()
        self.connections: set[socket.socket] = set()
        self._server: _Server | None = None
        self._port = 0
        self.start()
        self.url = f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve (again), at the port of the first time."""
        self.is_over.clear()
        self._server = _Server(("127.0.0.1", self._port), type("_", (Handler,), {"endpoint": self}))
        self._server.endpoint = self
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on and cut those there are; idempotent."""
        if self._server is None:
            return
        self.is_over.set()
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    endpoint: Endpoint

    def handle_error(self, *_: Any) -> None:
        self.endpoint.cut.set()


# Replies.


def sends(body: bytes | object, status: int = 200, kind: str = JSON, headers: dict[str, str] | None = None) -> Reply:
    """Send bytes, or anything else as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def reply(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return reply


def writes(head: bytes, body: bytes = b"") -> Reply:
    """Write bytes to the socket as they are, and hang up."""

    def reply(handler: Handler) -> None:
        handler.wfile.write(head + body)
        handler.close_connection = True

    return reply


def completion(text: object, body: dict[str, Any] | None = None, **choice: Any) -> dict[str, Any]:
    """Return a completion that is one of both kinds, plain and chat, with fields changed or left out (ABSENT)."""
    first = _kept({"index": 0, "text": text, "message": {"role": "assistant", "content": text}, **choice})
    return _kept({"id": "cmpl-1", "choices": [first], "usage": SOUND, **(body or {})})


def _kept(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not ABSENT}


def says(text: object, kind: str = JSON, body: dict[str, Any] | None = None, **choice: Any) -> Reply:
    """Complete with a text; `body` and `choice` change fields of the answer and of its first choice."""
    return sends(completion(text, body, **choice), kind=kind)


def thinks(thought: str, content: object = "", name: str = "reasoning_content", **choice: Any) -> Reply:
    """Answer a chat with a thought in a field of its own."""
    return says(content, message={"role": "assistant", "content": content, name: thought}, **choice)


def lists(*names: object) -> Reply:
    """List models."""
    return sends({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


def fails(status: int, message: str = "no", headers: dict[str, str] | None = None, **error: Any) -> Reply:
    """Answer with an error in OpenAI's form."""
    return sends({"error": {"message": message, **error}}, status, headers=headers)


def busy(status: int = 503, after_s: float | str | None = None) -> Reply:
    """Ask to come again, with Retry-After if `after_s` is given."""
    headers = {} if after_s is None else {"Retry-After": str(after_s)}
    return fails(status, "Loading" if status == 503 else "Slow down", headers, type="unavailable")


def refuses(name: str, message: str = "", status: int = 400, then: Reply | None = None) -> Reply:
    """Refuse requests that have a field of that name; answer others."""
    message = message or f"This model does not know the parameter '{name}'."

    def reply(handler: Handler) -> None:
        if name in handler.asked.payload:
            fails(status, message, param=name, type="invalid_request_error", code="unsupported_parameter")(handler)
        else:
            (then or says("hello"))(handler)

    return reply


def hangs(handler: Handler) -> None:
    """Answer nothing until the client hangs up."""
    handler.rfile.read(1)
    handler.endpoint.cut.set()
    handler.close_connection = True


def hangs_up(handler: Handler) -> None:
    """End the connection without an answer."""
    handler.close_connection = True


def resets(handler: Handler) -> None:
    """End the connection with RST, as a process that is killed does."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def drips(before: bytes, drop: bytes) -> Reply:
    """Send something, then a little more of it every 20 ms, until somebody hangs up."""

    def reply(handler: Handler) -> None:
        handler.wfile.write(before)
        while not handler.endpoint.is_over.wait(0.02):
            handler.wfile.write(drop)

    return reply


def late(delay_s: float, then: Reply) -> Reply:
    """Wait first."""

    def reply(handler: Handler) -> None:
        handler.endpoint.is_over.wait(delay_s)
        then(handler)

    return reply


def by_prompt(replies: dict[str, Reply]) -> Reply:
    """Choose by the request's prompt."""
    return lambda handler: replies[handler.asked.prompt](handler)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PAGE = b"<html><title>Sign in</title>\x1b[2J Please sign in.</html>"
DIRECTIVE = json.dumps({"a0": "go"})

DRIPS = {
    "status": drips(b"HTTP/1.1 2", b"0"),
    "headers": drips(HEAD + b"X: ", b"x"),
    "body": drips(HEAD + b"Content-Length: 9999\r\n\r\n", b" "),
    "body until the connection ends": drips(HEAD + b"Connection: close\r\n\r\n", b" "),
    "size of a chunk": drips(CHUNKED, b"0"),
    "chunks": drips(CHUNKED, b"1\r\n \r\n"),
}
"""Endpoints that never come to an end, by the part of an answer that they are at."""


LISTINGS = {
    "listed": lists("other", "tiny"),
    "listed with a tag": lists("tiny:latest"),
    "wildcards": lists("*", "vendor/*"),
    "alias": lists("tiny-2026-11-01"),
    "empty": lists(),
    "missing": fails(404),
    "missing, with a page": sends(PAGE, 404, "text/html"),
    "broken": fails(500),
    "not for this key": fails(403),
    "odd entries": sends({"data": [5, {"id": 5}, {}, None]}),
    "no list": sends({"data": "tiny"}),
    "page": sends(PAGE, kind="text/html; charset=utf-8"),
    "deep JSON": sends(b"[" * 100_000),
}
"""What endpoints answer who asks for their models; the one that is meant is `tiny`."""


@dataclass(frozen=True)
class Quirk:
    """Something that endpoints do.

    Attributes:
        reply: does it.
        means: what it should come to: `readable` (there is a usable answer in it), `unusable` (this answer is bad),
            `outage` (nobody answers now; wait and try again), `refused` (no request like this will ever be answered).
    """

    reply: Reply
    means: Literal["readable", "unusable", "outage", "refused"]


QUIRKS = {
    # An endpoint that is away, loading or busy.
    "loading": Quirk(busy(503), "outage"),
    "loading, with a page": Quirk(sends(PAGE, 503, "text/html"), "outage"),
    "gateway without a server": Quirk(sends(b"", 502, "text/plain"), "outage"),
    "overloaded": Quirk(fails(529, type="overloaded_error"), "outage"),
    "rate limit": Quirk(busy(429, 1), "outage"),
    "rate limit until a date": Quirk(busy(429, "Wed, 21 Oct 2099 07:28:00 GMT"), "outage"),
    "rate limit for ever": Quirk(busy(429, 999_999_999), "outage"),
    "rate limit in a 200": Quirk(sends({"error": {"message": "Slow down", "code": 429}}), "outage"),
    "failure in a 200": Quirk(sends({"error": {"message": "Provider failed", "code": 502}, "choices": None}), "outage"),
    "failure in a choice": Quirk(says("", error={"message": "Provider failed", "code": 502}), "outage"),
    "silence": Quirk(hangs, "outage"),
    "hung up": Quirk(hangs_up, "outage"),
    "reset": Quirk(resets, "outage"),
    "cut in the body": Quirk(writes(HEAD + b"Content-Length: 9999\r\n\r\n", b'{"choices": ['), "outage"),
    "cut in a chunk": Quirk(writes(CHUNKED, b"ff\r\n{"), "outage"),
    "cut in the headers": Quirk(writes(HEAD), "outage"),
    "not HTTP": Quirk(writes(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "outage"),
    "a status that is none": Quirk(writes(b"HTTP/1.1 9999 ?\r\n\r\n"), "outage"),
    "endless headers": Quirk(writes(HEAD, b"X: y\r\n" * 50_000), "outage"),
    "slow bytes": Quirk(DRIPS["body"], "outage"),
    # Refusals for good.
    "key refused": Quirk(fails(401, "Wrong key"), "refused"),
    "not allowed": Quirk(fails(403, "Not for this key"), "refused"),
    "proxy's page": Quirk(sends(b"<html>Blocked by policy</html>", 403, "text/html", {"Via": "1.1 proxy"}), "refused"),
    "proxy wants a name": Quirk(sends(b"", 407, "text/html", {"Proxy-Authenticate": "Basic"}), "refused"),
    "no credit": Quirk(fails(429, "The quota is used up", code="insufficient_quota"), "refused"),
    "payment required": Quirk(fails(402, "Buy credits"), "refused"),
    "unknown model": Quirk(fails(404, "No such model", code="model_not_found"), "refused"),
    "unknown path": Quirk(sends(b"404 page not found", 404, "text/plain"), "refused"),
    "method not allowed": Quirk(sends(b"", 405), "refused"),
    "redirect": Quirk(sends(b"", 307, headers={"Location": "/elsewhere"}), "refused"),
    "prompt too long": Quirk(fails(400, "At most 4096 tokens", code="context_length_exceeded"), "refused"),
    "max_tokens": Quirk(refuses("max_tokens", "Unknown 'max_tokens'; send 'max_completion_tokens'."), "refused"),
    "temperature": Quirk(refuses("temperature", "'temperature' can only be 1 for this model."), "refused"),
    "seed": Quirk(refuses("seed", status=422), "refused"),
    "response_format": Quirk(refuses("response_format"), "refused"),
    "structured_outputs": Quirk(refuses("structured_outputs"), "refused"),
    # Answers in an unusual wrapping.
    "text/plain": Quirk(says("hello", "text/plain"), "readable"),
    "no content type": Quirk(says("hello", ""), "readable"),
    "event stream by name only": Quirk(says("hello", "text/event-stream"), "readable"),
    "BOM": Quirk(sends(b"\xef\xbb\xbf" + json.dumps(completion("hello")).encode()), "readable"),
    "packed unasked": Quirk(
        sends(gzip.compress(json.dumps(completion("hello")).encode()), headers={"Content-Encoding": "gzip"}), "readable"
    ),
    "parts": Quirk(says([{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]), "readable"),
    "no usage": Quirk(says("hello", body={"usage": ABSENT}), "readable"),
    "usage null": Quirk(says("hello", body={"usage": None}), "readable"),
    "usage 0/0": Quirk(says("hello", body={"usage": {"prompt_tokens": 0, "completion_tokens": 0}}), "readable"),
    "usage in words": Quirk(says("hello", body={"usage": {"prompt_tokens": "11"}}), "readable"),
    "absurd usage": Quirk(says("hello", body={"usage": {**SOUND, "completion_tokens": 10**12}}), "readable"),
    "until the connection ends": Quirk(
        writes(HEAD + b"Connection: close\r\n\r\n", json.dumps(completion("hello")).encode()), "readable"
    ),
    # Texts that need reading.
    "a thought first": Quirk(says("<think>1+2 is 3.</think>\n\nhello"), "readable"),
    "a thought that has no beginning": Quirk(says("1+2 is 3.</think>hello"), "readable"),
    "a thought in its own field": Quirk(thinks("1+2 is 3.", "hello"), "readable"),
    "fence": Quirk(says(f"```json\n{DIRECTIVE}\n```"), "readable"),
    "prose": Quirk(says(f"Sure! Here it is:\n{DIRECTIVE}\nGood luck!"), "readable"),
    "BOM in the text": Quirk(says(f"\ufeff{DIRECTIVE}"), "readable"),
    "list": Quirk(says("- a0: go"), "readable"),
    # Answers that are none.
    "only a thought": Quirk(thinks("1+2 is 3.", ""), "unusable"),
    "only a thought, and no content": Quirk(thinks("1+2 is 3.", None, "reasoning"), "unusable"),
    "a thought that was cut": Quirk(says("<think>1+2 is", finish_reason="length"), "unusable"),
    "empty": Quirk(says("", finish_reason="stop"), "unusable"),
    "no text": Quirk(says(None), "unusable"),
    "refusal": Quirk(says(None, message={"content": None, "refusal": "I cannot help with that."}), "unusable"),
    "filtered": Quirk(says("", finish_reason="content_filter"), "unusable"),
    "no choices": Quirk(says("x", body={"choices": []}), "unusable"),
    "half characters": Quirk(says("\ud83d"), "unusable"),
    "long text": Quirk(says("é" * 33_000), "unusable"),
    "page": Quirk(sends(PAGE, kind="text/html; charset=utf-8"), "unusable"),
    "half JSON": Quirk(sends(b'{"choices": ['), "unusable"),
    "not UTF-8": Quirk(sends(json.dumps(completion("é"), ensure_ascii=False).encode("latin-1")), "unusable"),
    "deep JSON": Quirk(sends(b"[" * 100_000), "unusable"),
    "a list": Quirk(sends([1, 2]), "unusable"),
    "nothing": Quirk(sends(b""), "unusable"),
    "no content": Quirk(writes(b"HTTP/1.1 204 No Content\r\n\r\n"), "unusable"),
    "oversized": Quirk(sends(b" " * (5 << 20)), "unusable"),
}
"""One of each kind, as public bug reports have them."""
