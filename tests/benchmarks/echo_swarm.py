"""The echo work on our runtime: Ray hosts, the journal on disk, the same entry point as `swarm run`.

The clock starts at the commit that completes the warm-up, as telemetry stamps it, and stops when the run returns with
its journal closed, so the last flush is inside. Starting Ray is outside, as importing the other frameworks is. There is
no spare host: it would start up in the background of the measurement.
"""

from __future__ import annotations

import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from echo_work import WARMUP_TICKS, EchoResult, EchoWork

from swarm.config.experiment import ExperimentConfig
from swarm.record.journal import JOURNAL_NAME, read_records
from swarm.record.telemetry import TELEMETRY_NAME, read_telemetry
from swarm.run.runner import start_run


def experiment(work: EchoWork) -> ExperimentConfig:
    """Return the experiment that is this work: one episode of echo-v0."""
    ticks = WARMUP_TICKS + work.ticks
    return ExperimentConfig.model_validate(
        {
            "name": "echo",
            "world": {"id": "echo-v0", "options": {"max_steps": ticks}},
            "agents": {"count": work.agents, "engine": {"kind": "echo"}},
            "topology": {"kind": "none"},
            "budget": {"ticks": ticks},
            "runtime": {"hosts": work.hosts, "standby": 0, "durability": "group"},
        }
    )


def check_journal(path: Path, work: EchoWork) -> None:
    """Raise RuntimeError unless the journal holds every agent's answer to every tick."""
    ticks = 0
    for record in read_records(path):
        if record["kind"] == "tick":
            work.check_answers(ticks, [entry["action"] for entry in record["agents"]])
            ticks += 1
    if ticks != WARMUP_TICKS + work.ticks:
        raise RuntimeError(f"the journal holds {ticks} ticks, not {WARMUP_TICKS + work.ticks}")


def measure(work: EchoWork) -> EchoResult:
    """Carry out the run in a scratch folder and time its ticks after the warm-up."""
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        start_run(experiment(work), Path(__file__), run_dir)
        stopped_s = time.time()  # the clock that telemetry uses
        check_journal(run_dir / JOURNAL_NAME, work)
        commits = [fact for fact in read_telemetry(run_dir / TELEMETRY_NAME) if fact["kind"] == "commit"]
    seconds = stopped_s - commits[WARMUP_TICKS - 1]["at_s"]
    return EchoResult("swarm", version("ulm-swarm"), work.agents * work.ticks, seconds)


if __name__ == "__main__":
    measure(EchoWork.from_arguments()).print()
