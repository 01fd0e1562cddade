"""What the long-term memory costs in decoding: the same model with a full memory and, as many parameters, without one.

Both sides continue the same prompts of 400 tokens by 96 tokens, greedily; reading the prompts is timed apart, by asking
for a single token. Sides take turns in one run, and the ratio of medians counts; on a machine that others disturb the
ratio of the fastest rounds says more.

    python tests/benchmarks/bench_ltm_decode.py --sizes 1m 4m --batches 1 8 64 --rounds 7 --json ltm_decode.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ulm.config import preset
from ulm.generation import Engine, GenerationRequest
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer

PROMPT_BYTES, NEW_TOKENS = 400, 96
WANTED = 1.15


def engines(size: str, segment: int) -> dict[str, Engine]:
    """Engines of the pair; the memory is open, so that it is read, and random text fills it."""
    tokenizer = Tokenizer.bytes()
    tokenizer.eot_id = -1  # no text ends before its time
    built = {}
    for name in ("gpt", "revena"):
        model = Decoder(preset(f"{name}-{size}", 4096, window=128, ltm={"segment": segment, "similarity": 0.3}))
        with torch.no_grad():
            model.embed.weight[tokenizer.vocab_size :] = 0.0  # never the most likely: the tokenizer lacks them
            for reader in model.ltm.readers if model.ltm is not None else ():
                reader.gate.fill_(0.5)  # type: ignore[union-attr,operator]
        built[name] = Engine(model, tokenizer)
    return built


def seconds(engine: Engine, prompts: list[str], tokens: int) -> float:
    requests = [GenerationRequest(prompt, 0, tokens, 0.0) for prompt in prompts]
    start = time.perf_counter()
    engine.generate(requests)
    return time.perf_counter() - start


def measure(size: str, batch: int, rounds: int, segment: int) -> dict[str, Any]:
    sides = engines(size, segment)
    generator = np.random.Generator(np.random.PCG64(0))
    # Prompts differ in length, so that segments do not end for all rows at once.
    prompts = [
        "".join(map(chr, generator.integers(97, 123, PROMPT_BYTES + int(generator.integers(0, 32)))))
        for _ in range(batch)
    ]
    steps: dict[str, list[float]] = {name: [] for name in sides}
    wholes: dict[str, list[float]] = {name: [] for name in sides}
    reads: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, engine in sides.items():
            read = seconds(engine, prompts, 1)
            whole = seconds(engine, prompts, NEW_TOKENS + 1)
            if number:
                reads[name].append(read)
                wholes[name].append(whole)
                steps[name].append(whole - read)
    fastest = {name: min(wholes[name]) - min(reads[name]) for name in sides}
    found = {
        "size": size,
        "batch": batch,
        "tokens_per_s": {name: batch * NEW_TOKENS / statistics.median(values) for name, values in steps.items()},
        "step_ratio": statistics.median(steps["revena"]) / statistics.median(steps["gpt"]),
        "step_ratio_fastest": fastest["revena"] / fastest["gpt"],
        "prompt_ratio": statistics.median(reads["revena"]) / statistics.median(reads["gpt"]),
    }
    print(f"{size}, batch {batch}: decoding {found['step_ratio']:.3f}x, in the fastest rounds "
          f"{found['step_ratio_fastest']:.3f}x (target {WANTED}), prompts {found['prompt_ratio']:.2f}x, "
          f"{found['tokens_per_s']} tokens/s", flush=True)  # fmt: skip
    return found


@pytest.mark.bench
def test_memory_costs_little_in_decoding() -> None:
    torch.set_num_threads(1)
    for batch in (1, 8, 64):
        assert measure("1m", batch, 5, 32)["step_ratio"] <= WANTED


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["1m", "4m"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--segment", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = [
        measure(size, batch, arguments.rounds, arguments.segment)
        for size in arguments.sizes
        for batch in arguments.batches
    ]
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
