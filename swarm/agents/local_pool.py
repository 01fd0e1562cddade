"""The local pool: one host in this process, for tests, debugging and machines without Ray.

Owns the time limit around a host in the same process. Results equal those of any other pool: what an
agent does depends neither on its companions in a batch nor on the number of hosts.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any

from swarm.agents.host import Host, HostSpec, SharedModel
from swarm.backends.protocol import TextModel
from swarm.messages import ActReply, ActRequest, DirectReply, DirectRequest

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

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Queue a call and return its outcome to come."""
        outcome: Future[Any] = Future()
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
        models: Mapping[str, SharedModel],
        host: Host | None = None,
        remote: Mapping[str, TextModel] = MappingProxyType({}),
    ) -> None:
        self._spec, self._remote = spec, remote
        self._host = host or Host(spec, models, remote)
        self.count_tokens, self.count_prompts = self._host.count_tokens, self._host.count_prompts
        self._worker = _Worker()

    def _within_limit(self, call: Callable[[Sequence[Any]], list[Any]], requests: Sequence[Any]) -> list[Any]:
        try:
            # The host's own deadline comes first; this one is for a call that does not return at all.
            limit_s = self._spec.limit_s(len(requests)) + 1.0
            return list(self._worker.submit(lambda: call(requests)).result(limit_s))
        except TimeoutError:
            # The hung thread cannot be killed; it is left behind, and a new one does its work from now on.
            self._worker.stop()
            self._worker = _Worker()
            fault = f"timeout: no answer within {self._spec.config.faults.call_timeout_s:g} s"
            return [request.failed(fault) for request in requests]

    def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
        """Run agent calls."""
        return self._within_limit(self._host.act, requests)

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Run coordinator calls."""
        return self._within_limit(self._host.direct, requests)

    def close(self) -> None:
        """Stop the worker thread, and let go of what answers from elsewhere."""
        self._worker.stop()
        for model in self._remote.values():
            model.close()
