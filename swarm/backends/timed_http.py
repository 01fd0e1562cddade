"""HTTP that ends in time: pooled connections, exchanges in many threads, and a watch that cuts those that are late.

A socket's own time-out starts anew with every byte, so an endpoint that sends one byte per second would never run into
it. Here the caller's thread looks at the clock and shuts down the sockets of late exchanges. Threads are daemons:
Python waits at exit for others, also for one that hangs in a name look-up, which nothing can cut. It refuses to know
what is asked, and tries nothing twice.
"""

from __future__ import annotations

import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from requests import RequestException, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import Timeout
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError

__all__ = ["Answer", "TimedSession", "Watch"]

MAX_BODY_BYTES = 4 << 20
CUT_GRACE_S = 1.0
"""How long jobs have to end after the deadline, when all that they exchange has been cut."""

_Result = TypeVar("_Result")
_here = threading.local()


@dataclass(frozen=True, slots=True)
class Answer:
    """What an exchange brought.

    Attributes:
        status: HTTP status; 0 when there was no whole answer in time.
        body: its bytes, of which too many are cut (`is_cut`).
        content_type: header of that name.
        retry_after_s: what its Retry-After asks for, 0 without one in seconds.
        trouble: for status 0: what happened instead.
        is_unreachable: for status 0: there was not even a connection.
    """

    status: int = 0
    body: bytes = b""
    content_type: str = ""
    retry_after_s: float = 0.0
    trouble: str = "timeout: no answer in time"
    is_unreachable: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether the body was longer than MAX_BODY_BYTES."""
        return len(self.body) > MAX_BODY_BYTES


class TimedSession:
    """Connections to one endpoint, kept open and shared by threads.

    Args:
        key: sent as a bearer token in the Authorization header, and kept from any other place; None sends none.
        connections: how many are kept.
    """

    def __init__(self, key: str | None, connections: int) -> None:
        self._key = key
        self._session = Session()
        self._session.auth = self._authorise  # with one set, requests does not look for keys in .netrc either
        self._session.headers["Accept-Encoding"] = "identity"  # nothing to unpack, so no bomb
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(pool_maxsize=connections))

    def _authorise(self, request: Any) -> Any:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def exchange(self, watch: Watch, limit_s: float, method: str, url: str, payload: object = None) -> Answer:
        """Send a request and read its answer. Redirects are not followed; they could carry the key elsewhere.

        Args:
            watch: cuts it when it is late; its thread must be one that `Watch.run` started.
            limit_s: seconds that it may take, no longer than until the watch's deadline.
            method: of HTTP.
            url: the whole address.
            payload: sent as JSON.

        Raises:
            TypeError: the payload is no JSON.
        """
        limit_s = min(limit_s, watch.left_s())
        if limit_s <= 0:
            return Answer(is_unreachable=True)
        with watch.limit(limit_s) as attempt:
            try:
                with self._session.request(
                    method, url, json=payload, timeout=limit_s, stream=True, allow_redirects=False
                ) as response:
                    body = _read_body(response.raw)
                    after = re.fullmatch(r"\d{1,9}(\.\d{1,9})?", response.headers.get("Retry-After", ""))
                    kind = response.headers.get("Content-Type", "")
                    answer = Answer(response.status_code, body, kind, float(after[0]) if after else 0.0)
            except (RequestException, HTTPError, OSError) as error:
                attempt.is_cut |= isinstance(error, (Timeout, ReadTimeoutError))  # the socket's clock was faster
                answer = Answer(trouble=_reason(error), is_unreachable=attempt.sock is None)
        if attempt.is_cut:
            return Answer(trouble=f"timeout: no answer within {limit_s:.3g} s", is_unreachable=attempt.sock is None)
        return answer

    def close(self) -> None:
        """Close the connections that are idle; idempotent."""
        self._session.close()


class Watch:
    """Runs jobs in threads, and cuts exchanges at their limit and everything at the deadline.

    Args:
        deadline_s: `time.monotonic()` value, None for no end.
    """

    def __init__(self, deadline_s: float | None) -> None:
        self._deadline_s = math.inf if deadline_s is None else deadline_s
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._attempts: set[_Attempt] = set()
        self._error: BaseException | None = None
        self._busy = 0

    def left_s(self) -> float:
        """Return the seconds until the deadline."""
        return self._deadline_s - time.monotonic()

    def sleep(self, delay_s: float) -> bool:
        """Wait; return False, and do not wait, where nothing could be done afterwards."""
        return delay_s < self.left_s() and not self._stopped.wait(delay_s)

    def run(self, jobs: Sequence[Callable[[], _Result]], num_threads: int) -> list[_Result | None]:
        """Return what each job returned, in order; None for those that had not by the deadline.

        Raises:
            BaseException: whatever a job raised; the others are cut.
        """
        results: dict[int, _Result] = {}
        to_do = iter(enumerate(jobs))

        def work() -> None:
            while not self._stopped.is_set():
                with self._changed:
                    index, job = next(to_do, (-1, None)) if self._error is None else (-1, None)
                    if job is None:
                        return
                    self._busy += 1
                error = None
                try:
                    result = job()
                except BaseException as caught:  # raised again by the thread that waits
                    error = caught
                with self._changed:
                    if error is None:
                        results[index] = result
                    self._error = self._error or error
                    self._busy -= 1
                    self._changed.notify_all()

        if self.left_s() <= 0:
            return [None] * len(jobs)
        for _ in range(min(num_threads, len(jobs))):
            threading.Thread(target=work, name="http", daemon=True).start()
        try:
            with self._changed:
                while len(results) < len(jobs) and self._error is None and self.left_s() > 0:
                    self._changed.wait(min(self.left_s(), self._cut_late()))
        finally:
            with self._changed:
                self._stopped.set()
                for attempt in self._attempts:
                    attempt.cut()
                if self._error is None:  # jobs that were cut say what they had asked for; one may hang all the same
                    self._changed.wait_for(lambda: not self._busy, CUT_GRACE_S)
        if self._error is not None:
            raise self._error
        return [results.get(i) for i in range(len(jobs))]

    def _cut_late(self) -> float:
        """Cut exchanges that are over their limit; return the seconds until the next one will be."""
        now_s, next_s = time.monotonic(), threading.TIMEOUT_MAX
        for attempt in self._attempts:
            if attempt.expires_s <= now_s:
                attempt.cut()
            else:
                next_s = min(next_s, attempt.expires_s - now_s)
        return next_s

    @contextmanager
    def limit(self, limit_s: float) -> Iterator[_Attempt]:
        """Have what this thread exchanges meanwhile cut after so many seconds."""
        attempt = _Attempt(time.monotonic() + limit_s)
        with self._changed:
            attempt.is_cut = self._stopped.is_set()
            self._attempts.add(attempt)
            self._changed.notify_all()
        _here.attempt = attempt
        try:
            yield attempt
        finally:
            with self._changed:
                self._attempts.discard(attempt)


@dataclass(eq=False, slots=True)
class _Attempt:
    """One exchange under way, and the socket that it uses as soon as it has one."""

    expires_s: float
    connection: HTTPConnection | None = None
    sock: socket.socket | None = None
    is_cut: bool = False

    def claim(self, connection: HTTPConnection) -> None:
        # http.client forgets the socket of an answer that ends the connection, so it is kept here.
        self.connection, self.sock = connection, connection.sock
        if self.is_cut:
            connection.close()
            raise TimeoutError

    def cut(self) -> None:
        """End the exchange now: whoever reads from its socket gets an error or an end of file."""
        self.is_cut = True
        sock = self.sock or getattr(self.connection, "sock", None)  # the latter during a TLS handshake
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class _Connection(HTTPConnection):
    """Tells the attempt of its thread which socket it uses."""

    def connect(self) -> None:
        _here.attempt.claim(self)
        super().connect()
        _here.attempt.claim(self)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _here.attempt.claim(self)
        super().request(*args, **kwargs)


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):  # type: ignore[misc]  # requests is untyped here
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # those have connections of their own, which end at the deadline only
            manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        return manager


def _read_body(raw: Any) -> bytes:
    body = bytearray()
    while len(body) <= MAX_BODY_BYTES and (chunk := raw.read(1 << 16, decode_content=False)):
        body += chunk
    return bytes(body)


def _reason(error: Exception) -> str:
    """Return what is at the bottom of an error, without addresses in memory."""
    cause: Any = error.args[0] if error.args else error
    cause = getattr(cause, "reason", None) or cause
    return re.sub(r" object at 0x[0-9a-f]+", "", f"{type(cause).__name__}: {cause}")
