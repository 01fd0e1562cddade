"""The echo work on our runtime: Ray hosts, the journal on disk, the same entry point as `swarm run`.

The clock runs from the first commit that completes the warm-up to the last commit, as telemetry stamps
them, so a step counts only once it is in the journal. Starting Ray is outside, as importing the other
frameworks is.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path

from echo_work import WARMUP_TICKS, EchoResult, EchoWork

from swarm.config import ExperimentConfig
from swarm.journal import JOURNAL_NAME, read_records
from swarm.runner import start_run
from swarm.telemetry import TELEMETRY_NAME, read_telemetry


def experiment(work: EchoWork) -> ExperimentConfig:
    """Return the experiment that is this work."""
    return ExperimentConfig.model_validate(
        {
            "name": "echo",
            "world": {"id": "echo-v0"},
            "agents": {"count": work.agents, "policy": "echo"},
            "topology": {"kind": "none"},
            "budget": {"ticks": WARMUP_TICKS + work.ticks},
            "runtime": {"hosts": work.hosts, "standby": 0, "durability": "group"},
        }
    )


def check_journal(path: Path, work: EchoWork) -> None:
    """Raise RuntimeError unless the journal holds a valid answer of every agent to every tick."""
    ticks = 0
    for record in read_records(path):
        if record["kind"] != "tick":
            continue
        answered = sum(agent["valid"] and bool(agent["action"]) for agent in record["agents"])
        if answered != work.agents:
            raise RuntimeError(f"tick {record['tick']}: {answered} of {work.agents} agents answered")
        ticks += 1
    if ticks != WARMUP_TICKS + work.ticks:
        raise RuntimeError(f"the journal holds {ticks} ticks, not {WARMUP_TICKS + work.ticks}")


def measure(work: EchoWork) -> EchoResult:
    """Carry out the run in a scratch folder and time its commits."""
    with tempfile.TemporaryDirectory() as scratch:
        folders: list[Path] = []
        start_run(experiment(work), Path(__file__), Path(scratch) / "runs", folders.append)
        check_journal(folders[0] / JOURNAL_NAME, work)
        commits = [fact for fact in read_telemetry(folders[0] / TELEMETRY_NAME) if fact["kind"] == "commit"]
    first = 0
    while sum(commit["agent_steps"] for commit in commits[: first + 1]) < WARMUP_TICKS * work.agents:
        first += 1
    measured = commits[first + 1 :]
    return EchoResult(
        "swarm",
        version("ulm-swarm"),
        sum(fact["agent_steps"] for fact in measured),
        measured[-1]["at_s"] - commits[first]["at_s"],
    )


if __name__ == "__main__":
    measure(EchoWork.from_arguments()).print()
