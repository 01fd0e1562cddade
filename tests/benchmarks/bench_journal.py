"""How the journal grows, and what watching a run costs it.

- Growth: bytes of the journal up to its T-th and its 2T-th tick record, for 8 agents in split-numbers-v0: legal random
  actions under the rules coordinator (the most that is said), the same without directives in one long episode, and an
  untrained µLM whose actions run to their full length.
- Dashboard: agent-steps per second of the same echo run (64 agents, 2 Ray hosts, group commit), unwatched, with `swarm
  watch --plain`, and with the live dashboard on a pseudo-terminal of 80x24. Sides take turns, each run in a fresh
  process; the cost is the median over the turns of one minus the ratio to the unwatched run of the same turn. Runs
  differ by more than the target allows, so the watcher's processor time, as a share of the machine's during the run,
  stands beside it: the steadier figure.

    python tests/benchmarks/bench_journal.py --ticks 4000 --rounds 7 --json journal.json
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import pty
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from swarm.config.experiment import ExperimentConfig
from swarm.record.journal import JOURNAL_NAME
from swarm.record.telemetry import TELEMETRY_NAME, read_telemetry
from swarm.run.runner import start_run

TICKS = 100
WANTED_GROWTH = 2.1
WANTED_BYTES = 10_000_000
WANTED_COST = 0.02
WARMUP_TICKS = 10
WATCHERS = ("unwatched", "plain", "live")


@dataclass(frozen=True)
class Growth:
    """Bytes of a journal up to two ticks."""

    case: str
    bytes_at: int
    bytes_at_twice: int

    @property
    def ratio(self) -> float:
        """Bytes at 2T over bytes at T."""
        return self.bytes_at_twice / self.bytes_at


@dataclass(frozen=True)
class WatchedRun:
    """One echo run and who watched it; processor seconds are the watcher's, its start included."""

    watcher: str
    rate: float
    seconds: float
    watcher_cpu_s: float

    @property
    def cpu_share(self) -> float:
        """The watcher's share of all processor time of the machine during the run."""
        return self.watcher_cpu_s / (self.seconds * (os.cpu_count() or 1))


def random_policy(folder: Path) -> Path:
    """Write a checkpoint of an untrained tiny model."""
    from ulm.checkpoint import save_checkpoint
    from ulm.config import preset
    from ulm.model import Decoder
    from ulm.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["half 3 11 7 target 145 made 45"], 300)
    save_checkpoint(folder / "tiny", Decoder(preset("tiny", tokenizer.vocab_size), seed=1), tokenizer, {})
    return folder / "tiny"


def measure_growth(ticks: int) -> list[Growth]:
    """Play the three runs on the local pool and read their journals at two lengths."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = str(random_policy(scratch))
        cases: dict[str, dict[str, Any]] = {
            "random, rules, many episodes": {"policy": "random", "coordinator": "rules", "episode_ticks": 30},
            "random, no directives, one episode": {"policy": "random", "coordinator": "none", "episode_ticks": None},
            "untrained µLM, rules, one episode": {"policy": "ulm", "coordinator": "rules", "episode_ticks": None},
        }
        return [_growth(name, ticks, model, scratch / str(i), **case) for i, (name, case) in enumerate(cases.items())]


def _growth(
    name: str, ticks: int, model: str, out: Path, policy: str, coordinator: str, episode_ticks: int | None
) -> Growth:
    config = ExperimentConfig.model_validate(
        {
            "seed": 3,
            "episodes": 1 if episode_ticks is None else -(-2 * ticks // 8),
            "world": {"id": "split-numbers-v0"},
            "agents": {"count": 8, "engine": {"kind": policy, "model": model}, "max_new_tokens": 24},
            "coordinator": {"kind": coordinator},
            "budget": {"ticks": 2 * ticks if episode_ticks is None else episode_ticks},
            "faults": {"max_faults": 10**6},
            "runtime": {"pool": "local", "durability": "group", "threads_per_host": 1},
        }
    )
    journal = start_run(config, Path(__file__), out).run_dir / JOURNAL_NAME
    size = seen = 0
    sizes: dict[int, int] = {}
    with journal.open("rb") as lines:
        for line in lines:
            size += len(line)
            if b'"kind":"tick"' in line:
                seen += 1
                sizes.setdefault(seen, size)
    if 2 * ticks not in sizes:
        raise RuntimeError(f"{name}: the run ended after {seen} ticks, before {2 * ticks}")
    return Growth(name, sizes[ticks], sizes[2 * ticks])


def echo_run(out: Path, ticks: int) -> None:
    """Carry out the echo run in this process and print its seconds after the warm-up."""
    config = ExperimentConfig.model_validate(
        {
            "name": "echo",
            "world": {"id": "echo-v0", "options": {"max_steps": WARMUP_TICKS + ticks}},
            "agents": {"count": 64, "engine": {"kind": "echo"}},
            "topology": {"kind": "none"},
            "budget": {"ticks": WARMUP_TICKS + ticks},
            "runtime": {"hosts": 2, "standby": 0, "durability": "group"},
        }
    )
    start_run(config, Path(__file__), out)
    stopped_s = time.time()  # the clock that telemetry uses
    commits = [fact["at_s"] for fact in read_telemetry(out / TELEMETRY_NAME) if fact["kind"] == "commit"]
    print(json.dumps(stopped_s - commits[WARMUP_TICKS - 1]))


def start_watcher(watcher: str, run_dir: Path) -> subprocess.Popen[bytes]:
    """Start `swarm watch` on a run, on a pseudo-terminal that is read by a thread unless it is the plain one."""
    command = [sys.executable, "-m", "swarm.cli", "watch", str(run_dir)]
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1"}
    if watcher == "plain":
        return subprocess.Popen(
            [*command, "--plain"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
    terminal, screen = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(command, env=environment, stdin=screen, stdout=screen, stderr=screen)
    os.close(screen)
    threading.Thread(target=_drain, args=(terminal,), daemon=True).start()
    return process


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        pass  # Linux reports the end of a pseudo-terminal as an error
    os.close(terminal)


def watched_run(watcher: str, ticks: int) -> WatchedRun:
    """Measure one echo run in a process of its own; the watcher starts with the journal, as in `swarm run`."""
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        command = [sys.executable, __file__, "--echo-run", str(run_dir), "--ticks", str(ticks)]
        with (Path(scratch) / "stderr").open("w+") as errors:
            run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
            while not (run_dir / JOURNAL_NAME).exists() and run.poll() is None:
                time.sleep(0.01)
            process = start_watcher(watcher, run_dir) if watcher != "unwatched" else None
            output, _ = run.communicate(timeout=600)
            cpu_s = 0.0
            if process is not None:  # at the end of the run, not of the watcher: it may still have to catch up
                cpu_s = _cpu_seconds(process.pid)
                process.wait(120)
            if run.returncode:
                errors.seek(0)
                raise RuntimeError(f"{' '.join(command)} failed:\n{errors.read()[-4000:]}")
    seconds = float(output.splitlines()[-1])
    return WatchedRun(watcher, 64 * ticks / seconds, seconds, cpu_s)


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_watching(
    ticks: int, rounds: int, say: Callable[[str], None] = lambda line: None
) -> dict[str, list[WatchedRun]]:
    """Measure all sides `rounds` times, taking turns."""
    results: dict[str, list[WatchedRun]] = {watcher: [] for watcher in WATCHERS}
    for turn in range(rounds):
        for watcher in WATCHERS[turn % 3 :] + WATCHERS[: turn % 3]:
            results[watcher].append(watched_run(watcher, ticks))
            say(f"round {turn + 1}/{rounds}  {watcher:<10} {results[watcher][-1].rate:>10,.0f} agent-steps/s")
    return results


def costs(results: dict[str, list[WatchedRun]], watcher: str) -> list[float]:
    """Return the share of throughput lost in each turn."""
    pairs = zip(results["unwatched"], results[watcher], strict=True)
    return [1 - watched.rate / unwatched.rate for unwatched, watched in pairs]


def growth_table(results: list[Growth], ticks: int) -> str:
    """Return the growth as aligned text."""
    lines = [f"{'8 agents':<38}{f'MB at {ticks}':>12}{f'MB at {2 * ticks}':>12}{'ratio':>8}"]
    lines += [f"{g.case:<38}{g.bytes_at / 1e6:>12.3f}{g.bytes_at_twice / 1e6:>12.3f}{g.ratio:>8.3f}" for g in results]
    return "\n".join([*lines, f"target <= {WANTED_BYTES / 1e6:.0f} MB at 100 ticks, ratio <= {WANTED_GROWTH}"])


def watching_table(results: dict[str, list[WatchedRun]]) -> str:
    """Return the cost of watching as aligned text."""
    lines = [f"{'':<12}{'agent-steps/s':>14}{'min':>10}{'max':>10}{'cost':>8}{'(min to max)':>20}{'CPU share':>11}"]
    for watcher, runs in results.items():
        rates = [run.rate for run in runs]
        lost = costs(results, watcher)
        share = statistics.median(run.cpu_share for run in runs)
        lines.append(
            f"{watcher:<12}{statistics.median(rates):>14,.0f}{min(rates):>10,.0f}{max(rates):>10,.0f}"
            f"{statistics.median(lost):>8.1%}{f'({min(lost):.1%} to {max(lost):.1%})':>20}{share:>11.1%}"
        )
    return "\n".join([*lines, f"n = {len(results['plain'])}; target: cost <= {WANTED_COST:.0%}"])


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_journal_grows_linearly_and_stays_small() -> None:
    results = measure_growth(TICKS)
    print("\n" + growth_table(results, TICKS))
    assert max(growth.ratio for growth in results) <= WANTED_GROWTH
    assert max(growth.bytes_at for growth in results) <= WANTED_BYTES


@pytest.mark.bench
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_watching_costs_at_most_two_per_cent_of_throughput() -> None:
    results = measure_watching(4000, 5)
    print("\n" + watching_table(results))
    for watcher in WATCHERS[1:]:
        assert statistics.median(costs(results, watcher)) <= WANTED_COST


def main() -> None:
    """Run both measurements from the command line."""
    parser = argparse.ArgumentParser(description="journal growth, and what the dashboard costs a run")
    parser.add_argument("--ticks", type=int, default=4000, help="ticks of the watched run; growth is taken at 100")
    parser.add_argument("--rounds", type=int, default=7, help="watched runs of each kind; 0 leaves them out")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--echo-run", type=Path, help=argparse.SUPPRESS)  # the child of watched_run
    options = parser.parse_args()
    if options.echo_run:
        echo_run(options.echo_run, options.ticks)
        return
    growth = measure_growth(TICKS)
    print(growth_table(growth, TICKS) + "\n", flush=True)
    watching: dict[str, list[WatchedRun]] = {}
    if options.rounds:
        watching = measure_watching(options.ticks, options.rounds, lambda line: print(line, flush=True))
        print("\n" + watching_table(watching))
    if options.json:
        document = {
            "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
            "growth": [{**asdict(g), "ratio": g.ratio, "ticks": TICKS} for g in growth],
            "watching": {watcher: [asdict(run) for run in runs] for watcher, runs in watching.items()},
            "cost": {w: statistics.median(costs(watching, w)) for w in watching},
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
