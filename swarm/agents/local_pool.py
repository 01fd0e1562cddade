"""The local pool: one host in this process, for tests, debugging and machines without Ray.

Owns the time limit around a host in the same process. Results equal those of any other pool: what an
agent does depends neither on its companions in a batch nor on the number of hosts.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from swarm.agents.host import Host, HostSpec, ResolvedModel, SharedModel
from swarm.backends.daemon import DaemonThread
from swarm.backends.protocol import TextModel
from swarm.config.engine import OpenAIEngine
from swarm.messages import ActReply, ActRequest, DirectReply, DirectRequest

_CLOSE_S = 2.0
"""How long the end waits for a call: a process that exits in the middle of one is aborted by torch's own threads."""


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
        self._worker = DaemonThread("host")

    def _within_limit(
        self, model: ResolvedModel, call: Callable[[Sequence[Any]], list[Any]], requests: Sequence[Any]
    ) -> list[Any]:
        try:
            # The host's own deadline comes first; this one is for a call that does not return at all. Endpoints are
            # waited for as long as `faults.patience_s` says, and what comes of it is no fault of a call.
            waits = isinstance(model.engine, OpenAIEngine)
            limit_s = None if waits else self._spec.limit_s(len(requests)) + 1.0
            return list(self._worker.submit(lambda: call(requests)).result(limit_s))
        except TimeoutError:
            # The hung thread cannot be killed; it is left behind, and a new one does its work from now on.
            self._worker.stop()
            self._worker = DaemonThread("host")
            fault = f"timeout: no answer within {self._spec.config.faults.call_timeout_s:g} s"
            return [request.failed(fault) for request in requests]

    def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
        """Run agent calls."""
        return self._within_limit(self._spec.agents, self._host.act, requests)

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Run coordinator calls."""
        return self._within_limit(self._spec.coordinator, self._host.direct, requests)

    def close(self) -> None:
        """Stop the worker thread, and let go of what answers from elsewhere."""
        for model in self._remote.values():
            model.close()
        self._worker.stop(_CLOSE_S)
