"""A registry that agents on Ray hosts share is that of agents in one process, on this machine and on others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from fakes.memory_policy import write_policy

from swarm.actors import pool as ray_pool
from swarm.config.experiment import ExperimentConfig
from swarm.record.journal import read_records
from swarm.run.runner import start_run
from swarm.view.entities import registry_of
from worlds.archive.world import ArchiveWorld, read_by_rules

pytestmark = pytest.mark.ray

Experiment = Callable[..., tuple[ExperimentConfig, Path]]


@pytest.mark.parametrize("agents", [6, pytest.param(64, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_the_registry_is_the_same_on_any_number_of_hosts_and_machines(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agents: int
) -> None:
    """The model has learned nothing, so the world takes whatever it says of a page for what the page says."""
    real_act = ArchiveWorld.act

    def act(self: ArchiveWorld, agent: str, action: str) -> Any:
        return real_act(self, agent, action if self.asks(agent) is not None else read_by_rules(self.observe(agent)))

    monkeypatch.setattr(ArchiveWorld, "act", act)
    policy = write_policy(tmp_path / "policy", with_ltm=False)
    options = {"persons": 2 * agents, "archives": agents, "questions": 4, "hops": 2, "reading": 1.0}
    sections: dict[str, Any] = {
        "episodes": 2,
        "concurrency": 2,
        "world": {"id": "archive-v0", "options": options},
        "agents": {
            "count": agents,
            "engine": {"kind": "ulm", "model": str(policy)},
            "memory": ["stm", "registry"],
            "max_new_tokens": 8,
        },
        "coordinator": {"kind": "rules"},
        "topology": {"kind": "star"},
        "budget": {"tokens": None, "ticks": 8},
    }

    def journal(name: str, **runtime: Any) -> bytes:
        made = experiment(**sections, runtime=runtime)
        return (start_run(*made, tmp_path / name).run_dir / "journal.jsonl").read_bytes()

    local = journal("local", pool="local")
    ray_pool.start_ray()
    try:
        for hosts in (1, 2, 4):
            assert journal(f"on {hosts}", pool="ray", hosts=hosts, standby=0) == local
        sent: set[type] = set()
        real = ray_pool.RayPool._run

        def run(self: Any, method: str, requests: Any) -> Any:
            if method == "direct":
                sent.update(type(request.lookup.handle.content) for request in requests)
            return real(self, method, requests)

        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "NodeID": "another"}])
        monkeypatch.setattr(ray_pool.RayPool, "_run", run)
        assert journal("far", pool="ray", hosts=2, standby=0) == local
        assert sent == {bytes}
    finally:
        ray.shutdown()
    ticks = [r for r in read_records(tmp_path / "local" / "journal.jsonl") if r["kind"] == "tick"]
    noted = [r["memory"].get("registry", {}).get("claims", []) for r in ticks]
    assert sum(map(len, noted)) > 20
    assert max(len({agent for agent, *_ in claims}) for claims in noted) > agents / 3, "many note at once"
    assert registry_of(tmp_path / "on 4").digest == registry_of(tmp_path / "local").digest
