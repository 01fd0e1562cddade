"""Chats of agents with one system message, in our core: read whole, and with their common opening read once and kept.

SmolLM2-135M-Instruct as the agents of split-numbers-v0: chats of 109 to 112 tokens that all begin with the same 91, and
16 new tokens, greedy. Every round has chats of its own; both ways take turns; times are medians of rounds.

    python tests/benchmarks/bench_openings.py --rounds 9 --json openings.json

Needs: make smollm2.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

MODEL = "smollm2-135m"
CHATS = (4, 8, 32)
NEW_TOKENS = 16
WAYS = ("whole", "opening")


def main(rounds: int, dtypes: tuple[str, ...], json_file: Path | None = None) -> dict[str, Any]:
    """Measure everything, print it, and return seconds per call: type of weights -> chats -> way -> rounds."""
    import torch

    from swarm.backends.models import find_model, open_model
    from swarm.backends.prompts import PromptReader
    from swarm.backends.protocol import TextRequest
    from swarm.prompt import agent_system
    from ulm.decode.engine import Engine, GenerationRequest
    from ulm.hf.llama import from_llama
    from worlds import make

    found = find_model(MODEL, Path())
    model, tokenizer = from_llama(found)
    if tokenizer is None:
        raise RuntimeError("the model has no tokenizer")
    tokenizer.eot_id = -1  # no token ends an answer
    reader = PromptReader(tokenizer, open_model(MODEL, found).chat)
    system = agent_system(make("split-numbers-v0", 4, {}).tools())
    rng = random.Random(0)

    def chats(count: int) -> list[GenerationRequest]:
        asked = [
            TextRequest("half {} {} {} target {}".format(*rng.sample(range(1, 14), 3), rng.randint(100, 199)), system)
            for _ in range(count)
        ]
        return [
            GenerationRequest(tuple(ids), 0, NEW_TOKENS, 0.0, opening=reader.opening(request, ids))
            for request, ids in zip(asked, reader.read(asked), strict=True)
        ]

    result: dict[str, Any] = {}
    print(f"{'':10}{'chats':>6}{'whole':>10}{'opening':>10}{'whole / opening':>17}   seconds per call")
    for dtype in dtypes:
        engine = Engine(model.to(getattr(torch, dtype)), tokenizer)
        for count in CHATS:
            seconds: dict[str, list[float]] = {way: [] for way in WAYS}
            for turn in range(rounds + 1):
                batch = chats(count)
                for way in WAYS if turn % 2 else WAYS[::-1]:
                    asked = batch if way == "opening" else [replace(request, opening=0) for request in batch]
                    began = time.perf_counter()
                    engine.generate(asked)
                    if turn:  # the first is to warm up
                        seconds[way].append(time.perf_counter() - began)
            whole, opening = (statistics.median(seconds[way]) for way in WAYS)
            result.setdefault(dtype, {})[count] = seconds
            print(f"{dtype:10}{count:>6}{whole:>10.2f}{opening:>10.2f}{whole / opening:>16.2f}x", flush=True)
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


@pytest.mark.bench
@pytest.mark.timeout(1200)
def test_chats_with_a_kept_opening_take_less_time() -> None:
    for by_count in main(5, ("float32", "bfloat16")).values():
        for seconds in by_count.values():
            assert statistics.median(seconds["opening"]) < statistics.median(seconds["whole"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    main(arguments.rounds, tuple(arguments.dtypes), arguments.json)
