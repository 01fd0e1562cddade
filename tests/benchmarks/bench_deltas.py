"""What it costs that every agent has learned something of its own: 64 agents with 64 deltas, or with a shared policy.

The shipped puzzle agent (1.5 M weights, float32) writes 24 tokens after each of 64 prompts of split-numbers-v0, on one
thread. Sides take turns within a round; a ratio is the median over rounds of seconds per token with deltas to those
without. In the load `play` rows end with their line, so that batches become small.

    python tests/benchmarks/bench_deltas.py --rounds 40 --load play --json deltas.json

Needs: experiments/policies/puzzle-agent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from swarm.prompt import STOP
from ulm.checkpoint import load_checkpoint
from ulm.decode.engine import Engine, GenerationRequest
from ulm.delta import Delta
from ulm.model import Decoder

sys.path.insert(0, str(Path(__file__).parent))
from bench_decode import CHECKPOINT, LOADS, NEW_TOKENS, TEMPERATURE, prompts

AGENTS = 64
WANTED = {4: 1.3, 8: 1.4}
"""Rank of the deltas -> at most so many times the seconds of one shared policy."""

MOST_BYTES = 600_000
"""What a delta of rank 8 may take."""

WORDS = 4
"""Tokens of a delta with rows of their own."""


def learned(model: Decoder, rank: int, seed: int) -> Delta:
    """Return a delta that changes every layer a little."""
    new = Delta.new(model, rank, seed, range(seed, seed + WORDS))
    generator = torch.Generator().manual_seed(seed)
    factors = {
        name: (a_RK, torch.randn(b_NR.shape, generator=generator) * 1e-3) for name, (a_RK, b_NR) in new.factors.items()
    }
    return replace(new, factors=factors, rows_EC=torch.randn(new.rows_EC.shape, generator=generator) * 1e-3)


def main(rounds: int, load: str = "fixed", json_file: Path | None = None) -> dict[str, Any]:
    """Measure everything, print it, and return it: side -> seconds per token of each round, and the bytes of deltas."""
    checkpoint = load_checkpoint(CHECKPOINT)
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    if load == "fixed":
        tokenizer.eot_id = -1  # no token ends a row: all sides write equally much
    stop = (STOP,) if load == "play" else ()
    engine = Engine(model, tokenizer)
    deltas: dict[int, list[Delta | None]] = {0: [None] * AGENTS}
    deltas |= {rank: [learned(model, rank, seed) for seed in range(AGENTS)] for rank in WANTED}
    seconds: dict[int, list[float]] = {rank: [] for rank in deltas}
    for turn in range(rounds + 1):
        texts = prompts(AGENTS)
        order = list(deltas)
        for rank in order[turn % 3 :] + order[: turn % 3]:
            batch = [
                GenerationRequest(text, AGENTS * turn + i, NEW_TOKENS, TEMPERATURE, stop=stop, delta=deltas[rank][i])
                for i, text in enumerate(texts)
            ]
            began_s = time.perf_counter()
            made = sum(result.generated_tokens for result in engine.generate(batch))
            if turn:  # the first is to warm up
                seconds[rank].append((time.perf_counter() - began_s) / made)
            if load == "fixed" and made != AGENTS * NEW_TOKENS:
                raise RuntimeError("a row stopped early")
    found: dict[str, Any] = {"seconds_per_token": seconds, "ratio": {}, "bytes": {}}
    print(f"{'rank':>4}{'tokens/s':>10}{'ratio':>8}{'quartiles':>16}{'bytes of a delta':>18}")
    for rank, taken in seconds.items():
        ratios = [mine / shared for mine, shared in zip(taken, seconds[0], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if rank else (1.0, 1.0, 1.0)
        first = deltas[rank][0]
        found["ratio"][rank], found["bytes"][rank] = middle, len(first.to_bytes()) if first else 0
        rate = 1 / statistics.median(taken)
        spread = f"{low:.2f} to {high:.2f}"
        print(f"{rank or 'none':>4}{rate:>10,.0f}{middle:>7.2f}x{spread:>16}{found['bytes'][rank]:>18,}", flush=True)
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_deltas_of_their_own_cost_agents_little() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = main(30)
    torch.set_num_threads(before)
    assert found["bytes"][8] <= MOST_BYTES
    for rank, most in WANTED.items():
        assert found["ratio"][rank] <= most


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--load", choices=LOADS, default="fixed")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    main(arguments.rounds, arguments.load, arguments.json)
