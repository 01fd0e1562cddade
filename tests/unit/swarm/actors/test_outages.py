"""Engines and hosts that die too often are an outage: the run stops, and can be resumed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from swarm.actors import vllm_engine
from swarm.actors.pool import RayPool
from swarm.actors.vllm_engine import VllmServer
from swarm.errors import Outage, SwarmError


def bare(kind: type[Any], **attributes: Any) -> Any:
    """Return an object that has died as often as it may, without what starts processes."""
    made = kind.__new__(kind)
    events: list[str] = []
    vars(made).update({"_deaths": made.max_deaths, "_on_event": lambda name, **_: events.append(name), **attributes})
    made.events = events
    return made


def test_a_vllm_engine_that_died_too_often_is_an_outage() -> None:
    """Failed at e48e5b3: it was a mistake in the input."""
    server = bare(VllmServer, _actor=None)
    with pytest.raises(Outage, match="the vLLM engine died 21 times"):
        server._replace("exit code -9")
    assert server.events == ["engine_death"]


def test_a_vllm_engine_that_does_not_start_again_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at e48e5b3: it was a mistake in the input."""
    server = bare(VllmServer, _actor=None, _deaths=0)

    def start(num_gpus: float) -> None:
        raise SwarmError("engine.num_gpus is 1, but this cluster has 0 free")

    server._start = start
    monkeypatch.setattr(vllm_engine.ray, "cluster_resources", dict)
    with pytest.raises(Outage, match="this cluster has 0 free"):
        server._replace("exit code -9")


def test_hosts_that_died_too_often_are_an_outage() -> None:
    """Failed at e48e5b3: they were a mistake in the input."""
    killed: list[bool] = []
    pool = bare(RayPool, _hosts=[SimpleNamespace(kill=lambda: killed.append(True))])
    with pytest.raises(Outage, match="21 hosts died, and a run survives 20; last: exit code -9"):
        pool._replace(0, "exit code -9")
    assert killed == [True]
