"""Ray pool and local pool write the same journal, whatever dies on the way. Processes are really killed."""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from fakes.memory_policy import write_policy
from ray.exceptions import RayActorError

from swarm.actors import pool as ray_pool
from swarm.actors.shared_memory import protect
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.messages import ActRequest
from swarm.record.telemetry import read_telemetry
from swarm.run.runner import start_run
from ulm.checkpoint import build_model, load_weights_numpy, read_checkpoint_config

pytestmark = pytest.mark.ray

Experiment = Callable[..., tuple[ExperimentConfig, Path]]
SECTIONS: dict[str, Any] = {"episodes": 3, "concurrency": 2, "agents": {"count": 6}, "budget": {"tokens": 600}}
NUM_KILLS = 20
KILLS_PER_RUN = 4  # the hosts that a run starts with and their replacements should both die


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Iterator[None]:
    ray_pool.start_ray()
    yield
    ray.shutdown()


@pytest.fixture
def reference(experiment: Experiment, tmp_path: Path) -> bytes:
    """The journal of the undisturbed run on the local pool."""
    config, path = experiment(**SECTIONS)
    return start_run(config, path, tmp_path / "reference").run_dir.joinpath("journal.jsonl").read_bytes()


def ray_run(experiment: Experiment, out: Path, **runtime: Any) -> Path:
    config, path = experiment(**SECTIONS, runtime={"pool": "ray", **runtime})
    return start_run(config, path, out).run_dir


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_journal_is_the_same_for_any_number_of_hosts(
    experiment: Experiment, tmp_path: Path, reference: bytes, hosts: int
) -> None:
    run_dir = ray_run(experiment, tmp_path / "run", hosts=hosts, standby=0)
    assert run_dir.joinpath("journal.jsonl").read_bytes() == reference


@pytest.mark.parametrize("machines", [1, 2])
def test_agents_remember_the_same_on_any_number_of_hosts_and_machines(
    experiment: Experiment, tmp_path: Path, machines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = write_policy(tmp_path / "policy")
    sections: dict[str, Any] = {
        "episodes": 2,
        "world": {"id": "facts-v0", "options": {"desks": 3, "pages": 2, "facts": 1, "questions": 2, "foreign": 0.5}},
        "agents": {
            "count": 3,
            "engine": {"kind": "ulm", "model": str(policy)},
            "memory": ["stm", "ltm", "facts"],
            "constrained": True,
            "max_new_tokens": 24,
        },
        "coordinator": {"kind": "none"},
        "topology": {"kind": "none"},
        "budget": {"tokens": None, "ticks": 8},
    }
    local = start_run(*experiment(**sections), tmp_path / "local").run_dir
    if machines > 1:
        node = {"Alive": True, "NodeID": "another"}
        monkeypatch.setattr(ray, "nodes", lambda: [node])
    contents = set()
    real = ray_pool.RayPool._run

    def run(self: Any, method: str, requests: Any) -> Any:
        held = (handle for fields in requests for handle in ActRequest(*fields).memories)
        contents.update(handle.kind + type(handle.content).__name__ for handle in held)
        return real(self, method, requests)

    monkeypatch.setattr(ray_pool.RayPool, "_run", run)
    far = start_run(
        *experiment(**sections, runtime={"pool": "ray", "hosts": 2, "standby": 0}), tmp_path / "ray"
    ).run_dir
    assert contents == {"ltmbytes", "factsPosixPath" if machines == 1 else "factsbytes"}
    assert far.joinpath("journal.jsonl").read_bytes() == local.joinpath("journal.jsonl").read_bytes()


def test_journal_is_the_same_with_two_agents_per_host(experiment: Experiment, tmp_path: Path, reference: bytes) -> None:
    config, path = experiment(
        **{**SECTIONS, "concurrency": 1}, runtime={"pool": "ray", "agents_per_host": 2, "standby": 0}
    )
    local, _ = experiment(**{**SECTIONS, "concurrency": 1})
    distributed = start_run(config, path, tmp_path / "ray").run_dir
    alone = start_run(local, path, tmp_path / "local").run_dir
    assert distributed.joinpath("journal.jsonl").read_bytes() == alone.joinpath("journal.jsonl").read_bytes()


def test_hosts_killed_at_random_points_change_nothing(
    experiment: Experiment, tmp_path: Path, reference: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(8)
    real = ray_pool.RayPool._run
    killed: list[str] = []
    killed_before = 0

    def run(self: Any, method: str, requests: Any) -> Any:
        # `direct` is the coordinator's call: killing its host is killing the coordinator.
        if len(killed) < min(NUM_KILLS, killed_before + KILLS_PER_RUN) and rng.random() < 0.5:
            try:
                victim = rng.choice(self.host_pids())
            except RayActorError:  # the last one killed was idle: nobody has noticed yet
                return real(self, method, requests)
            killed.append(method)
            if rng.random() < 0.5:
                os.kill(victim, signal.SIGKILL)
            else:  # while it works
                threading.Timer(rng.random() * 0.02, lambda: _kill(victim)).start()
        return real(self, method, requests)

    monkeypatch.setattr(ray_pool.RayPool, "_run", run)
    monkeypatch.setattr(ray_pool.RayPool, "max_deaths", 50)
    attempt = 0
    while len(killed) < NUM_KILLS:
        attempt, killed_before = attempt + 1, len(killed)
        config, path = experiment(**SECTIONS, runtime={"pool": "ray", "hosts": 2, "standby": 1})
        run_dir = start_run(config, path, tmp_path / f"run{attempt}").run_dir
        assert _body(run_dir) == _body(tmp_path / "reference")
    assert {"act", "direct"} <= set(killed)
    kinds = [line["kind"] for line in read_telemetry(run_dir / "telemetry.jsonl")]
    assert "commit" in kinds


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _body(run_dir: Path) -> list[str]:
    """Everything but the hash chain."""
    import json

    lines = run_dir.joinpath("journal.jsonl").read_text().splitlines()[1:]
    return [
        json.dumps({k: v for k, v in json.loads(line).items() if k not in ("hash", "prev")}, sort_keys=True)
        for line in lines
    ]


def test_too_many_dead_hosts_end_the_run_with_a_clear_line(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ray_pool.RayPool._run

    def run(self: Any, method: str, requests: Any) -> Any:
        for pid in self.host_pids():
            _kill(pid)
        return real(self, method, requests)

    monkeypatch.setattr(ray_pool.RayPool, "_run", run)
    monkeypatch.setattr(ray_pool.RayPool, "max_deaths", 1)
    config, path = experiment(**SECTIONS, runtime={"pool": "ray", "hosts": 1})
    with pytest.raises(SwarmError, match="2 hosts died, and a run survives 1"):
        start_run(config, path, tmp_path / "run")


def test_ctrl_c_ends_a_run_whose_host_hangs(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[int] = []

    def run(self: Any, method: str, requests: Any) -> Any:
        stopped.extend(self.host_pids())
        os.kill(stopped[0], signal.SIGSTOP)
        raise KeyboardInterrupt

    monkeypatch.setattr(ray_pool.RayPool, "_run", run)
    began_s = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            ray_run(experiment, tmp_path / "run", hosts=2)
        assert time.monotonic() - began_s < 60  # no waiting for the host that will never answer
    finally:
        _kill(stopped[0])


@ray.remote(num_cpus=0, max_restarts=0)
class Vandal:
    """A host that writes to the weights it shares."""

    def __init__(self, arrays: dict[str, np.ndarray[Any, Any]], folder: Path) -> None:
        protect(arrays.values())
        self.model = build_model(read_checkpoint_config(folder).model, arrays)
        self.arrays = arrays

    def shares(self) -> bool:
        weights = dict(self.model.named_parameters())
        return all(weights[name].data_ptr() == array.ctypes.data for name, array in self.arrays.items())

    def write(self) -> None:
        with torch.inference_mode():
            for weight in self.model.parameters():
                if weight.dim() > 1:
                    weight.zero_()


def test_writing_to_shared_weights_fails_and_changes_them_for_nobody(tiny_policy: Path) -> None:
    arrays = load_weights_numpy(tiny_policy)
    reference = ray.put(arrays)
    vandal = Vandal.remote(reference, tiny_policy)
    assert ray.get(vandal.shares.remote())
    with pytest.raises(RayActorError):
        ray.get(vandal.write.remote())
    shared: dict[str, np.ndarray[Any, Any]] = ray.get(reference)
    assert all(np.array_equal(shared[name], array) for name, array in arrays.items())
