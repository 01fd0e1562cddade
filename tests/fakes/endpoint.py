"""A scriptable server that speaks OpenAI's HTTP protocol.

    with Endpoint() as endpoint:                          # or the fixture `endpoint`
        endpoint.replies += [busy(503), says("hello")]    # completions: each once, in this order ...
        endpoint.reply = says("hi")                       # ... then this one for ever
        endpoint.models = lists("tiny", "big")            # GET /models
        ...                                               # whatever asks at endpoint.url
        endpoint.asked[0].payload["max_tokens"]           # what it was asked, in order of arrival
        endpoint.stop(); endpoint.start()                 # an outage: connections are cut and refused

Sockets are real, on loopback. A `Reply` writes one answer; `fakes.endpoint_quirks` has what real endpoints do.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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
