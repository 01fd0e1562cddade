"""HTTP that ends in time: exchanges with a total time limit, on one event loop in a daemon thread.

A socket's own time limit starts anew with every byte, so an endpoint that sends one byte per second would never reach
it. Here the whole exchange is cancelled. Nothing is retried here.
"""

import asyncio
import re
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

import httpx2

from swarm.backends.daemon import DaemonThread
from swarm.errors import SwarmError

MAX_BODY_BYTES = 4 << 20

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of an exchange.

    Attributes:
        status: HTTP status; 0 without a whole answer in time.
        body: its first bytes, as sent; more than MAX_BODY_BYTES if there were more.
        content_type: header of that name.
        retry_after_s: seconds that its Retry-After asks for, else 0.
        trouble: for status 0: what happened instead.
        was_sent: whether the endpoint may have received the request.
    """

    status: int = 0
    body: bytes = b""
    content_type: str = ""
    retry_after_s: float = 0.0
    trouble: str = ""
    was_sent: bool = True


class TimedClient:
    """Connections to one endpoint, kept open.

    Args:
        key: sent as a bearer token in the Authorization header; None sends none.
        connections: how many stay open between exchanges.

    Raises:
        SwarmError: a proxy or certificate file that the environment names cannot be used.
    """

    def __init__(self, key: str | None, connections: int) -> None:
        # Nothing is to be unpacked, so there can be no bomb.
        headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})}
        try:
            # Redirects are not followed (httpx2's default): they could carry the key elsewhere.
            self._client = httpx2.AsyncClient(
                headers=headers,
                verify=_certificates(),
                timeout=None,
                limits=httpx2.Limits(max_keepalive_connections=connections),
            )
        except (OSError, ValueError, ImportError, httpx2.InvalidURL) as error:
            raise SwarmError(
                f"cannot use a proxy or certificate that the environment names ({_reason(error)}): "
                "check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
            ) from None
        self._loop = _event_loop()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine on the event loop; cancel it if this thread is interrupted (Ctrl-C)."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    async def exchange(self, limit_s: float, method: str, url: str, body: bytes = b"") -> Answer:
        """Send a request and read its answer.

        Args:
            limit_s: seconds after which it is cancelled; nothing is sent if there are none.
            method: of HTTP.
            url: the whole address.
            body: JSON, if not empty.
        """
        was_sent = False

        async def content() -> AsyncIterator[bytes]:
            nonlocal was_sent
            was_sent = True
            yield body

        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} if body else {}
        received = bytearray()
        try:
            async with (
                asyncio.timeout(limit_s),
                self._client.stream(method, url, content=content() if body else None, headers=headers) as response,
            ):
                async for chunk in response.aiter_raw():
                    received += chunk
                    if len(received) > MAX_BODY_BYTES:
                        break
        except TimeoutError:
            return Answer(trouble=f"timeout: no answer within {limit_s:.3g} s", was_sent=was_sent)
        except Exception as error:  # what a server can get wrong surfaces as many types, of several libraries
            return Answer(trouble=_reason(error), was_sent=was_sent)
        after = re.fullmatch(r"\d{1,9}(\.\d{1,9})?", response.headers.get("Retry-After", ""))
        return Answer(
            response.status_code,
            bytes(received),
            response.headers.get("Content-Type", ""),
            float(after[0]) if after else 0.0,
        )

    def close(self) -> None:
        """Close the connections; idempotent."""
        self.run(self._client.aclose())


@cache
def _certificates() -> ssl.SSLContext:
    """Return the certificates to trust, which take some 50 ms to read."""
    return httpx2.create_ssl_context()


@cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """Return the loop that all clients of this process share, running."""
    loop = asyncio.new_event_loop()
    loop.set_default_executor(_DaemonThreads())
    threading.Thread(target=loop.run_forever, name="http", daemon=True).start()
    return loop


class _DaemonThreads(ThreadPoolExecutor):
    """Name look-ups, each in a thread of its own: one that hangs holds up no other."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        thread = DaemonThread("look-up")
        outcome = thread.submit(partial(fn, *args, **kwargs))
        thread.stop()
        return outcome


def _reason(error: BaseException) -> str:
    """Return what is at the bottom of an error."""
    if isinstance(error, BaseExceptionGroup):
        return _reason(error.exceptions[0])
    if cause := error.__cause__ or error.__context__:
        return _reason(cause)
    return f"{type(error).__name__}: {error}"
