"""The local pool: one host in this process, for tests, debugging and machines without Ray.

Owns the time limit around a host in the same process. Results equal those of any other pool: what an
agent does depends neither on its companions in a batch nor on the number of hosts.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from queue import SimpleQueue
from typing import Any, TypeVar

from swarm.agents.host import Host, HostSpec, SharedModel
from swarm.backends.protocol import TextModel
from swarm.messages import ActReply, ActRequest, DirectReply, DirectRequest

_Reply = TypeVar("_Reply")

_Job = tuple[Callable[[], Any], "Future[Any]"]


class _Worker:
    """One thread that carries out calls in turn.

    A daemon, unlike those of `ThreadPoolExecutor`: Python waits for the latter at exit, so a call that never returns
    would keep the process alive.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="host", daemon=True).start()

    def _serve(self) -> None:
        while job := self._jobs.get():
            call, outcome = job
            try:
                outcome.set_result(call())
            except BaseException as error:  # raised again where the result is read
                outcome.set_exception(error)

    def submit(self, call: Callable[[], _Reply]) -> Future[_Reply]:
        """Queue a call and return its outcome to come."""
        outcome: Future[_Reply] = Future()
        self._jobs.put((call, outcome))
        return outcome

    def stop(self) -> None:
        """End the thread once it has returned from what it does."""
        self._jobs.put(None)


class LocalPool:
    """Runs all calls on one host in a worker thread.

    Args:
        spec, models, remote: passed to the `Host`.
        host: use this host instead; tests pass scripted ones.
    """

    def __init__(
        self,
        spec: HostSpec,
        models: dict[str, SharedModel],
        host: Host | None = None,
        remote: Mapping[str, TextModel] | None = None,
    ) -> None:
        self._spec = spec
        self._remote = remote or {}
        self._host = host or Host(spec, models, self._remote)
        self._worker = _Worker()

    def _within_limit(
        self, count: int, call: Callable[[], list[_Reply]], otherwise: Callable[[str], list[_Reply]]
    ) -> list[_Reply]:
        try:
            # The host's own deadline comes first; this one is for a call that does not return at all.
            return self._worker.submit(call).result(self._spec.limit_s(count) + 1.0)
        except FutureTimeoutError:
            # The hung thread cannot be killed; it is left behind and a new one takes over.
            self._worker.stop()
            self._worker = _Worker()
            return otherwise(f"timeout: no answer within {self._spec.call_timeout_s:g} s")

    def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
        """Run agent calls."""
        return self._within_limit(
            len(requests),
            lambda: self._host.act(requests),
            lambda fault: [ActReply(request.key, "", 0, 0, fault) for request in requests],
        )

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Run coordinator calls."""
        return self._within_limit(
            len(requests),
            lambda: self._host.direct(requests),
            lambda fault: [DirectReply(request.key, fault=fault) for request in requests],
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text."""
        return self._host.count_tokens(texts)

    def count_prompts(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each prompt."""
        return self._host.count_prompts(texts)

    def close(self) -> None:
        """Stop the worker thread, and let go of what answers from elsewhere."""
        self._worker.stop()
        for model in self._remote.values():
            model.close()
