"""Engine `openai` against a real server: `vllm serve` on a CPU with real weights, and a key."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from real_weights import MODEL, needs_smollm2, needs_vllm

from swarm.backends.models import find_model, open_model
from swarm.backends.openai import OpenAIModel
from swarm.backends.protocol import Structure, TextRequest
from swarm.config import BackendConfig
from swarm.errors import SwarmError

KEY = "a-key-of-this-test-alone"
START_S = 300.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    needs_vllm,
    needs_smollm2,
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the model until the tests are done."""
    folder = open_model(MODEL, find_model(MODEL, Path())).path
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "VLLM_API_KEY": KEY,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "2",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    options = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "16"]
    # The program `vllm` of vllm-cpu 0.32.0 asks for the version of a package `vllm` and ends; `serve` starts this.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, *options]
    command += ["--served-model-name", "smollm2"]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as file:
        command += ["--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
        try:
            deadline = time.monotonic() + START_S
            while not _answers(f"http://127.0.0.1:{port}/health"):
                assert server.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            if server.poll() is None:
                os.killpg(server.pid, 15)
                server.wait(30)


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=2).status_code == 200
    except requests.RequestException:
        return False


@pytest.fixture
def endpoint(url: str) -> OpenAIModel:
    return OpenAIModel("smollm2", BackendConfig(url=url, key_env="K"), {"K": KEY})


def ask(prompt: str, **changes: object) -> TextRequest:
    return TextRequest(prompt, **{"system": "", "seed": 1, "max_new_tokens": 16, "temperature": 0.0, **changes})  # type: ignore[arg-type]


def test_answers_and_what_they_cost_are_those_of_the_same_weights_here(endpoint: OpenAIModel) -> None:
    from swarm.backends.transformers import TransformersModel

    endpoint.check()
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
        OpenAIModel("smollm2", BackendConfig(url=url, key_env="K"), {"K": "another"}).check()
    with pytest.raises(SwarmError, match="has no model 'smollm'; it offers smollm2"):
        OpenAIModel("smollm", BackendConfig(url=url, key_env="K"), {"K": KEY}).check()
