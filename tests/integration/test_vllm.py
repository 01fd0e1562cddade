"""Real vLLM on a CPU with real weights: one engine in a Ray actor, asked by coordinator and agents."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fakes.real_weights import MODEL, needs_smollm2, needs_vllm

from swarm.backends.models import find_model, open_model
from swarm.backends.protocol import Structure, TextRequest
from swarm.config.engine import VllmEngine
from swarm.errors import SwarmError

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "puzzle_vllm.yaml"
LINES = "(?:a0: (?:go|stay)\n)?(?:a1: (?:go|stay) [0-9]{1,3}\n)?"

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    needs_vllm,
    needs_smollm2,
]


@pytest.fixture(scope="module")
def events() -> list[str]:
    return []


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a LoRA adapter of random numbers, large enough to change what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from ulm.hf.pretrained import fetch

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(fetch(MODEL), dtype=torch.float32)
    shape = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    folder = tmp_path_factory.mktemp("adapter")
    get_peft_model(base, shape).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def engine(events: list[str], adapter: Path) -> Iterator[Any]:
    from swarm.actors.pool import start_ray
    from swarm.actors.vllm_engine import VllmModel, VllmServer

    start_ray()
    settings = VllmEngine(model="m", dtype="float32", eager=True, max_length=512)
    folder = open_model(MODEL, find_model(MODEL, Path()))
    model = VllmModel(VllmServer(folder, settings, [adapter], lambda kind, **facts: events.append(kind)))
    yield model
    model.close()


def ask(prompt: str = "Which way?", **changes: Any) -> TextRequest:
    return TextRequest(prompt, **{"system": "", "seed": 1, "max_new_tokens": 24, "temperature": 1.0, **changes})


def test_answers_keep_to_their_structure_and_cost_what_the_tokenizer_says(engine: Any) -> None:
    requests = [ask(f"Question {n}", seed=n, structure=Structure(regex=LINES)) for n in range(64)]
    results = engine.generate(requests)
    assert all(re.fullmatch(LINES, result.text) for result in results)
    assert len({result.text for result in results}) > 10
    assert [result.prompt_tokens for result in results] == engine.count_prompts(requests)
    for result in results:  # a sampled text may be made of more tokens than the tokenizer would take for it
        assert result.generated_tokens >= engine.count_tokens([result.text])[0] + (result.finish == "end")


def test_more_long_prompts_than_one_step_can_read_are_answered(engine: Any, events: list[str]) -> None:
    """On CPUs vLLM 0.32 dies of a request that samples with a seed if a step reads only a part of its prompt."""
    before = list(events)
    requests = [ask(f"{n} " + "and so it went on. " * 60, seed=n, max_new_tokens=4) for n in range(32)]
    assert sum(engine.count_prompts(requests)) > 8000
    assert [result.fault for result in engine.generate(requests)] == [None] * len(requests)
    assert events == before  # none died


def test_a_model_that_vllm_cannot_start_is_one_line_with_its_reason(engine: Any, tmp_path: Path) -> None:
    from swarm.actors.vllm_engine import VllmServer

    for file in Path(find_model(MODEL, Path())).iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    folder = open_model("mine", tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["NobodyForCausalLM"]}))
    with pytest.raises(SwarmError, match=r"^vLLM cannot be started with model mine: .*NobodyForCausalLM") as caught:
        VllmServer(folder, VllmEngine(model="m", dtype="float32", eager=True, max_length=512))
    assert len(str(caught.value).splitlines()) == 1


def test_choices_schemas_and_grammars_are_kept_too(engine: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    structures = [
        Structure(choices=("left", "right")),
        Structure(json_schema=schema),
        Structure(grammar='root ::= "yes"'),
    ]
    chosen, fitted, yes = engine.generate([ask(structure=structure) for structure in structures])
    assert chosen.text in ("left", "right")
    assert fitted.text.lstrip().startswith("{")
    assert yes.text == "yes"


def test_greedy_answers_are_those_of_transformers_and_of_our_own_core(engine: Any) -> None:
    from swarm.backends.transformers import TransformersModel
    from swarm.backends.ulm import UlmModel
    from ulm.decode.engine import Engine
    from ulm.hf.llama import from_llama

    folder = open_model(MODEL, find_model(MODEL, Path()))
    decoder, tokenizer = from_llama(folder.path)
    assert tokenizer is not None
    prompts = ["What is the capital of France?", "Name three colours.", "Say hello."]
    requests = [ask(prompt, temperature=0.0) for prompt in prompts]
    answers = [result.text for result in engine.generate(requests)]
    assert "Paris" in answers[0]
    assert [r.text for r in TransformersModel(folder).generate(requests)] == answers
    assert [r.text for r in UlmModel(Engine(decoder, tokenizer), folder.chat).generate(requests)] == answers


def test_an_adapter_is_per_request_and_says_what_it_says_in_transformers(engine: Any, adapter: Path) -> None:
    from swarm.actors.vllm_engine import VllmModel
    from swarm.backends.transformers import TransformersModel

    requests = [ask(prompt, temperature=0.0, max_new_tokens=8) for prompt in ("Name three colours.", "Say hello.")]
    with ThreadPoolExecutor(2) as threads:  # in one batch
        tuned = threads.submit(VllmModel(engine.server, adapter).generate, requests)
        bare = threads.submit(engine.generate, requests)
        tuned_said, bare_said = ([r.text for r in job.result()] for job in (tuned, bare))
    folder = open_model(MODEL, find_model(MODEL, Path()))
    assert tuned_said == [r.text for r in TransformersModel(folder, adapter=adapter).generate(requests)]
    assert bare_said == [r.text for r in TransformersModel(folder).generate(requests)]
    assert tuned_said != bare_said


def test_requests_from_many_threads_share_the_engine(engine: Any) -> None:
    alone = engine.generate([ask("One", temperature=0.0)])[0].text
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: engine.generate([ask("One", seed=n, temperature=0.0)])[0].text, range(8)))
    assert answers == [alone] * 8


def test_what_takes_too_long_is_aborted_and_charged(engine: Any) -> None:
    (late,) = engine.generate([ask("Tell a long story.", max_new_tokens=400)], time.monotonic() + 0.3)
    assert late.fault is not None
    assert (late.text, late.generated_tokens) == ("", 400)
    assert engine.generate([ask(max_new_tokens=2)])[0].fault is None


def test_a_request_that_does_not_fit_is_its_own_fault(engine: Any) -> None:
    long, short = engine.generate([ask("word " * 600), ask(max_new_tokens=2)])
    assert "the model 512" in str(long.fault)
    assert short.fault is None


def test_a_killed_engine_is_replaced_and_asked_again(engine: Any, events: list[str]) -> None:
    request = ask("The capital of France is", system=None, temperature=0.0, max_new_tokens=4)
    (before,) = engine.generate([request])
    os.kill(engine.server.pid, signal.SIGKILL)
    assert engine.generate([request]) == [before]
    assert events == ["engine_start", "engine_death", "engine_ready"]


def test_a_run_whose_engine_is_killed_ends_with_the_journal_of_one_that_nobody_disturbed(tmp_path: Path) -> None:
    quiet, run = tmp_path / "quiet", tmp_path / "run"
    swarm = [sys.executable, "-m", "swarm.cli"]
    less = ["--set", "episodes=1", "--set", "budget.tokens=2500", "--set", "coordinator.engine.dtype=float32"]

    def start(out: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*swarm, "run", str(EXPERIMENT), "--no-live", "--out", str(out), *less])

    assert start(quiet).wait(600) == 0
    process = start(run)
    try:
        wait_for(lambda: "tick" in kinds(run), process)
        started = next(json.loads(line) for line in telemetry(run) if '"engine_start"' in line)
        os.kill(started["pid"], signal.SIGKILL)
        assert process.wait(600) == 0
    finally:
        process.kill()
    assert any('"engine_death"' in line for line in telemetry(run))
    assert (run / "journal.jsonl").read_bytes() == (quiet / "journal.jsonl").read_bytes()
    replayed = subprocess.run([*swarm, "replay", str(run), "--check"], capture_output=True, text=True, check=False)
    assert replayed.returncode == 0, replayed.stderr


def telemetry(run: Path) -> list[str]:
    return (run / "telemetry.jsonl").read_text().splitlines()


def kinds(run: Path) -> list[str]:
    journal = run / "journal.jsonl"
    if not journal.exists():
        return []
    return re.findall(r'"kind":\s*"(\w+)"', journal.read_text())


def wait_for(condition: Any, process: subprocess.Popen[bytes], limit_s: float = 400.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)
