"""A run of a thousand calls at an endpoint that comes and goes is the run that nobody disturbed."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes.endpoint import Endpoint, Handler, Reply, busy, hangs_up, late, resets, says, writes
from fakes.endpoint_model import HELLO

from swarm.config.experiment import ExperimentConfig
from swarm.errors import Outage
from swarm.record.journal import read_records
from swarm.run.runner import RunOutcome, resume_run, start_run

pytestmark = pytest.mark.slow

Experiment = Callable[..., tuple[ExperimentConfig, Path]]
MAX_STOPS = 200


def answer(handler: Handler) -> None:
    """Answer as the request alone decides, and report what it cost."""
    payload = handler.asked.payload
    luck = random.Random(f"{payload['seed']} {payload['messages']}")
    directed = {name: f"try {luck.randint(1, 99)}" for name in _agents(payload)}
    text = json.dumps(directed) if directed else f"{luck.randint(1, 9)}+{luck.randint(1, 9)}"
    usage = {"prompt_tokens": luck.randint(40, 60), "completion_tokens": luck.randint(5, 9)}
    says(text, body={"usage": usage})(handler)


def _agents(payload: dict[str, Any]) -> list[str]:
    """Return whom the coordinator shall direct, nobody where an agent is asked."""
    form = payload.get("response_format", {}).get("json_schema", {})
    return list(form.get("schema", {}).get("properties", {}))


def cut(handler: Handler) -> None:
    """Promise an answer, and hang up in the middle of it."""
    writes(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n", b'{"choices": [{"m')(
        handler
    )


TROUBLES: tuple[Reply, ...] = (
    *(busy(503), busy(429, 0.01), busy(502), hangs_up, resets, cut),
    *(late(0.02, answer), late(0.05, busy(504)), late(0.02, resets)),
)


class Moody:
    """Answers two thirds of all requests."""

    def __init__(self) -> None:
        self.luck, self.lock = random.Random(5), threading.Lock()

    def __call__(self, handler: Handler) -> None:
        with self.lock:
            reply = self.luck.choice(TROUBLES) if self.luck.random() < 1 / 3 else answer
        reply(handler)


@contextmanager
def comes_and_goes(endpoint: Endpoint) -> Iterator[None]:
    """Have an endpoint refuse connections a third of the time, and cut those that it has."""
    over = threading.Event()

    def switch() -> None:
        while not over.wait(0.2):
            endpoint.stop()
            over.wait(0.1)
            endpoint.start()

    thread = threading.Thread(target=switch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def to_the_end(run_dir: Path, start: Callable[[], RunOutcome]) -> tuple[RunOutcome, int]:
    """Start a run and resume it until it is over; return how often it stopped, too."""
    for stops in range(MAX_STOPS):
        try:
            return (resume_run(run_dir) if stops else start()), stops
        except Outage:
            assert not any(
                "fault" in json.dumps(r) for r in read_records(run_dir / "journal.jsonl") if r["kind"] == "tick"
            )
    raise AssertionError("it never ended")


@pytest.mark.parametrize("patience_s", [60.0, 0.05])
def test_a_thousand_calls_at_an_endpoint_that_comes_and_goes(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    """Waiting long enough, and stopping and resuming: both end with the journal of an undisturbed run."""
    monkeypatch.setattr("swarm.backends.openai.BACKOFF_S", 0.01)
    monkeypatch.setattr("swarm.backends.openai.MAX_BACKOFF_S", 0.05)
    # The start check asks once for real; a run that is resumed while nobody answers is another test's.
    monkeypatch.setattr("swarm.backends.openai.OpenAIModel.check", lambda self, probe: ("pattern", HELLO))
    with Endpoint() as endpoint:
        engine = {"kind": "openai", "model": "tiny", "url": endpoint.url, "connections": 16}
        config, path = experiment(
            world={"id": "numbers-v0"},
            agents={"count": 9, "engine": engine},
            coordinator={"kind": "model", "engine": engine},
            budget={"tokens": None, "ticks": 10},
            faults={"max_faults": 0, "patience_s": patience_s},
            episodes=13,
            concurrency=5,
        )
        endpoint.reply = answer
        whole = start_run(config, path, tmp_path / "whole")
        asked = len(endpoint.asked)
        endpoint.reply = Moody()
        with comes_and_goes(endpoint):
            outcome, stops = to_the_end(tmp_path / "run", lambda: start_run(config, path, tmp_path / "run"))
    assert asked >= 1000
    assert len(endpoint.asked) > 1.2 * 2 * asked  # it was in fact disturbed
    assert (stops > 0) == (patience_s < 1)
    assert (outcome.journal_hash, outcome.faults) == (whole.journal_hash, 0)
    assert not (tmp_path / "run" / "open_tick.jsonl").exists()
