"""The Ray pool: many agents per host actor, one read-only copy of the weights, hosts that may die.

Owns the placement of calls on host actors, their time limit, and recovery: a dead or hung host is killed, its calls
are retried with the same keys on a host that lives, and a replacement is started in the background. Which host runs a
call never shows in the result.
"""

import contextlib
import dataclasses
import os
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, get_args

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError

from swarm.actors.shared_memory import protect
from swarm.actors.start import start_ray
from swarm.agents.host import MEMORY_REMEDY, Host, HostSpec, SharedModel, TokenCounter
from swarm.backends.protocol import TextModel
from swarm.config.engine import TransformersEngine
from swarm.errors import Outage, SwarmError, first_line, last_line
from swarm.messages import ActReply, ActRequest, DirectReply, DirectRequest
from swarm.process.machine import OomWatch, memory_full
from swarm.process.progress import counted

_Fields = tuple[Any, ...]
START_TIMEOUT_S = 120.0
LOAD_TIMEOUT_S = 900.0
PICKLE_PROTOCOL = 5
GRACE_S = 2.0
"""How much longer than its own limit a host's answer is waited for."""


@ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)
class HostActor:
    """A `Host` in its own process. Models come as one object per model, mapped read-only from the object store."""

    def __init__(self, spec: HostSpec, names: list[str], *models: SharedModel) -> None:
        for model in models:
            protect(model.arrays.values())
        self.host = Host(spec, dict(zip(names, models, strict=True)))

    def ping(self) -> int:
        """Return the process id."""
        return os.getpid()

    def call(self, message: bytes) -> bytes:
        """Run the calls of one message: ("act" or "direct", requests).

        Calls of agents, which are many, travel as plain tuples pickled here: objects cost more to pickle than to echo,
        and Ray's own pickler more still.
        """
        method, requests = pickle.loads(message)  # noqa: S301 - written by `_Member.submit`
        if method == "act":
            requests = [ActRequest(*fields) for fields in requests]
        return pickle.dumps([_fields(reply) for reply in getattr(self.host, method)(requests)], PICKLE_PROTOCOL)


class _Member:
    """A host in service, or one that will be: its actor, and whether it is up yet."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self._started: Any = actor.ping.remote()

    @property
    def is_up(self) -> bool:
        """Whether it answered once; one that died while starting counts, so that a call finds out."""
        if self._started is not None and ray.wait([self._started], timeout=0)[0]:
            self._started = None
        return self._started is None

    def wait_until_up(self, timeout_s: float) -> None:
        """Wait for its first answer.

        Raises:
            RayError: it failed, or took too long.
        """
        ray.get(self._started, timeout=timeout_s)
        self._started = None

    def submit(self, method: str, requests: list[Any]) -> Any:
        """Start a call; return the reference to its answer, or the error when the host is known to be dead."""
        try:
            return self.actor.call.remote(pickle.dumps((method, requests), PICKLE_PROTOCOL))
        except RayActorError as error:
            return error

    def kill(self) -> None:
        """End its process, whatever state it is in."""
        with contextlib.suppress(Exception):
            ray.kill(self.actor)


class RayPool(TokenCounter):
    """Host actors with recovery.

    Args:
        spec: what every host is told.
        models: shared models by path; put into the object store once.
        on_event: told about host deaths and replacements: (kind, facts).
        make_remote: starts the models in other processes, by whose they are; called once Ray is up.

    Raises:
        SwarmError: Ray cannot be started, or no host comes up.
    """

    max_deaths = 20
    """Hosts that may die before the run gives up."""

    max_full = 2
    """Hosts that may die of the same calls for want of memory."""

    def __init__(
        self,
        spec: HostSpec,
        models: Mapping[str, SharedModel],
        on_event: Callable[..., None] = lambda kind, **facts: None,
        make_remote: Callable[[], Mapping[str, TextModel]] = dict,
    ) -> None:
        address = spec.config.runtime.address
        start_ray(address, "runtime.address", ", or set runtime.pool: local")
        super().__init__(spec)
        self._on_event = on_event
        self._deaths = self._full = 0
        self._watch = OomWatch()
        self._standby: list[_Member] = []
        self._hosts: list[_Member] = []
        self._remote = make_remote()
        try:
            # What only waits for other processes needs none of its own.
            self._near = Host(spec, {}, self._remote, computes=False) if self._remote else None
            self._start_hosts(models)
        except BaseException:
            self.close()
            raise
        self._far = _has_other_machines(address)

    def _start_hosts(self, models: Mapping[str, SharedModel]) -> None:
        config, runtime = self.spec.config, self.spec.config.runtime
        count, there = config.num_hosts, ray.cluster_resources()
        engines = {getattr(model, "server", model) for model in self._remote.values()}
        held = sum(getattr(engine, "num_gpus", 0.0) for engine in engines)
        gpus = there.get("GPU", 0.0) - held if runtime.device != "cpu" else 0.0
        changes: dict[str, Any] = {}
        if gpus <= 0 and held and runtime.device == "auto":  # what engines hold is not for hosts
            changes["device"] = "cpu"
        if runtime.threads_per_host is None:  # as many as fit: threads that wait for each other's core stall decoding
            changes["threads_per_host"] = max(1, int(there.get("CPU", 1.0)) // count)
        runtime = runtime.model_copy(update=changes)
        spec = dataclasses.replace(self.spec, config=config.model_copy(update={"runtime": runtime}))
        options: dict[str, Any] = {"scheduling_strategy": "SPREAD"}
        if gpus > 0:
            options["num_gpus"] = min(1.0, gpus / (count + runtime.standby))
        actor = HostActor.options(**options)  # type: ignore[attr-defined]
        weights = [ray.put(model) for model in models.values()]
        self._start: Callable[[], _Member] = lambda: _Member(actor.remote(spec, list(models), *weights))
        # Pretrained models are read from disk by each host.
        slow = any(isinstance(each.engine, TransformersEngine) for each in (self.spec.agents, self.spec.coordinator))
        self._start_limit_s = LOAD_TIMEOUT_S if slow else START_TIMEOUT_S
        self._standby_wanted = runtime.standby if self.spec.needs_hosts else 0
        self._hosts = [self._start() for _ in range(count if self.spec.needs_hosts else 0)]
        try:
            limit_s = self._start_limit_s
            for host in counted("starting agent hosts", self._hosts, count, "hosts", limit_s=limit_s):
                host.wait_until_up(limit_s)
        except RayError as error:
            if self._watch.is_full(error):
                raise memory_full("no agent host came up: the first", MEMORY_REMEDY) from error
            raise SwarmError(f"no agent host came up: {self._start_fault(error)}") from error

    def _start_fault(self, error: RayError) -> str:
        """Return why a host did not start; Ray's last line of one whose process was killed says nothing."""
        if isinstance(error, GetTimeoutError):
            return f"none answered within {self._start_limit_s:g} s; lower runtime.hosts or runtime.standby"
        line = last_line(error)
        return "its process was killed from outside, or crashed" if "never ran" in line else line

    def _replace(self, index: int, detail: str, why: str | None = None) -> None:
        """Put a spare host, or a fresh one, in the place of a dead host.

        Raises:
            Outage: too many hosts have died.
        """
        self._on_event("host_death", host=index, detail=detail)
        self._deaths += 1
        self._hosts[index].kill()
        if self._deaths > self.max_deaths:
            raise Outage(f"{self._deaths} hosts died, and a run survives {self.max_deaths}; last: {why or detail}")
        self._hosts[index] = self._standby.pop(0) if self._standby else self._start()

    def _serving(self) -> list[int]:
        """Return the hosts that are up; when none is, wait for the first."""
        if serving := [i for i, host in enumerate(self._hosts) if host.is_up]:
            return serving
        with contextlib.suppress(RayError):  # if it died, the call finds out
            self._hosts[0].wait_until_up(self._start_limit_s)
        return [0]

    def _run(self, method: str, requests: list[Any]) -> list[_Fields | str]:
        """Spread requests over the hosts that are up, in order, and retry what died until all are answered.

        Returns:
            The fields of each reply, or the fault of a call that never returned.
        """
        replies: dict[int, _Fields | str] = {}
        todo = list(range(len(requests)))
        died_at: float | None = None
        while todo:
            serving = self._serving()
            size = -(-len(todo) // len(serving))
            parts = [todo[start : start + size] for start in range(0, len(todo), size)]
            calls = [
                (host, part, self._hosts[host].submit(method, [requests[i] for i in part]))
                for host, part in zip(serving, parts, strict=False)
            ]
            todo = []
            for host, part, reference in calls:
                try:
                    if isinstance(reference, RayError):
                        raise reference
                    # Decoding has its own deadline inside the host; this one is for a call that never returns.
                    answers = ray.get(reference, timeout=self.spec.limit_s(len(part)) + GRACE_S)
                    replies.update(zip(part, pickle.loads(answers), strict=True))  # noqa: S301 - by `HostActor.call`
                except SwarmError as error:  # no further call can succeed; Ray adds the traceback
                    line = last_line(error)
                    kind = Outage if isinstance(error, Outage) else SwarmError
                    raise kind(line.partition(f"{kind.__name__}: ")[2] or line) from None
                except GetTimeoutError:
                    self._replace(host, "hung; killed", "a call that never returned")
                    fault = f"timeout: no answer within {self.spec.config.faults.call_timeout_s:g} s"
                    replies.update(dict.fromkeys(part, fault))
                except (RayActorError, OutOfMemoryError) as error:
                    died_at = died_at or time.monotonic()
                    full = self._watch.is_full(error)
                    self._full += full
                    self._replace(host, "out of memory" if full else first_line(error)[:200])
                    if self._full > self.max_full:
                        raise memory_full(f"{self._full} hosts in turn", MEMORY_REMEDY) from error
                    todo = sorted([*todo, *part])
        self._full = 0
        if died_at is not None:
            self._on_event("host_ready", recovered_s=round(time.monotonic() - died_at, 3))
        # Spare hosts are started once the run is under way: they must not slow down its start.
        self._standby += [self._start() for _ in range(self._standby_wanted - len(self._standby))]
        return [replies[i] for i in range(len(requests))]

    def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
        """Run agent calls on all hosts, or ask the model that answers from elsewhere."""
        if self._near is not None and self.spec.config.agents.engine.is_remote:
            return self._near.act(requests)
        if self._far:
            requests = [dataclasses.replace(r, memories=tuple(h.packed() for h in r.memories)) for r in requests]
        return _replies(ActReply, requests, self._run("act", [_fields(request) for request in requests]))

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Run coordinator calls on all hosts, or ask the model that answers from elsewhere."""
        engine = self.spec.coordinator.engine
        if self._near is not None and ((engine is not None and engine.is_remote) or not self._hosts):
            return self._near.direct(requests)
        if self._far:
            requests = [dataclasses.replace(request, lookup=_packed(request.lookup)) for request in requests]
        return _replies(DirectReply, requests, self._run("direct", list(requests)))

    def host_pids(self) -> list[int]:
        """Return the process ids of the hosts in service; tests kill them."""
        return list(ray.get([host.actor.ping.remote() for host in self._hosts]))

    def close(self) -> None:
        """Kill the hosts; Ray itself stays up for further runs of this process."""
        for host in [*self._hosts, *self._standby]:
            host.kill()
        self._hosts, self._standby = [], []
        for model in self._remote.values():
            model.close()


def _packed(lookup: Any) -> Any:
    """Return what answers a coordinator with all that it needs in it, as far as it can."""
    return lookup.packed() if hasattr(lookup, "packed") else lookup


def _replies(kind: Any, requests: Sequence[Any], answers: Sequence[_Fields | str]) -> list[Any]:
    """Return replies of a kind from their fields, or from the fault of a call that never returned."""
    pairs = zip(requests, answers, strict=True)
    return [request.failed(answer) if isinstance(answer, str) else kind(*answer) for request, answer in pairs]


def _has_other_machines(address: str | None) -> bool:
    """Return whether hosts may be where the files of this machine cannot be read."""
    return (address or "").startswith("ray://") or any(
        node["Alive"] and node["NodeID"] != ray.get_runtime_context().get_node_id() for node in ray.nodes()
    )


_Message = ActRequest | ActReply | DirectReply
_GETTERS = {kind: attrgetter(*(f.name for f in dataclasses.fields(kind))) for kind in get_args(_Message)}


def _fields(message: _Message) -> _Fields:
    """Return all fields, in the order in which its class takes them."""
    fields: _Fields = _GETTERS[type(message)](message)
    return fields
