"""HTTP that ends in time: exchanges with a total time limit, on one event loop in a daemon thread.

A socket's own time limit starts anew with every byte, so an endpoint that sends one byte per second would never reach
it. Here the whole exchange is cancelled. Nothing is retried here.
"""

import asyncio
import contextlib
import ipaddress
import re
import ssl
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache, partial
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

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
        body: its first bytes, unpacked; more than MAX_BODY_BYTES if there were more.
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
        url: of the endpoint; decides whether a proxy that the environment names is asked.

    Attributes:
        proxy: the proxy that is asked, without the name and password in it; "" where none is.

    Raises:
        SwarmError: a proxy or certificate file that the environment names cannot be used.
    """

    def __init__(self, key: str | None, connections: int, url: str) -> None:
        proxy = proxy_for(url)
        self.proxy = proxy.rpartition("@")[2].rpartition("://")[2]
        headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})}
        try:
            # Redirects are not followed (httpx2's default): they could carry the key elsewhere.
            self._client = httpx2.AsyncClient(
                headers=headers,
                verify=_certificates(),
                timeout=None,
                trust_env=False,  # the proxy is chosen here
                proxy=proxy or None,
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
        if response.headers.get("Content-Encoding", "identity") != "identity":  # unasked
            with contextlib.suppress(zlib.error):
                received = bytearray(zlib.decompressobj(47).decompress(received, MAX_BODY_BYTES + 1))
        return Answer(
            response.status_code,
            bytes(received),
            response.headers.get("Content-Type", ""),
            _retry_after_s(response.headers),
        )

    def close(self) -> None:
        """Close the connections; idempotent."""
        self.run(self._client.aclose())


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, whatever the environment says of proxies."""
    host = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def proxy_for(url: str) -> str:
    """Return the proxy that the environment names for an address, "" where it is asked directly."""
    try:
        parts, proxies = urlsplit(url), getproxies()
        host = parts.hostname or ""
    except ValueError:  # no address; the exchange says so
        return ""
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if not proxy or is_loopback(host) or proxy_bypass(parts.netloc) or _in_network(host, proxies.get("no", "")):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _in_network(host: str, networks: str) -> bool:
    """Return whether NO_PROXY names a network that an address is in, which Python's own reading leaves out."""
    for network in networks.replace("[", "").replace("]", "").split(","):
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(network.strip(), strict=False):
                return True
    return False


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds that an answer asks to wait, 0 where it does not."""
    text = headers.get("Retry-After", "")
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


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
