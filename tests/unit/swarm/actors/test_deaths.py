"""Processes that die for want of memory are said to; hosts and engines are stand-ins."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.hosts import host_spec
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, WorkerCrashedError

from swarm.actors import pool as ray_pool
from swarm.actors import vllm_engine
from swarm.actors.pool import RayPool
from swarm.actors.ray_tasks import run_tasks
from swarm.actors.vllm_engine import VllmServer
from swarm.backends.protocol import TextRequest
from swarm.config.experiment import AgentsConfig
from swarm.errors import SwarmError
from swarm.messages import ActRequest
from swarm.process import machine

NEVER_RAN = RayActorError(
    error_msg="The actor died unexpectedly before finishing this task.\n\tclass_name: HostActor\n"
    "The actor never ran - it was cancelled before it started running."
)


class Dying:
    """A host that dies of every call."""

    is_up = True

    def __init__(self, error: Exception, kills: list[int] | None = None) -> None:
        self.error, self.kills = error, kills

    def submit(self, method: str, requests: list[Any]) -> Exception:
        if self.kills:
            self.kills[0] += 1
        return self.error

    def wait_until_up(self, timeout_s: float) -> None:
        if self.kills:
            self.kills[0] += 1
        raise self.error

    def kill(self) -> None:
        pass


def pool(make: Any) -> tuple[RayPool, list[str]]:
    """Return a pool of one host without Ray, and what it tells of deaths."""
    told: list[str] = []
    found: Any = RayPool.__new__(RayPool)
    vars(found).update(
        spec=host_spec(AgentsConfig(engine={"kind": "echo"}, count=1), hosts=1),
        _on_event=lambda kind, **facts: told.append(facts.get("detail", kind)),
        _deaths=0,
        _full=0,
        _watch=machine.OomWatch(),
        _standby=[],
        _standby_wanted=0,
        _start=make,
        _start_limit_s=1.0,
        _hosts=[make()],
        _remote={},
        _near=None,
        _far=False,
    )
    return found, told


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many processes the kernel has killed for memory."""
    count = [7]
    monkeypatch.setattr(machine, "oom_kills", lambda: count[0])
    return count


REQUESTS = [ActRequest((0, 0, "a0"), "hello", 8)]
FULL = (
    "^3 hosts in turn ran out of memory: lower runtime.agents_per_host, runtime.hosts or concurrency, or take a smaller"
)


def test_hosts_that_ray_kills_for_memory_end_the_run_with_the_remedy(kills: list[int]) -> None:
    """Failed at a7f87d3: OutOfMemoryError is no RayActorError; "this is a bug", exit 70."""
    found, told = pool(lambda: Dying(OutOfMemoryError("Task was killed due to the node running low on memory.")))
    with pytest.raises(SwarmError, match=FULL):
        found.act(REQUESTS)
    assert told == ["out of memory"] * 3


def test_hosts_that_the_kernel_kills_for_memory_do_too(kills: list[int]) -> None:
    """Failed at a7f87d3: 21 hosts died, and nobody said of what."""
    found, _ = pool(lambda: Dying(RayActorError(error_msg="The actor died unexpectedly"), kills))
    with pytest.raises(SwarmError, match=FULL):
        found.act(REQUESTS)


def test_hosts_that_die_of_something_else_are_replaced_as_before(kills: list[int]) -> None:
    found, told = pool(lambda: Dying(RayActorError(error_msg="The actor died unexpectedly\nmore")))
    with pytest.raises(SwarmError, match=r"^21 hosts died, and a run survives 20; last: The actor died unexpectedly$"):
        found.act(REQUESTS)
    assert set(told) == {"The actor died unexpectedly"}


@pytest.mark.parametrize("is_full", [True, False])
def test_a_host_that_is_killed_while_it_starts_is_not_said_to_have_never_run(
    kills: list[int], monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    """Failed at a7f87d3: "no agent host came up: The actor never ran - it was cancelled before it started running."""
    fake = SimpleNamespace(cluster_resources=dict, put=lambda model: model)
    monkeypatch.setattr(ray_pool, "ray", fake)
    monkeypatch.setattr(ray_pool, "HostActor", SimpleNamespace(options=lambda **_: None))
    monkeypatch.setattr(ray_pool, "_Member", lambda actor: Dying(NEVER_RAN, kills if is_full else None))
    monkeypatch.setattr(ray_pool.RayPool, "_start", None, raising=False)
    found, _ = pool(lambda: Dying(NEVER_RAN))
    monkeypatch.setattr(ray_pool, "HostActor", SimpleNamespace(options=lambda **_: SimpleNamespace(remote=print)))
    expected = "no agent host came up: the first ran out of memory: lower" if is_full else "was killed from outside, or"
    with pytest.raises(SwarmError, match=expected):
        found._start_hosts({})


def test_an_engine_that_dies_for_memory_says_so(kills: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at a7f87d3: OutOfMemoryError is no RayActorError."""

    def get(reference: Any, timeout: float) -> Any:
        raise OutOfMemoryError("Task was killed due to the node running low on memory.")

    monkeypatch.setattr(vllm_engine, "ray", SimpleNamespace(get=get, cluster_resources=dict, kill=lambda actor: None))
    server: Any = VllmServer.__new__(VllmServer)
    actor = SimpleNamespace(generate=SimpleNamespace(remote=lambda *_: None))
    told: list[str] = []
    vars(server).update(
        _actor=actor,
        _deaths=0,
        _full=0,
        _watch=machine.OomWatch(),
        _on_event=lambda kind, **facts: told.append(kind),
        _start=lambda gpus: setattr(server, "_actor", actor),
        pid=1,
    )
    calls = [([1], TextRequest("a", None, 0, 8, 0.0)), ([2], TextRequest("b", None, 0, 8, 0.0))]
    with pytest.raises(
        SwarmError, match=r"the vLLM engine, 3 times in turn, ran out of memory: lower engine.max_length"
    ):
        server.answers(calls, None, None)
    assert told.count("engine_death") == 3


def test_tasks_that_die_for_memory_say_so(kills: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at a7f87d3: "failed: The worker died unexpectedly ..." and where Ray keeps its logs."""

    def get(reference: Any) -> Any:
        kills[0] += 1
        raise WorkerCrashedError

    fake = SimpleNamespace(
        is_initialized=lambda: True,
        cluster_resources=dict,
        remote=lambda **_: lambda work: SimpleNamespace(remote=lambda *_: "task"),
        wait=lambda waiting, num_returns: (waiting, []),
        get=get,
        exceptions=SimpleNamespace(RayError=RayError),
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    with pytest.raises(SwarmError, match=r"^measuring a ran out of memory: close other programs, or take a"):
        run_tasks(print, [("a",)], lambda index, found: None, titles=["measuring a"], device="cpu")
