"""Exchanges over HTTP that end in time, whatever the other side does."""

from __future__ import annotations

import gzip
import signal
import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from fakes.endpoint import Endpoint, Handler, Reply, busy, hangs, hangs_up, resets, says, sends, writes
from fakes.endpoint_quirks import DRIPS, HEAD, QUIRKS

from swarm.backends.timed_http import MAX_BODY_BYTES, Answer, TimedClient, is_loopback, proxy_for
from swarm.errors import SwarmError

SLOW = {**DRIPS, "silence": hangs}


@pytest.fixture
def client() -> Iterator[TimedClient]:
    client = TimedClient(None, 2, "http://127.0.0.1/v1")
    yield client
    client.close()


def exchange(client: TimedClient, url: str, limit_s: float = 20.0, body: bytes = b"{}") -> Answer:
    return client.run(client.exchange(limit_s, "POST", url + "/completions", body))


@pytest.mark.parametrize("name", SLOW)
def test_every_exchange_ends_at_its_limit_and_hangs_up(client: TimedClient, endpoint: Endpoint, name: str) -> None:
    endpoint.reply = SLOW[name]
    started_s = time.monotonic()
    answer = exchange(client, endpoint.url, 0.2)
    assert 0.19 <= time.monotonic() - started_s < 5
    assert answer == Answer(trouble="timeout: no answer within 0.2 s", was_sent=True)
    assert endpoint.cut.wait(5)


def test_without_time_nothing_is_sent(client: TimedClient, endpoint: Endpoint) -> None:
    exchange(client, endpoint.url)  # leaves a connection open
    assert exchange(client, endpoint.url, -0.1).was_sent is False
    assert len(endpoint.asked) == 1


def test_a_slow_name_look_up_ends_at_the_limit_and_is_forgotten(
    client: TimedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, complaints = threading.Event(), []

    def look_up(*_: object, **__: object) -> list[object]:
        found.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(threading, "excepthook", complaints.append)
    answer = exchange(client, "http://far.invalid/v1", 0.2)
    assert answer == Answer(trouble="timeout: no answer within 0.2 s", was_sent=False)
    found.set()
    for thread in [thread for thread in threading.enumerate() if thread.name == "look-up"]:
        thread.join(20)
    assert complaints == []


def test_an_interrupt_ends_an_exchange_that_hangs(client: TimedClient, endpoint: Endpoint) -> None:
    def interrupts(handler: Handler) -> None:
        time.sleep(0.05)  # until the main thread waits
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        hangs(handler)

    endpoint.reply = interrupts
    started_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        exchange(client, endpoint.url)
    assert time.monotonic() - started_s < 5
    assert endpoint.cut.wait(5)


def test_time_limits_hold_through_a_proxy(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", endpoint.url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    endpoint.replies.append(DRIPS["headers"])
    client = TimedClient(None, 1, "http://far.invalid/v1")
    assert client.proxy == endpoint.url.removeprefix("http://").removesuffix("/v1")
    assert exchange(client, "http://far.invalid/v1", 0.2).trouble == "timeout: no answer within 0.2 s"
    assert exchange(client, "http://far.invalid/v1").status == 200
    assert endpoint.asked[0].path == "http://far.invalid/v1/completions"


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "ftp://127.0.0.1:1", "http://127.0.0.1:x"])
def test_a_proxy_that_cannot_be_used_is_the_users_mistake(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(SwarmError, match=r"a proxy or certificate that the environment names .*: check HTTP_PROXY"):
        TimedClient(None, 1, "http://far.invalid/v1")
    TimedClient(None, 1, "http://localhost/v1")


LOOPBACK = [
    "localhost",
    "LOCALHOST.",
    "a.localhost",
    "127.0.0.1",
    "127.9.9.9",
    "::1",
    "0.0.0.0",  # noqa: S104
    "::",
    "::ffff:127.0.0.1",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_this_machine_is_never_asked_through_a_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at e48e5b3."""
    monkeypatch.setenv("ALL_PROXY", "http://far.invalid:3128")
    url = f"http://[{host}]:8000/v1" if ":" in host else f"http://{host}:8000/v1"
    assert is_loopback(host)
    assert proxy_for(url) == TimedClient(None, 1, url).proxy == ""


def test_a_proxy_in_the_environment_does_not_keep_from_a_local_endpoint(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed at e48e5b3: the proxy was asked, and nobody answers there."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "")
    url = endpoint.url.replace("127.0.0.1", "localhost")
    assert exchange(TimedClient(None, 1, url), url).status == 200


@pytest.mark.parametrize(
    ("host", "not_for", "is_asked"),
    [
        ("far.invalid", "", True),
        ("far.invalid", "other.invalid", True),
        ("far.invalid", "*", False),
        ("far.invalid", ".invalid", False),
        ("far.invalid:8000", "far.invalid:8000", False),
        ("10.1.2.3", "10.0.0.0/8, 192.168.0.0/16", False),
        ("11.1.2.3", "10.0.0.0/8", True),
        ("[fd00::1]", "fd00::/8", False),
        ("localhost.invalid", "", True),
    ],
)
def test_others_are_asked_through_the_proxy_that_the_environment_names(
    host: str, not_for: str, is_asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "someone:secret@proxy.invalid:3128")
    monkeypatch.setenv("no_proxy", not_for)
    assert proxy_for(f"http://{host}/v1") == ("http://someone:secret@proxy.invalid:3128" if is_asked else "")
    assert TimedClient(None, 1, f"http://{host}/v1").proxy == ("proxy.invalid:3128" if is_asked else "")


@pytest.mark.parametrize(
    ("reply", "trouble"),
    [
        (hangs_up, "RemoteProtocolError: Server disconnected without sending a response."),
        (resets, "ConnectionResetError: "),
        (QUIRKS["cut in the body"].reply, "RemoteProtocolError: peer closed connection"),
        (QUIRKS["not HTTP"].reply, "RemoteProtocolError: illegal status line"),
        (writes(b"HTTP/1.1 200 OK\r\n\xff: \x00\r\n\r\n"), "RemoteProtocolError: "),
    ],
)
def test_a_broken_answer_is_named_and_was_asked_for(
    client: TimedClient, endpoint: Endpoint, reply: Reply, trouble: str
) -> None:
    endpoint.reply = reply
    answer = exchange(client, endpoint.url)
    assert (answer.status, answer.was_sent) == (0, True)
    assert answer.trouble.startswith(trouble)


def test_what_is_refused_was_not_sent(client: TimedClient, endpoint: Endpoint) -> None:
    endpoint.stop()
    answer = exchange(client, endpoint.url)
    assert (answer.status, answer.was_sent) == (0, False)
    assert answer.trouble.startswith("ConnectionRefusedError: ")


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "256.256.256.256", "127.0.0.1:x", "[::1", "no.invalid", ""])
def test_to_an_address_that_is_none_nothing_is_sent(client: TimedClient, address: str) -> None:
    answer = exchange(client, f"http://{address}/v1")
    assert (answer.status, answer.was_sent) == (0, False)
    assert answer.trouble


def test_without_tls_on_the_other_side_nothing_is_sent(client: TimedClient, endpoint: Endpoint) -> None:
    answer = exchange(client, endpoint.url.replace("http:", "https:"))
    assert (answer.status, answer.was_sent) == (0, False)
    assert "SSL" in answer.trouble
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = exchange(client, f"https://127.0.0.1:{silent.getsockname()[1]}/v1", 0.2)
    assert answer == Answer(trouble="timeout: no answer within 0.2 s", was_sent=False)


def test_an_endless_body_is_cut(client: TimedClient, endpoint: Endpoint) -> None:
    sent = 0

    def reply(handler: Handler) -> None:
        nonlocal sent
        handler.wfile.write(HEAD + b"\r\n")
        while not endpoint.is_over.is_set():
            handler.wfile.write(b" " * (1 << 16))
            sent += 1 << 16

    endpoint.reply = reply
    assert MAX_BODY_BYTES < len(exchange(client, endpoint.url).body) < 2 * MAX_BODY_BYTES
    assert endpoint.cut.wait(5)
    assert sent < 4 * MAX_BODY_BYTES


def test_a_body_that_is_packed_unasked_is_unpacked_up_to_the_limit(client: TimedClient, endpoint: Endpoint) -> None:
    """Failed at e48e5b3: packed bodies were no JSON."""
    endpoint.replies.append(QUIRKS["packed unasked"].reply)
    bomb = gzip.compress(b" " * (64 << 20))
    endpoint.reply = sends(bomb, headers={"Content-Encoding": "gzip"})
    assert exchange(client, endpoint.url).body.startswith(b"{")
    assert len(exchange(client, endpoint.url).body) == MAX_BODY_BYTES + 1
    assert endpoint.asked[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(client: TimedClient, endpoint: Endpoint, status: int) -> None:
    with Endpoint() as elsewhere:
        endpoint.reply = sends(b"", status, headers={"Location": elsewhere.url + "/completions"})
        assert exchange(client, endpoint.url).status == status
        assert (len(endpoint.asked), elsewhere.asked) == (1, [])


@pytest.mark.parametrize(
    ("after", "after_s"),
    [("45", 45), ("2.5", 2.5), ("0", 0), ("999999999", 999_999_999)]
    + [(text, 0) for text in ("soon", "-5", "nan", "1e9", "Wed, 21 Oct 2015 07:28:00 GMT")],
)
def test_retry_after_is_read_as_seconds(client: TimedClient, endpoint: Endpoint, after: str, after_s: float) -> None:
    endpoint.reply = busy(429, after)
    answer = exchange(client, endpoint.url)
    assert (answer.status, answer.content_type, answer.retry_after_s) == (429, "application/json", after_s)


def test_retry_after_is_read_as_a_date(client: TimedClient, endpoint: Endpoint) -> None:
    """Failed at e48e5b3: dates counted as no wait."""
    endpoint.reply = busy(503, formatdate(time.time() + 100, usegmt=True))
    assert 90 < exchange(client, endpoint.url).retry_after_s < 110


def test_without_a_key_no_authorization_is_sent_even_if_netrc_has_one(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    exchange(TimedClient(None, 1, endpoint.url), endpoint.url)
    exchange(TimedClient("abc", 1, endpoint.url), endpoint.url)
    assert [asked.headers.get("Authorization") for asked in endpoint.asked] == [None, "Bearer abc"]


def test_connections_are_used_again_also_by_other_threads(client: TimedClient, endpoint: Endpoint) -> None:
    exchange(client, endpoint.url)
    thread = threading.Thread(target=exchange, args=(client, endpoint.url))
    thread.start()
    thread.join(20)
    assert len(endpoint.asked) == 2
    assert len({asked.port for asked in endpoint.asked}) == 1


def test_closing_hangs_up_and_is_harmless_twice(client: TimedClient, endpoint: Endpoint) -> None:
    endpoint.reply = says("hello")
    exchange(client, endpoint.url)
    client.close()
    client.close()
    deadline_s = time.monotonic() + 5
    while endpoint.connections and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not endpoint.connections
