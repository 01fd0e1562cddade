"""What the long-term memory costs in decoding: the same model with a full memory and, as many parameters, without one.

Both sides have read the same texts, fill their window and then decode greedily, in turns of 32 tokens (one segment, so
that every row writes once in a turn) in one process. The median of the turns' ratios counts, printed with quartiles:
what slows down the machine for longer than a turn, some .03 to 3 seconds, slows down both sides of it. Choosing the
tokens is part of the time; checking for stop strings, which takes as long on both sides, is not.

    python tests/benchmarks/bench_ltm_decode.py --sizes 1m 4m --batches 1 8 64 --json ltm_decode.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ulm.config import preset
from ulm.decode.prompts import read_prompts
from ulm.decode.stepper import LeanDecoder, Stepper
from ulm.memory.stepping import MemoryStepper
from ulm.model import Decoder

VOCAB, WINDOW, SEGMENT, PROMPT_TOKENS = 4096, 128, 32, 600
TURNS = {"1m": 120, "4m": 60, "10m": 30}
WANTED = 1.15


def pair(size: str) -> dict[str, Decoder]:
    """The pair; the memory is open and finds something often, as after training, so that nothing is skipped."""
    built = {}
    for name in ("gpt", "ltm"):
        torch.manual_seed(0)
        built[name] = model = Decoder(preset(f"{name}-{size}", VOCAB, window=WINDOW, ltm={"similarity": 0.3}))
        with torch.no_grad():
            for reader in model.ltm.readers if model.ltm is not None else ():
                reader.gate.fill_(0.5)  # type: ignore[union-attr,operator]
    return built


def decoding(model: Decoder, prompts: list[list[int]], steps: int) -> Callable[[], None]:
    """Return what decodes one turn, after the prompts were read."""
    lean = LeanDecoder(model)
    if model.ltm is None:
        cache, logits = lean.prefill([ids[-WINDOW:] for ids in prompts], WINDOW)
        advance = Stepper(lean, cache, steps)
    else:
        cache, logits, staged = read_prompts(model, prompts, [None] * len(prompts), WINDOW)
        advance = Stepper(lean, cache, steps, MemoryStepper(model.ltm, staged))
    held = [logits]

    def turn() -> None:
        for _ in range(SEGMENT):
            chosen_B: Tensor = held[0].argmax(-1)
            chosen_B.tolist()
            held[0] = advance(chosen_B)

    return turn


@torch.inference_mode()
def measure(size: str, batch: int, turns: int) -> dict[str, Any]:
    generator = np.random.Generator(np.random.PCG64(0))
    # Prompts differ in length, so that segments do not end for all rows at once.
    prompts = [generator.integers(3, VOCAB, PROMPT_TOKENS + i * 7 % SEGMENT).tolist() for i in range(batch)]
    sides = {name: decoding(model, prompts, (turns + 2) * SEGMENT) for name, model in pair(size).items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(turns + 2):
        for name, turn in sides.items():
            start = time.perf_counter()
            turn()
            if number >= 2:  # the first ones warm up
                seconds[name].append(time.perf_counter() - start)
    ratios = [slow / fast for slow, fast in zip(seconds["ltm"], seconds["gpt"], strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    speeds = {name: round(batch * SEGMENT / statistics.median(values)) for name, values in seconds.items()}
    print(f"{size}, batch {batch}: {median:.3f}x (quartiles {low:.3f}, {high:.3f}; {turns} turns; target {WANTED}), "
          f"tokens/s {speeds}", flush=True)  # fmt: skip
    return {"size": size, "batch": batch, "step_ratio": median, "quartiles": [low, high], "tokens_per_s": speeds}


@pytest.mark.bench
def test_memory_costs_little_in_decoding() -> None:
    torch.set_num_threads(1)
    for batch in (1, 8, 64):
        assert measure("4m", batch, TURNS["4m"])["step_ratio"] <= WANTED


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["1m", "4m"], choices=list(TURNS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = [measure(size, batch, TURNS[size]) for size in arguments.sizes for batch in arguments.batches]
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
