"""Private memory per added agent, and of a further host that shares a 100 MB model.

Private memory is what a process alone pays for: `Private_Clean` + `Private_Dirty` of /proc/PID/smaps_rollup. Pages of
the object store that several processes map are not in it; the hosts are measured two at a time, so that the shared
weights are really shared.

- Agents: driver plus hosts at the end of the same run of echo agents through runner, Ray pool and journal, with 64 and
  with 1,064 agents, each in a fresh process; the difference over the 1,000 agents between them.
- Host: a host that has built the 100 MB model and decoded with it, against two baselines: a process that has imported
  what the host imports and has no model, and a host that has decoded the same texts with a tiny model. The first holds
  everything that the model brings, torch's working memory for decoding included; the second only what depends on its
  size. The target is judged by the first.

    python tests/benchmarks/bench_memory.py --rounds 3 --json memory.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import ray

from swarm.actors import pool as ray_pool
from swarm.agents.host import HostSpec, ResolvedModel, SharedModel
from swarm.config.engine import UlmEngine
from swarm.config.experiment import AgentsConfig, ExperimentConfig, RuntimeConfig, WorldConfig
from swarm.messages import ActRequest
from swarm.run.runner import start_run

FEW, MANY = 64, 1064
TICKS = 50
WANTED_BYTES_PER_AGENT = 1_000_000
WANTED_BYTES_PER_HOST = 40_000_000
"""glibc and MKL keep the room of what they have freed: some 25 MB after decoding."""

MB = 1e6


def private_bytes(pid: int | str) -> int:
    """Return the private memory of a process of this user, in bytes."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Private_Clean", "Private_Dirty", "Private_Hugetlb"):
            total += int(rest.split()[0]) * 1024
    return total


def echo_run(agents: int, hosts: int, ticks: int) -> dict[str, int]:
    """Run echo agents in this process; return the private memory of driver and hosts after the last tick."""
    measured: dict[str, int] = {}

    class MeasuredPool(ray_pool.RayPool):
        def close(self) -> None:
            if not measured:
                measured["hosts"] = sum(map(private_bytes, self.host_pids()))
                measured["driver"] = private_bytes("self")
            super().close()

    config = ExperimentConfig.model_validate(
        {
            "name": "echo",
            "world": {"id": "echo-v0", "options": {"max_steps": ticks}},
            "agents": {"count": agents, "engine": {"kind": "echo"}},
            "topology": {"kind": "none"},
            "budget": {"ticks": ticks},
            "runtime": {"hosts": hosts, "standby": 0, "durability": "group"},
        }
    )
    ray_pool.RayPool = MeasuredPool  # type: ignore[misc]  # this process does nothing else
    with tempfile.TemporaryDirectory() as scratch:
        start_run(config, Path(__file__), Path(scratch) / "run")
    return measured


def memory_of_agents(rounds: int) -> list[dict[str, Any]]:
    """Measure few and many agents `rounds` times in turn, each in a process of its own."""
    results = []
    for _ in range(rounds):
        row: dict[str, Any] = {}
        for agents in (FEW, MANY):
            command = [sys.executable, __file__, "--echo-agents", str(agents)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
            row[str(agents)] = json.loads(done.stdout.splitlines()[-1])
        few, many = row[str(FEW)], row[str(MANY)]
        row["bytes_per_agent"] = (sum(many.values()) - sum(few.values())) / (MANY - FEW)
        results.append(row)
    return results


def shared_model(layers: int | None) -> SharedModel:
    """Return random weights: about 25 M parameters (100 MB) with `layers` layers, the tiny preset with None."""
    from ulm.config import preset
    from ulm.model import Decoder
    from ulm.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["half 3 11 7 target 145"], 300)
    size = tokenizer.vocab_size
    config = preset("tiny", size) if layers is None else preset("30m", size, n_layer=layers)
    arrays = {name: tensor.detach().numpy() for name, tensor in Decoder(config).state_dict().items()}
    return SharedModel(config.to_dict(), tokenizer.to_json(), tokenizer.pad_id, tokenizer.eot_id, arrays)


@ray.remote(num_cpus=0)
class BareProcess:
    """A worker that has imported what a host imports, and holds nothing."""

    def __init__(self) -> None:
        import numpy.random  # noqa: F401  # numpy imports it when first asked: a host draws from it
        import torch  # noqa: F401

        import swarm.actors.pool  # noqa: F401
        import ulm.checkpoint
        import ulm.decode.engine
        import ulm.tokenizer  # noqa: F401

    def pid(self) -> int:
        return os.getpid()


def memory_of_bare_processes() -> list[int]:
    """Return the private memory of two processes without a model."""
    workers = [BareProcess.remote() for _ in range(2)]  # type: ignore[attr-defined]
    sizes = [private_bytes(pid) for pid in ray.get([worker.pid.remote() for worker in workers])]
    for worker in workers:
        ray.kill(worker)
    return sizes


def memory_of_hosts(model: SharedModel, decodes: int) -> dict[str, list[int]]:
    """Return the private memory of two hosts, with the model built and after decoding with it."""
    agents = AgentsConfig(count=8, engine=UlmEngine(model="model"), max_new_tokens=16)
    runtime = RuntimeConfig(hosts=2, standby=0, threads_per_host=1)
    config = ExperimentConfig(world=WorldConfig(id="echo-v0"), agents=agents, runtime=runtime)
    pool = ray_pool.RayPool(HostSpec(config, ResolvedModel(agents.engine), ResolvedModel()), {"model": model})
    pids = pool.host_pids()
    sizes = {"built": [private_bytes(pid) for pid in pids]}
    for tick in range(decodes):
        replies = pool.act(
            [ActRequest((0, tick, f"a{i}"), "half 3 11 7 target 145\n", 16) for i in range(agents.count)]
        )
        if any(reply.fault for reply in replies):
            raise RuntimeError(f"a host could not decode: {replies[0].fault}")
    sizes["decoded"] = [private_bytes(pid) for pid in pids]
    pool.close()
    return sizes


def memory_of_models(rounds: int, layers: int) -> dict[str, Any]:
    """Measure bare processes, hosts with a tiny model and hosts with a 100 MB model, taking turns."""
    ray_pool.start_ray()
    large, tiny = shared_model(layers), shared_model(None)
    rows = [
        {
            "bare": memory_of_bare_processes(),
            "tiny": memory_of_hosts(tiny, 3),
            "large": memory_of_hosts(large, 3),
        }
        for _ in range(rounds)
    ]
    ray.shutdown()

    def middle(pick: Any) -> float:
        return statistics.median(size for row in rows for size in pick(row))

    bare = middle(lambda row: row["bare"])
    return {
        "model_bytes": sum(array.nbytes for array in large.arrays.values()),
        "bare_bytes": bare,
        "built_beyond_bare": middle(lambda row: row["large"]["built"]) - bare,
        "decoded_beyond_bare": middle(lambda row: row["large"]["decoded"]) - bare,
        "tiny_decoded_beyond_bare": middle(lambda row: row["tiny"]["decoded"]) - bare,
        "decoded_beyond_tiny": middle(lambda row: row["large"]["decoded"]) - middle(lambda row: row["tiny"]["decoded"]),
        "rounds": rows,
    }


def agents_table(results: list[dict[str, Any]]) -> str:
    """Return the memory of agents as aligned text."""
    lines = [f"{'echo agents':<14}{'driver MB':>12}{'hosts MB':>12}"]
    for agents in (FEW, MANY):
        parts = {part: statistics.median(row[str(agents)][part] for row in results) for part in ("driver", "hosts")}
        lines.append(f"{agents:<14}{parts['driver'] / MB:>12.1f}{parts['hosts'] / MB:>12.1f}")
    each = [row["bytes_per_agent"] for row in results]
    lines.append(
        f"per added agent: {statistics.median(each) / 1e3:,.1f} kB (n={len(each)}, {min(each) / 1e3:,.1f} to "
        f"{max(each) / 1e3:,.1f}); target <= {WANTED_BYTES_PER_AGENT / 1e3:,.0f} kB"
    )
    return "\n".join(lines)


def hosts_table(found: dict[str, Any]) -> str:
    """Return the memory of hosts as aligned text."""
    return "\n".join(
        [
            f"process with torch and no model: {found['bare_bytes'] / MB:.1f} MB private",
            f"host with a {found['model_bytes'] / MB:.0f} MB model beyond that: "
            f"{found['built_beyond_bare'] / MB:+.1f} MB built, "
            f"{found['decoded_beyond_bare'] / MB:+.1f} MB after decoding; "
            f"target <= {WANTED_BYTES_PER_HOST / MB:.0f} MB",
            f"host with a tiny model beyond that: {found['tiny_decoded_beyond_bare'] / MB:+.1f} MB after decoding; the "
            f"size of the model costs {found['decoded_beyond_tiny'] / MB:+.1f} MB",
        ]
    )


@pytest.mark.bench
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_added_agent_takes_at_most_one_megabyte() -> None:
    results = memory_of_agents(2)
    print("\n" + agents_table(results))
    assert statistics.median(row["bytes_per_agent"] for row in results) <= WANTED_BYTES_PER_AGENT


@pytest.mark.bench
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_further_host_takes_less_than_half_of_a_model_of_a_hundred_megabytes() -> None:
    found = memory_of_models(2, 10)
    print("\n" + hosts_table(found))
    assert found["decoded_beyond_bare"] <= WANTED_BYTES_PER_HOST


def main() -> None:
    """Run both measurements from the command line."""
    parser = argparse.ArgumentParser(description="private memory per added agent and per further host")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=10, help="layers of the large model, 2.5 M parameters each")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--echo-agents", type=int, help=argparse.SUPPRESS)  # the child of memory_of_agents
    options = parser.parse_args()
    if options.echo_agents:
        print(json.dumps(echo_run(options.echo_agents, 2, TICKS)))
        return
    agents = memory_of_agents(options.rounds)
    print(agents_table(agents) + "\n")
    hosts = memory_of_models(options.rounds, options.layers)
    print(hosts_table(hosts))
    if options.json:
        machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
        options.json.write_text(json.dumps({"machine": machine, "agents": agents, "hosts": hosts}, indent=2) + "\n")


if __name__ == "__main__":
    main()
