"""Agent-steps per second of our runtime, autogen-core and LangGraph on the same work in one run.

64 echo agents get a short text observation each and answer it; a tick is all agents once. Ours runs on 2
Ray hosts and journals every step with group commit; LangGraph checkpoints every tick in memory;
autogen-core records nothing. The sides take turns, each in a fresh process, and the ratio is between
medians over the rounds. The other two live in an environment of their own (`make bench` makes it), which
`--peer-python` names.

    python tests/benchmarks/bench_frameworks.py --ticks 300 --rounds 3 --json frameworks.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from echo_work import EchoResult, EchoWork

HERE = Path(__file__).parent
PEER_PYTHON = HERE.parents[1] / ".venv-bench" / "bin" / "python"
SIDES = ("swarm", "autogen", "langgraph")
WANTED_RATE = 20_000
WANTED_RATIO = 2.0


def run_side(side: str, work: EchoWork, peer_python: Path) -> EchoResult:
    """Measure one side in a process of its own."""
    python = Path(sys.executable) if side == "swarm" else peer_python
    command = [str(python), str(HERE / f"echo_{side}.py"), *work.arguments()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return EchoResult.parse(done.stdout)


def compare(work: EchoWork, rounds: int, peer_python: Path) -> dict[str, list[EchoResult]]:
    """Measure all sides `rounds` times, taking turns so that a busy minute hits all of them alike."""
    results: dict[str, list[EchoResult]] = {side: [] for side in SIDES}
    for turn in range(rounds):
        for side in SIDES[turn % len(SIDES) :] + SIDES[: turn % len(SIDES)]:
            results[side].append(run_side(side, work, peer_python))
            print(
                f"round {turn + 1}/{rounds}  {side:<10} {results[side][-1].rate:>10,.0f} agent-steps/s",
                flush=True,
            )
    return results


def median_rate(results: list[EchoResult]) -> float:
    """Return the median agent-steps per second."""
    return statistics.median(result.rate for result in results)


def table(results: dict[str, list[EchoResult]]) -> str:
    """Return the comparison as aligned text."""
    ours = median_rate(results["swarm"])
    lines = [f"{'side':<14}{'version':<10}{'agent-steps/s':>14}{'min':>10}{'max':>10}{'ours is':>10}"]
    for measured in results.values():
        rates = [result.rate for result in measured]
        ratio = f"{ours / median_rate(measured):.1f}x"
        lines.append(
            f"{measured[0].side:<14}{measured[0].version:<10}{median_rate(measured):>14,.0f}"
            f"{min(rates):>10,.0f}{max(rates):>10,.0f}{ratio:>10}"
        )
    return "\n".join(lines)


def as_json(work: EchoWork, results: dict[str, list[EchoResult]]) -> str:
    """Return everything that was measured, and where, as JSON."""
    ours = median_rate(results["swarm"])
    return json.dumps(
        {
            "work": asdict(work),
            "machine": {
                "cpus": os.cpu_count(),
                "python": platform.python_version(),
                "system": platform.system(),
            },
            "median_agent_steps_per_s": {side: median_rate(measured) for side, measured in results.items()},
            "ratio": {side: ours / median_rate(results[side]) for side in SIDES[1:]},
            "rounds": {side: [asdict(result) for result in measured] for side, measured in results.items()},
        },
        indent=2,
    )


@pytest.mark.bench
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_echo_swarm_is_twice_as_fast_as_autogen_and_langgraph() -> None:
    if not PEER_PYTHON.exists():
        pytest.skip("autogen-core and langgraph are not installed: make bench")
    results = compare(EchoWork(agents=64, ticks=300, hosts=2), 3, PEER_PYTHON)
    print("\n" + table(results))
    ours = median_rate(results["swarm"])
    assert ours >= WANTED_RATE
    assert ours / median_rate(results["autogen"]) >= WANTED_RATIO
    assert ours / median_rate(results["langgraph"]) >= WANTED_RATIO


def main() -> None:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description="agent-steps/s: our runtime, autogen-core, LangGraph")
    parser.add_argument("--agents", type=int, default=64)
    parser.add_argument("--ticks", type=int, default=300, help="measured ticks per round and side")
    parser.add_argument("--hosts", type=int, default=2, help="Ray hosts of our side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", type=Path, default=PEER_PYTHON, help="interpreter with the other frameworks")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args()
    if not options.peer_python.exists():
        parser.error(f"no interpreter {options.peer_python}; make it with: make bench, or name one with --peer-python")
    work = EchoWork(agents=options.agents, ticks=options.ticks, hosts=options.hosts)
    results = compare(work, options.rounds, options.peer_python)
    print("\n" + table(results))
    if options.json:
        options.json.write_text(as_json(work, results) + "\n")


if __name__ == "__main__":
    main()
