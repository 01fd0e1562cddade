"""Reads a finished or unfinished run folder into one outcome per puzzle.

Owns the way from journal records to the numbers that reports and comparisons use: it streams the journal
once and keeps one small object per puzzle. It refuses to know arms, statistics and output formats, and
reads nothing but the journal and the telemetry of the run.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarm.errors import SwarmError
from swarm.record.journal import JOURNAL_NAME, JournalError, read_records
from swarm.record.records import ChangeRecord, Record, Tick, faults_in
from swarm.record.tally import Tally
from swarm.record.telemetry import TELEMETRY_NAME, read_telemetry

MAX_FAULTS_KEPT = 100


@dataclass(slots=True)
class PuzzleOutcome:
    """What happened to one puzzle (episode).

    Attributes:
        puzzle: hash of the world's state after reset; equal puzzles have equal hashes within one arm.
        reason: why it ended; "" while it is still running.
        rounds: ticks that were played.
        tokens: everything that was charged, from the journal's own account.
        largest_call: tokens of its largest single model call.
        reward: mean over its agents, summed over its ticks.
    """

    episode: int
    seed: int
    goal: str
    puzzle: str
    solved: bool = False
    reason: str = ""
    rounds: int = 0
    tokens: int = 0
    calls: int = 0
    actions: int = 0
    agent_prompt_tokens: int = 0
    agent_generated_tokens: int = 0
    coordinator_prompt_tokens: int = 0
    coordinator_generated_tokens: int = 0
    invalid_actions: int = 0
    largest_call: int = 0
    reward: float = 0.0
    solution: str = ""

    @property
    def agent_tokens(self) -> int:
        """Prompt and generated tokens of all agents."""
        return self.agent_prompt_tokens + self.agent_generated_tokens

    @property
    def coordinator_tokens(self) -> int:
        """Prompt and generated tokens of the coordinator."""
        return self.coordinator_prompt_tokens + self.coordinator_generated_tokens


@dataclass(frozen=True, slots=True)
class Fault:
    """One recorded fault: where, who, what."""

    episode: int
    tick: int
    who: str
    text: str


@dataclass(slots=True)
class Telemetry:
    """Wall-clock facts of a run; all zero when there is no telemetry.

    Attributes:
        wall_s: seconds between commits, summed: work that a crash undid counts, a pause before a resume
            does not.
    """

    wall_s: float = 0.0
    agent_steps: int = 0
    resumes: int = 0
    host_deaths: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RunOutcomes:
    """One run folder, read.

    Attributes:
        config: the logical settings from the header. checkpoints: path -> sha256.
        puzzles: ended puzzles in the order they ended. running: puzzles that had not ended.
        end_reason: of the `end` record; None for a run that has not finished.
        num_faults: faults of the run; faults: the first of them.
        tally: its calls, and what went wrong.
        changes: of what agents keep, in order.
        journal_hash: hash of the last record.
    """

    run_dir: Path
    config: dict[str, Any]
    checkpoints: dict[str, str]
    puzzles: list[PuzzleOutcome] = field(default_factory=list)
    running: list[PuzzleOutcome] = field(default_factory=list)
    end_reason: str | None = None
    num_faults: int = 0
    faults: list[Fault] = field(default_factory=list)
    num_records: int = 0
    journal_hash: str = ""
    telemetry: Telemetry = field(default_factory=Telemetry)
    tally: Tally = field(default_factory=Tally)
    changes: list[ChangeRecord] = field(default_factory=list)

    @property
    def failure(self) -> str | None:
        """Why it counts as failed, None where it does not."""
        return "too many faults ended the run" if self.end_reason == "faults" else self.tally.failure


def read_run(run_dir: str | Path) -> RunOutcomes:
    """Return the outcomes of a run folder; verifies the hash chain on the way.

    Raises:
        SwarmError: there is no journal, or it is damaged or empty.
    """
    run_dir = Path(run_dir)
    path = run_dir / JOURNAL_NAME
    records = read_records(path)
    header = next(records, None)
    if header is None or header["kind"] != "header":
        raise SwarmError(f"{path} has no header: the run died before it began; delete the folder to start anew")
    run = RunOutcomes(run_dir, header["config"], header["checkpoints"], num_records=1, journal_hash=header["hash"])
    running: dict[int, PuzzleOutcome] = {}
    for record in records:
        try:
            _take(record, run, running)
        except KeyError as error:
            raise JournalError(f"{path}, line {run.num_records + 1}: episode {error} is not running") from error
    run.running = list(running.values())
    _add_telemetry(run.telemetry, run_dir / TELEMETRY_NAME)
    return run


def _take(record: Record, run: RunOutcomes, running: dict[int, PuzzleOutcome]) -> None:
    match record["kind"]:
        case "episode":
            number = record["episode"]
            running[number] = PuzzleOutcome(number, record["seed"], record["goal"], record["state"])
        case "tick":
            _count_tick(running[record["episode"]], record, run)
        case "episode_end":
            puzzle = running.pop(record["episode"])
            puzzle.solved, puzzle.reason, puzzle.rounds = record["solved"], record["reason"], record["ticks"]
            puzzle.tokens, puzzle.calls, puzzle.actions = record["tokens"], record["calls"], record["actions"]
            puzzle.solution = record.get("solution", "")
            run.puzzles.append(puzzle)
        case "change":
            run.changes.append(record)
        case "end":
            run.end_reason, run.num_faults = record["reason"], record["faults"]
    run.num_records += 1
    run.journal_hash = record["hash"]
    run.tally.take(record)


def _count_tick(puzzle: PuzzleOutcome, record: Tick, run: RunOutcomes) -> None:
    puzzle.rounds += 1
    spent = record["spent"]
    puzzle.tokens, puzzle.calls, puzzle.actions = spent["tokens"], spent["calls"], spent["actions"]
    puzzle.reward += sum(entry["reward"] for entry in record["agents"]) / run.config["agents"]["count"]
    for entry in record["agents"]:
        puzzle.agent_prompt_tokens += entry["prompt_tokens"]
        puzzle.agent_generated_tokens += entry["generated_tokens"]
        puzzle.invalid_actions += not entry["valid"]
        puzzle.largest_call = max(puzzle.largest_call, entry["prompt_tokens"] + entry["generated_tokens"])
    if (coordinator := record["coordinator"]) is not None:
        read, wrote = coordinator["prompt_tokens"], coordinator["generated_tokens"]
        puzzle.coordinator_prompt_tokens += read
        puzzle.coordinator_generated_tokens += wrote
        # A record sums the coordinator's calls of a tick; their mean, rounded up, stands for the largest.
        puzzle.largest_call = max(puzzle.largest_call, -(-(read + wrote) // max(1, coordinator["calls"])))
    faults = [Fault(record["episode"], record["tick"], who, fault) for who, fault in faults_in(record)]
    run.num_faults += len(faults)
    run.faults += faults[: MAX_FAULTS_KEPT - len(run.faults)]


def _add_telemetry(telemetry: Telemetry, path: Path) -> None:
    """Sum up the telemetry; it is best effort, so a fact that lacks its numbers is skipped."""
    for fact in read_telemetry(path):
        match fact["kind"]:
            case "commit":
                telemetry.wall_s += _number(fact.get("seconds"))
                telemetry.agent_steps += int(_number(fact.get("agent_steps")))
            case "resume":
                telemetry.resumes += 1
            case "host_death":
                telemetry.host_deaths.append(f"host {fact.get('host', '?')}: {fact.get('detail', '')}")
            case "host_ready" if telemetry.host_deaths:
                telemetry.host_deaths[-1] += f", recovered after {_number(fact.get('recovered_s')):.2f} s"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
