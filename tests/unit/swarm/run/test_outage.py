"""Runs whose models are away for a while, or for good: they stop resumably, and nothing is paid twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.paid_model import Till
from fakes.scripted_run import KilledError

from swarm.backends.protocol import TextRequest, TextResult
from swarm.compare.runs import compare_arms
from swarm.config.experiment import CompareConfig, ExperimentConfig, FaultsConfig
from swarm.errors import Outage, SwarmError, WorkFailedError
from swarm.record.journal import JournalWriter, read_records
from swarm.run.runner import RunOutcome, resume_run, start_run
from swarm.view.replay import replay_run

Experiment = Callable[..., tuple[ExperimentConfig, Path]]
ENDPOINT = {"kind": "openai", "model": "m", "url": "http://127.0.0.1:9/v1"}
DIRECTED = {"kind": "model", "engine": ENDPOINT}


@pytest.fixture
def till(monkeypatch: pytest.MonkeyPatch) -> Till:
    till = Till()
    monkeypatch.setattr("swarm.backends.openai.OpenAIModel", till.model)
    till.answer = lambda request: '{"a0": "try seven"}' if request.structure else "7+3"
    return till


@pytest.fixture
def made(experiment: Experiment) -> tuple[ExperimentConfig, Path]:
    agents = {"count": 3, "engine": ENDPOINT}
    return experiment(
        agents=agents,
        coordinator=DIRECTED,
        world={"id": "numbers-v0"},
        budget={"tokens": None, "ticks": 4},
        concurrency=2,
    )


def away_at(*numbers: int, error: BaseException | None = None) -> Callable[[int], None]:
    """Be away once before each of these answers."""
    left = set(numbers)

    def before(number: int) -> None:
        if number in left:
            left.remove(number)
            raise error or Outage("nobody answers for 600 s")

    return before


def telemetry(run_dir: Path) -> list[str]:
    return [json.loads(line)["kind"] for line in (run_dir / "telemetry.jsonl").read_text().splitlines()]


def to_the_end(run_dir: Path, start: Callable[[], RunOutcome], error: type[BaseException]) -> RunOutcome:
    """Start a run and resume it until it is over."""
    try:
        return start()
    except error:
        return to_the_end(run_dir, lambda: resume_run(run_dir), error)


def test_an_outage_stops_a_run_as_ctrl_c_does(till: Till, made: Any, tmp_path: Path) -> None:
    """Failed at e48e5b3: the agents were at fault, the run ended by `faults` and could never be resumed."""
    till.before = away_at(10)
    with pytest.raises(Outage, match="nobody answers for 600 s"):
        start_run(*made, tmp_path / "run")
    records = list(read_records(tmp_path / "run" / "journal.jsonl"))
    assert records[-1]["kind"] in ("tick", "episode")
    assert not any("fault" in json.dumps(record) for record in records if record["kind"] == "tick")
    assert telemetry(tmp_path / "run")[-1] == "outage"
    assert replay_run(tmp_path / "run", check=True).finished is False


@pytest.mark.parametrize("error", [Outage, KilledError, KeyboardInterrupt])
def test_whatever_ends_a_run_no_answer_is_paid_twice(
    till: Till, made: Any, tmp_path: Path, error: type[BaseException]
) -> None:
    """Failed at e48e5b3: the answers of the open tick were lost, and paid again. For agents and coordinator alike."""
    whole = start_run(*made, tmp_path / "whole")
    paid = till.paid.copy()
    till.paid.clear()
    till.before = away_at(*range(paid.total()), error=error("away"))
    run_dir = tmp_path / "run"
    outcome = to_the_end(run_dir, lambda: start_run(*made, run_dir), error)
    assert till.paid == paid
    assert set(paid.values()) == {1}
    assert outcome.journal_hash == whole.journal_hash
    assert not (run_dir / "open_tick.jsonl").exists()


def test_a_kill_between_two_records_of_one_tick_costs_no_answer(
    till: Till, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two episodes are asked together, and one of them is on record already."""
    whole = start_run(*made, tmp_path / "whole")
    paid = till.paid.copy()
    till.paid.clear()
    written, real = 0, JournalWriter.append

    def append(self: JournalWriter, record: Any) -> None:
        nonlocal written
        real(self, record)
        written += 1
        if written % 2:
            raise KilledError

    monkeypatch.setattr(JournalWriter, "append", append)
    run_dir = tmp_path / "run"
    outcome = to_the_end(run_dir, lambda: start_run(*made, run_dir), KilledError)
    assert (till.paid, outcome.journal_hash) == (paid, whole.journal_hash)


def test_answers_of_ticks_on_record_are_never_used_again(till: Till, made: Any, tmp_path: Path) -> None:
    """A kill between the record of a tick and the end of what was kept for it leaves the latter behind."""
    whole = start_run(*made, tmp_path / "whole")
    till.before = away_at(till.paid.total() + 11, error=KilledError())
    run_dir = tmp_path / "run"
    with pytest.raises(KilledError):
        start_run(*made, run_dir)
    stale = (run_dir / "open_tick.jsonl").read_bytes()
    till.before = away_at(till.paid.total() + 4, error=KilledError())
    with pytest.raises(KilledError):
        resume_run(run_dir)
    (run_dir / "open_tick.jsonl").write_bytes(stale)
    assert replay_run(run_dir, check=True).finished is False
    assert resume_run(run_dir).journal_hash == whole.journal_hash


@pytest.mark.thorough
def test_a_comparison_that_was_stopped_goes_on_by_the_same_call(till: Till, made: Any, tmp_path: Path) -> None:
    """Failed at e48e5b3: the arm ended by `faults`, and was broken for good."""
    config, path = made
    compare = CompareConfig(arms=["solo", "swarm"], seeds=[1], episodes=3)
    budget = config.budget.model_copy(update={"tokens": 90})
    config = config.model_copy(update={"budget": budget, "compare": compare})
    compare_arms(config, path, tmp_path / "whole", echo=lambda line: None)
    paid = till.paid.copy()
    till.paid.clear()
    till.before = away_at(5, paid.total() - 1)
    for _ in range(2):
        with pytest.raises(Outage):
            compare_arms(config, path, tmp_path / "out", echo=lambda line: None)
    compare_arms(config, path, tmp_path / "out", echo=lambda line: None)
    assert till.paid == paid


def failing(who: str) -> Callable[[TextRequest], str | TextResult]:
    def answer(request: TextRequest) -> str | TextResult:
        if (request.structure is not None) == (who == "coordinator"):
            return TextResult.failed(f"HTTP 400: no {request.seed % 89}", 5)
        return "7+3" if request.structure is None else "{}"

    return answer


@pytest.mark.parametrize("who", ["agents", "coordinator"])
def test_a_run_in_which_no_call_succeeded_has_failed(till: Till, made: Any, tmp_path: Path, who: str) -> None:
    """Failed at e48e5b3: twelve of twelve calls refused, fewer than max_faults, were `finished` with exit code 0."""
    config, path = made
    config = config.model_copy(update={"faults": FaultsConfig(max_faults=100)})
    till.answer = failing(who)
    outcome = start_run(config, path, tmp_path / "run")
    assert (outcome.reason, outcome.exit_code) == ("finished", 1)
    assert outcome.failure == f"no call of the {who} succeeded"
    assert outcome.tally.worst.startswith(f"{outcome.faults} x HTTP 400: no ")
    assert resume_run(tmp_path / "run").exit_code == 1  # the same where it is only reported


@pytest.mark.thorough
def test_a_comparison_in_which_no_call_of_an_arm_succeeded_fails(till: Till, made: Any, tmp_path: Path) -> None:
    """Failed at e48e5b3: its arms were compared as if agents had been asked."""
    config, path = made
    compare = CompareConfig(arms=["solo"], seeds=[1], episodes=2)
    faults, budget = FaultsConfig(max_faults=100), config.budget.model_copy(update={"tokens": 90})
    config = config.model_copy(update={"faults": faults, "budget": budget, "compare": compare})
    till.answer = failing("agents")
    with pytest.raises(
        WorkFailedError, match=r"no call of the agents succeeded in .*solo-s1 \(most often \d+ x HTTP 400"
    ):
        compare_arms(config, path, tmp_path / "out", echo=lambda line: None)


def test_thoughts_are_on_record_where_that_is_asked_for(till: Till, made: Any, tmp_path: Path) -> None:
    config, path = made
    till.answer = lambda r: TextResult("{}" if r.structure else "7+3", 5, 9, "end", thoughts="hm")
    for keep in (False, True):
        run_dir = tmp_path / f"{keep}"
        start_run(config.model_copy(update={"keep_thoughts": keep}), path, run_dir)
        ticks = [record for record in read_records(run_dir / "journal.jsonl") if record["kind"] == "tick"]
        entries = [entry for tick in ticks for entry in (tick["coordinator"], *tick["agents"]) if entry]
        assert {entry.get("thoughts") for entry in entries} == {"hm" if keep else None}
        assert replay_run(run_dir, check=True).finished


def test_an_endpoint_that_is_down_at_the_start_is_a_mistake_and_at_resuming_an_outage(
    till: Till, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    till.before = away_at(10)
    with pytest.raises(Outage):
        start_run(*made, tmp_path / "run")

    def down(*_: object) -> None:
        raise Outage("no endpoint at x")

    monkeypatch.setattr("swarm.run.runner.load_models", down)
    with pytest.raises(Outage, match="no endpoint"):
        resume_run(tmp_path / "run")
    with pytest.raises(SwarmError, match="no endpoint") as caught:
        start_run(*made, tmp_path / "new")
    assert not isinstance(caught.value, Outage)
    assert not (tmp_path / "new").exists()
