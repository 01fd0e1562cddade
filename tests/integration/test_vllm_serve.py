"""Engine `openai` against a real server: `vllm serve` on a CPU with real weights, and a key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.endpoint_model import PROBE
from fakes.real_weights import MODEL, needs_smollm2, needs_vllm
from fakes.vllm_server import serving

from swarm.backends.models import find_model, open_model
from swarm.backends.openai import OpenAIModel
from swarm.backends.protocol import Structure, TextRequest
from swarm.compare.arms import with_settings
from swarm.config.engine import OpenAIEngine
from swarm.config.load import load_experiment
from swarm.errors import SwarmError
from swarm.record.journal import read_records
from swarm.run.runner import start_run

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "puzzle_vllm.yaml"
KEY = "a-key-of-this-test-alone"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    needs_vllm,
    needs_smollm2,
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Serve the model until the tests are done."""
    with serving(open_model(MODEL, find_model(MODEL, Path())).path, "smollm2", KEY) as found:
        yield found


@pytest.fixture
def endpoint(url: str) -> OpenAIModel:
    return OpenAIModel("smollm2", OpenAIEngine(model="smollm2", url=url, key_env="K"), {"K": KEY})


def ask(prompt: str, **changes: object) -> TextRequest:
    return TextRequest(prompt, **{"system": "", "seed": 1, "max_new_tokens": 16, "temperature": 0.0, **changes})  # type: ignore[arg-type]


def test_answers_and_what_they_cost_are_those_of_the_same_weights_here(endpoint: OpenAIModel) -> None:
    from swarm.backends.transformers import TransformersModel

    assert endpoint.check(PROBE)[0] == "pattern"
    asked = [ask(prompt) for prompt in ("What is the capital of France?", "Name three colours.", "Say hello.")]
    asked += [ask("Once upon a time", system=None), ask("Write a list.", stop=("2",), max_new_tokens=40)]
    here = TransformersModel(open_model(MODEL, find_model(MODEL, Path()))).generate(asked)
    there = endpoint.generate(asked)
    assert "Paris" in there[0].text
    assert [r.text for r in there] == [r.text for r in here]
    assert [(r.prompt_tokens, r.finish) for r in there] == [(r.prompt_tokens, r.finish) for r in here]
    assert [r.generated_tokens for r in there] == [r.generated_tokens for r in here]


def test_forms_are_kept(endpoint: OpenAIModel) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    forms = [
        Structure(regex="(?:left|right) [0-9]{2}"),
        Structure(json_schema=schema),
        Structure(choices=("yes", "no")),
    ]
    matched, fitted, chosen = endpoint.generate([ask("Which?", structure=form, temperature=1.0) for form in forms])
    assert re.fullmatch("(?:left|right) [0-9]{2}", matched.text)
    assert isinstance(json.loads(fitted.text)["n"], int)
    assert chosen.text in ("yes", "no")


def test_a_wrong_key_or_name_is_one_line(url: str) -> None:
    with pytest.raises(SwarmError, match="refuses the key: check what is in K"):
        OpenAIModel("smollm2", OpenAIEngine(model="smollm2", url=url, key_env="K"), {"K": "another"}).check(PROBE)
    with pytest.raises(SwarmError, match=r"knows no model 'smollm'.*; it offers smollm2"):
        OpenAIModel("smollm", OpenAIEngine(model="smollm2", url=url, key_env="K"), {"K": KEY}).check(PROBE)


@pytest.mark.ray
def test_a_swarm_is_steered_through_the_server_and_its_key_is_written_nowhere(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_KEY", KEY)
    engine = {"kind": "openai", "model": "smollm2", "url": url, "key_env": "SERVER_KEY"}
    changes = {"coordinator.engine": engine, "episodes": 1, "budget.tokens": 2000}
    config = with_settings(load_experiment(EXPERIMENT), changes, "test")
    outcome = start_run(config, EXPERIMENT, tmp_path / "run")
    assert (outcome.reason, outcome.faults) == ("finished", 0)
    ticks = [r for r in read_records(tmp_path / "run" / "journal.jsonl") if r["kind"] == "tick" and r["coordinator"]]
    asked = [tick["coordinator"] for tick in ticks if tick["coordinator"]["calls"]]
    assert asked
    assert all(each["prompt_tokens"] > 200 for each in asked)  # what opens the chat are some 150, the rest is reports
    assert not [file for file in (tmp_path / "run").rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]
