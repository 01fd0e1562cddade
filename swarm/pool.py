"""The local pool: one host in this process, for tests, debugging and machines without Ray.

Owns the time limit around a host in the same process. Results equal those of any other pool (design decision 5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

from swarm.host import Host, HostSpec, SharedModel
from swarm.messages import ActReply, ActRequest, DirectReply, DirectRequest

__all__ = ["LocalPool"]

_Reply = TypeVar("_Reply")


class LocalPool:
    """Runs all calls on one host in a worker thread.

    Args:
        spec, models: passed to the `Host`.
        host: use this host instead; tests pass scripted ones.
    """

    def __init__(self, spec: HostSpec, models: dict[str, SharedModel], host: Host | None = None) -> None:
        self._spec = spec
        self._host = host or Host(spec, models)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="host")

    def _within_limit(self, call: Callable[[], list[_Reply]], otherwise: Callable[[str], list[_Reply]]) -> list[_Reply]:
        try:
            # The host's own deadline comes first; this one is for a call that does not return at all.
            return self._thread.submit(call).result(self._spec.call_timeout_s + 1.0)
        except FutureTimeoutError:
            # The hung thread cannot be killed; it is left behind and a new one takes over.
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="host")
            return otherwise(f"timeout: no answer within {self._spec.call_timeout_s:g} s")

    def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
        """Run agent calls."""
        return self._within_limit(
            lambda: self._host.act(requests),
            lambda fault: [ActReply(request.key, "", 0, 0, fault) for request in requests],
        )

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Run coordinator calls."""
        return self._within_limit(
            lambda: self._host.direct(requests),
            lambda fault: [DirectReply(request.key, fault=fault) for request in requests],
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text."""
        return self._host.count_tokens(texts)

    def close(self) -> None:
        """Stop the worker thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
