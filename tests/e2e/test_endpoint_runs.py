"""Runs at endpoints on the real command line: outages pass or stop a run that goes on, and journals do not tell."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.endpoint import Endpoint, Handler, busy, fails, hangs_up, lists, says

pytestmark = pytest.mark.process

Ended = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def swarm(start: Callable[..., subprocess.Popen[str]]) -> Ended:
    """Return a function that starts a command as `start` does, and waits for its end."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        run = start(*arguments, **environment)
        out, said = run.communicate(timeout=120)
        return subprocess.CompletedProcess(run.args, run.returncode, out, said)

    return call


def test_a_run_that_outages_disturbed_and_a_refusal_stopped_has_the_journal_of_one_that_nothing_disturbed(
    endpoint: Endpoint, swarm: Ended, tmp_path: Path
) -> None:
    """Failed at e48e5b3: loading cost the first episode, cut connections were charged, and 402 ended the run for good.

    So did a model that is not listed, and a proxy in the environment.
    """

    def answer(handler: Handler) -> None:
        says(f"1+{handler.asked.payload['seed'] % 9}")(handler)

    endpoint.reply, endpoint.models = answer, lists("*")
    whole = swarm("run", "x.yaml", "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    assert "endpoint      14 tokens of trial requests at the start, not charged\n" in whole.stdout

    endpoint.replies += [
        busy(503),
        busy(503),
        answer,
        answer,
        hangs_up,
        busy(429, 0.1),
        answer,
        fails(402, "Buy credits"),
    ]
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    stopped = swarm("run", "x.yaml", "--out", "run", **proxies, NO_PROXY="", no_proxy="")
    assert stopped.returncode == 1
    waits, error = stopped.stderr.splitlines()
    assert waits.startswith(f"waiting for the endpoint {endpoint.url}: HTTP 503: Loading")
    assert re.match(
        r"error: the endpoint .* has no credit left .*Buy credits.*; continue with: swarm resume run$", error
    )

    resumed = swarm("resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    assert "tries got no answer: " in resumed.stdout
    journals = [(tmp_path / name / "journal.jsonl").read_bytes() for name in ("whole", "run")]
    assert journals[0] == journals[1]
    assert json.loads(journals[0].splitlines()[-1])["reason"] == "finished"


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (
            fails(
                400,
                "Unsupported parameter: 'max_tokens'. " + "Blah. " * 60 + "Use 'max_completion_tokens'.",
                param="max_tokens",
            ),
            r"error: .*refuses the request: .*Use 'max_completion_tokens'\.; set engine.fields: {max_tokens: ",
        ),
        (
            fails(429, "You exceeded your quota", code="insufficient_quota"),
            "error: .* has no credit left .*You exceeded",
        ),
        (fails(404, "No such model"), r"error: .*knows no model 'tiny'.*; it offers tinny; did you mean tinny\?"),
    ],
)
def test_what_an_endpoint_refuses_at_the_start_is_one_line_and_no_run(
    endpoint: Endpoint, swarm: Ended, tmp_path: Path, reply: object, line: str
) -> None:
    """Failed at e48e5b3: each call was a fault of the run."""
    endpoint.reply, endpoint.models = reply, lists("tinny")  # type: ignore[assignment]
    done = swarm("run", "x.yaml")
    assert done.returncode == 2
    assert re.match(line, done.stderr)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
