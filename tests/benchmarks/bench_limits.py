"""How far budgets overshoot, and how a model call that hangs is cut.

- Budgets: episodes of split-numbers-v0 with random limits on tokens, calls or actions, played with an untrained µLM and
  the rules coordinator. The excess over a limit is compared with the largest call of the tick that crossed it, the
  coordinator's included: more than that is more than one call in flight.
- Hang: a host process of the Ray pool is stopped with SIGSTOP while it works, so its call never returns. Reported are
  the seconds from the stop to the committed tick that records the fault, beside the call's time limit, and the excess
  is what detection and a new host cost.

    python tests/benchmarks/bench_limits.py --budgets 60 --hangs 5 --json limits.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from swarm.actors import pool as ray_pool
from swarm.config.experiment import ExperimentConfig
from swarm.messages import ActReply, ActRequest
from swarm.record.journal import JOURNAL_NAME, read_records
from swarm.record.records import Tick
from swarm.record.telemetry import TELEMETRY_NAME, read_telemetry
from swarm.run.runner import start_run
from ulm.checkpoint import save_checkpoint
from ulm.config import preset
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer

CALL_TIMEOUT_S = 3.0
GRACE_S = 2.0
"""What the pool adds to the time limit before it takes a host for hung: decoding's own deadline comes first."""
RESTART_S = 3.0
"""As for a host that died: the next tick is on disk within this of the cut."""


@dataclass(frozen=True)
class Overshoot:
    """How one episode ended on its budget: use beyond the limit, and the most one call of its last tick used."""

    limit: str
    allowed: int
    excess: int
    largest_call: int


@dataclass(frozen=True)
class Hang:
    """One stopped host: seconds to the tick that records the fault, and how many calls it names."""

    recorded_s: float
    faults: int


def tiny_policy(folder: Path) -> Path:
    """Write a checkpoint of an untrained tiny model."""
    tokenizer = Tokenizer.train(["half 3 11 7 target 145 made 45"], 300)
    save_checkpoint(folder / "tiny", Decoder(preset("tiny", tokenizer.vocab_size), seed=1), tokenizer, {})
    return folder / "tiny"


def experiment(model: Path, **sections: dict[str, Any]) -> ExperimentConfig:
    """Return a run of the default world on one thread."""
    data: dict[str, Any] = {
        "world": {"id": "split-numbers-v0"},
        "agents": {"count": 8, "engine": {"kind": "ulm", "model": str(model)}, "max_new_tokens": 16},
        "coordinator": {"kind": "rules"},
        "faults": {"max_faults": 1000},
        "runtime": {"pool": "local", "durability": "group", "threads_per_host": 1},
    }
    for name, section in sections.items():
        data[name] = {**data.get(name, {}), **section}
    return ExperimentConfig.model_validate(data)


def measure_overshoot(model: Path, budgets: int, scratch: Path) -> list[Overshoot]:
    """Play one episode per random budget and compare what it used with what it was allowed."""
    rng = random.Random(10)
    results = []
    for number in range(budgets):
        limit = ("tokens", "calls", "actions")[number % 3]
        allowed = rng.randint(50, 3000) if limit == "tokens" else rng.randint(1, 80)
        # Only legal actions make the coordinator speak.
        engine = {"kind": "random" if number % 2 else "ulm", "model": str(model)}
        config = experiment(model, budget={limit: allowed}, agents={"engine": engine})
        run_dir = start_run(config, Path(__file__), scratch / f"budget{number}").run_dir
        records = list(read_records(run_dir / JOURNAL_NAME))
        end = next(record for record in records if record["kind"] == "episode_end")
        last = [record for record in records if record["kind"] == "tick"][-1]
        excess = max(0, end[limit] - allowed)
        results.append(Overshoot(limit, allowed, excess, _largest_call(last) if limit == "tokens" else 1))
    return results


def _largest_call(tick: Tick) -> int:
    calls = [*tick["agents"], *([tick["coordinator"]] if tick["coordinator"] else [])]
    return max(call["prompt_tokens"] + call["generated_tokens"] for call in calls)


def measure_hangs(model: Path, hangs: int, scratch: Path) -> list[Hang]:
    """Stop a working host at random ticks of one run on the Ray pool and look for the fault in the journal."""
    stopped_at: list[tuple[int, float]] = []
    rng = random.Random(11)
    at_ticks = sorted(rng.sample(range(2, 10 * hangs), hangs))

    class StoppingPool(ray_pool.RayPool):
        max_deaths = 1000

        def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
            tick = requests[0].key[1]
            if at_ticks and tick >= at_ticks[0]:  # later, if all agents rest at the chosen tick
                at_ticks.pop(0)
                ray.get([spare.actor.ping.remote() for spare in self._standby])
                os.kill(rng.choice(self.host_pids()), signal.SIGSTOP)
                stopped_at.append((tick, time.time()))  # the clock that telemetry uses
            return super().act(requests)

    config = experiment(
        model,
        budget={"ticks": 10 * hangs + 10},
        faults={"call_timeout_s": CALL_TIMEOUT_S},
        runtime={"pool": "ray", "hosts": 2, "standby": 1},
    )
    original = ray_pool.RayPool
    ray_pool.RayPool = StoppingPool  # type: ignore[misc]
    try:
        run_dir = start_run(config, Path(__file__), scratch / "hangs").run_dir
    finally:
        ray_pool.RayPool = original  # type: ignore[misc]
        ray.shutdown()
    ticks = [record for record in read_records(run_dir / JOURNAL_NAME) if record["kind"] == "tick"]
    committed_s = {f["seq"]: f["at_s"] for f in read_telemetry(run_dir / TELEMETRY_NAME) if f["kind"] == "commit"}
    results = []
    for tick, stopped_s in stopped_at:
        faults = [entry for entry in ticks[tick]["agents"] if "timeout" in entry.get("fault", "")]
        results.append(Hang(committed_s[ticks[tick]["seq"]] - stopped_s, len(faults)))
    return results


def overshoot_table(results: list[Overshoot]) -> str:
    """Return the overshoots as aligned text."""
    lines = [f"{'limit':<10}{'episodes':>9}{'over':>6}{'most over':>11}{'in calls':>10}"]
    for limit in ("tokens", "calls", "actions"):
        rows = [r for r in results if r.limit == limit]
        if rows:
            in_calls = max(r.excess / r.largest_call for r in rows)
            over = sum(r.excess > 0 for r in rows)
            lines.append(f"{limit:<10}{len(rows):>9}{over:>6}{max(r.excess for r in rows):>11}{in_calls:>10.2f}")
    return "\n".join([*lines, "target: at most 1.00 calls over"])


def hangs_table(results: list[Hang]) -> str:
    """Return the hangs as one line."""
    seconds = [hang.recorded_s for hang in results]
    return (
        f"hung host, call limit {CALL_TIMEOUT_S:g} s + {GRACE_S:g} s grace: fault on disk after "
        f"{statistics.median(seconds):.2f} s (max {max(seconds):.2f}, n={len(seconds)}), "
        f"{sum(hang.faults > 0 for hang in results)} of {len(results)} recorded"
    )


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_budgets_overshoot_by_at_most_one_call(tmp_path: Path) -> None:
    results = measure_overshoot(tiny_policy(tmp_path), 60, tmp_path)
    print("\n" + overshoot_table(results))
    assert all(result.excess <= result.largest_call for result in results)


@pytest.mark.bench
@pytest.mark.ray
@pytest.mark.timeout(300)
def test_hung_call_is_cut_and_recorded(tmp_path: Path) -> None:
    results = measure_hangs(tiny_policy(tmp_path), 5, tmp_path)
    print("\n" + hangs_table(results))
    assert all(hang.faults > 0 for hang in results)
    assert max(hang.recorded_s for hang in results) <= CALL_TIMEOUT_S + GRACE_S + RESTART_S


def main() -> None:
    """Run both measurements from the command line."""
    parser = argparse.ArgumentParser(description="overshoot of budgets, and how a hung model call is cut")
    parser.add_argument("--budgets", type=int, default=60)
    parser.add_argument("--hangs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = tiny_policy(scratch)
        overshoots = measure_overshoot(model, options.budgets, scratch)
        print(overshoot_table(overshoots) + "\n", flush=True)
        hangs = measure_hangs(model, options.hangs, scratch)
        print(hangs_table(hangs))
    if options.json:
        document = {
            "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
            "overshoot": [asdict(result) for result in overshoots],
            "hangs": [asdict(result) for result in hangs],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
