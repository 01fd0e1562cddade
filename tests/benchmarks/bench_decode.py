"""Tokens per second of our decoding engine and of transformers' `generate` on the same weights in one run.

Both sides continue the same agent prompts, text in and text out, with the same tokenizer, key-value cache and threads.
The transformers side pads on the left, as its documentation asks for. Sides take turns, the ratio is between medians.
That both do the same work is checked first: greedy texts must be the same but for rows that rounding tips. Two loads:

- `play`: what a swarm asks for; a row ends with its line, as actions do, and counts the tokens up to there. Both sides
  know the stop: ours as a stop string, transformers as `eos_token_id`.
- `fixed`: no row ends before its 24 tokens, so nothing is gained by dropping rows that are done.

    python tests/benchmarks/bench_decode.py --batches 1 8 64 --repeats 9 --json decode.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from swarm.prompt import STOP, agent_prompt
from ulm.checkpoint import load_checkpoint
from ulm.config import PRESETS, preset
from ulm.decode.engine import Engine, GenerationRequest
from ulm.hf import to_llama
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer

CHECKPOINT = Path(__file__).parents[2] / "experiments" / "policies" / "puzzle-agent"
BATCHES = (1, 8, 64)
NEW_TOKENS = 24
"""`agents.max_new_tokens` of experiments/puzzle.yaml."""
TEMPERATURE = 0.7
WANTED_RATIO = 3.0
WANTED_AGREEMENT = 0.9
NO_TOKEN = -1

LOADS = ("play", "fixed")

Side = Callable[[list[str]], tuple[list[str], int]]
"""Texts in, what was generated and how many tokens that took out."""


@dataclass(frozen=True)
class Measured:
    """One load, batch size and way of sampling; tokens and seconds per call of each side, in the order measured."""

    load: str
    batch: int
    sampling: str
    ours_tokens: int
    theirs_tokens: int
    ours_s: list[float]
    theirs_s: list[float]

    @property
    def rates(self) -> tuple[float, float]:
        """Return the generated tokens per second of both sides, at the median."""
        ours, theirs = statistics.median(self.ours_s), statistics.median(self.theirs_s)
        return self.ours_tokens / ours, self.theirs_tokens / theirs

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return self.rates[0] / self.rates[1]


def prompts(count: int) -> list[str]:
    """Return what agents of split-numbers-v0 read: some with a directive, so lengths differ within a batch."""
    texts = []
    for i in range(count):
        directive = f"{20 + 7 * i % 90}+[{100 + i % 60}]" if i % 2 else ""
        tiles = sorted((1 + i % 13, 1 + 5 * i % 13, 1 + 8 * i % 13))
        texts.append(agent_prompt(f"half {' '.join(map(str, tiles))} target {100 + i % 100}", directive))
    return texts


def random_model(name: str) -> tuple[Decoder, Tokenizer]:
    """Return a model of a preset's shape with random weights: decoding costs the same whatever they are."""
    tokenizer = Tokenizer.train(prompts(64), 328)
    return Decoder(preset(name, tokenizer.vocab_size), seed=1).eval(), tokenizer


def our_side(model: Decoder, tokenizer: Tokenizer, temperature: float, new_tokens: int, load: str) -> Side:
    """Return a function that continues texts with our engine."""
    endless = Tokenizer.from_json(tokenizer.to_json())
    endless.pad_id, endless.eot_id = tokenizer.pad_id, NO_TOKEN  # no token ends a row
    engine = Engine(model, endless if load == "fixed" else tokenizer)
    stop = () if load == "fixed" else (STOP,)
    seeds = itertools.count()

    def generate(texts: list[str]) -> tuple[list[str], int]:
        results = engine.generate(
            [GenerationRequest(text, next(seeds), new_tokens, temperature, stop=stop) for text in texts]
        )
        tokens = sum(result.generated_tokens for result in results)
        if load == "fixed" and tokens != new_tokens * len(texts):
            raise RuntimeError("our side stopped early")
        return [result.text for result in results], tokens

    return generate


def transformers_side(model: Decoder, tokenizer: Tokenizer, temperature: float, new_tokens: int, load: str) -> Side:
    """Return a function that continues texts with `LlamaForCausalLM.generate`."""
    llama = to_llama(model)
    (end,) = (None,) if load == "fixed" else tokenizer.encode(STOP)
    settings: dict[str, Any] = {"max_new_tokens": new_tokens, "use_cache": True, "pad_token_id": tokenizer.pad_id}
    settings |= {"eos_token_id": end, "do_sample": temperature > 0}
    if temperature > 0:
        settings |= {"temperature": temperature, "top_k": 0, "top_p": 1.0}
    for name, value in settings.items():
        setattr(llama.generation_config, name, value)

    @torch.inference_mode()
    def generate(texts: list[str]) -> tuple[list[str], int]:
        encoded = tokenizer.encode_batch(texts)
        width = max(map(len, encoded))
        ids = torch.tensor([[tokenizer.pad_id] * (width - len(row)) + row for row in encoded])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in encoded])
        output = llama.generate(ids, attention_mask=mask)[:, width:].tolist()
        if load == "fixed":
            if any(len(row) != new_tokens for row in output):
                raise RuntimeError("transformers stopped early")
            return [tokenizer.decode(row) for row in output], new_tokens * len(texts)
        rows = [row[: row.index(end) + 1] if end in row else row for row in output]
        return [tokenizer.decode(row).removesuffix(STOP) for row in rows], sum(map(len, rows))

    return generate


def agreement(model: Decoder, tokenizer: Tokenizer, new_tokens: int, load: str) -> float:
    """Return the share of 64 prompts that both sides continue greedily with the same text."""
    texts = prompts(64)
    ours, _ = our_side(model, tokenizer, 0.0, new_tokens, load)(texts)
    theirs, _ = transformers_side(model, tokenizer, 0.0, new_tokens, load)(texts)
    special = [tokenizer.token_texts[i] for i in (tokenizer.pad_id, tokenizer.eot_id)]
    for piece in filter(None, special):
        ours, theirs = [t.replace(piece, "") for t in ours], [t.replace(piece, "") for t in theirs]
    return sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(texts)


def timed(side: Side, texts: list[str], calls: int) -> tuple[float, int]:
    """Return the seconds and tokens of one call, averaged over `calls` in a row."""
    tokens = 0
    began_s = time.perf_counter()
    for _ in range(calls):
        tokens += side(texts)[1]
    return (time.perf_counter() - began_s) / calls, tokens // calls


def compare(
    model: Decoder, tokenizer: Tokenizer, batches: tuple[int, ...], new_tokens: int, repeats: int, load: str
) -> list[Measured]:
    """Measure all batch sizes, greedy and sampling, with the sides taking turns."""
    results = []
    for batch in batches:
        texts = prompts(batch)
        for sampling, temperature in (("greedy", 0.0), (f"T={TEMPERATURE:g}", TEMPERATURE)):
            sides = (
                our_side(model, tokenizer, temperature, new_tokens, load),
                transformers_side(model, tokenizer, temperature, new_tokens, load),
            )
            # Sampled rows end at different lengths from call to call: more calls, or one line would decide.
            calls = 1 if batch >= 64 else 24 // batch if temperature and load == "play" else 3
            taken: tuple[list[float], list[float]] = ([], [])
            tokens: tuple[list[int], list[int]] = ([], [])
            for side in sides:
                side(texts)  # warm up
            for turn in range(repeats):
                for which in (0, 1) if turn % 2 == 0 else (1, 0):
                    seconds, made = timed(sides[which], texts, calls)
                    taken[which].append(seconds)
                    tokens[which].append(made)
            ours, theirs = (round(statistics.mean(made)) for made in tokens)
            results.append(Measured(load, batch, sampling, ours, theirs, *taken))
    return results


def table(results: list[Measured]) -> str:
    """Return the comparison as aligned text."""
    lines = [f"{'load':<6}{'batch':>6} {'sampling':<9}{'ours tok/s':>12}{'transformers':>14}{'ratio':>8}"]
    for m in results:
        ours, theirs = m.rates
        lines.append(f"{m.load:<6}{m.batch:>6} {m.sampling:<9}{ours:>12,.0f}{theirs:>14,.0f}{m.ratio:>7.2f}x")
    return "\n".join(lines)


def as_json(results: list[Measured], model: str, agreed: float) -> str:
    """Return everything that was measured, and where, as JSON."""
    return json.dumps(
        {
            "model": model,
            "greedy_agreement": agreed,
            "machine": {"cpus": os.cpu_count(), "torch_threads": torch.get_num_threads()},
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "transformers", "ulm-swarm")},
            "results": [{**asdict(m), "ratio": m.ratio} for m in results],
        },
        indent=2,
    )


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_engine_decodes_three_times_as_fast_as_transformers_generate() -> None:
    if CHECKPOINT.is_dir():
        checkpoint = load_checkpoint(CHECKPOINT)
        model, tokenizer = checkpoint.model, checkpoint.tokenizer
    else:
        model, tokenizer = random_model("1m")
    load = "play" if CHECKPOINT.is_dir() else "fixed"
    assert agreement(model, tokenizer, NEW_TOKENS, load) >= WANTED_AGREEMENT
    results = compare(model, tokenizer, BATCHES, NEW_TOKENS, 5, load)
    print("\n" + table(results))
    assert min(m.ratio for m in results) >= WANTED_RATIO


def main() -> None:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description="tokens/s: our engine and transformers' generate on the same weights")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="folder of a trained µLM")
    parser.add_argument("--preset", choices=tuple(PRESETS), help="random weights of this shape instead of a checkpoint")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--new-tokens", type=int, default=NEW_TOKENS)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, help="torch threads of both sides; default torch's own choice")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.preset:
        (model, tokenizer), name = random_model(options.preset), f"random {options.preset}"
    elif not options.checkpoint.is_dir():
        parser.error(
            f"no checkpoint at {options.checkpoint}; train it with `swarm train experiments/train_puzzle_agent.yaml`, "
            "name another with --checkpoint, or take random weights with --preset 1m"
        )
    else:
        try:
            checkpoint = load_checkpoint(options.checkpoint)
        except ValueError as error:
            parser.error(str(error))
        model, tokenizer, name = checkpoint.model, checkpoint.tokenizer, options.checkpoint.name
    agreed = agreement(model, tokenizer, options.new_tokens, "fixed")
    print(
        f"{name}: {model.num_parameters():,} parameters, at most {options.new_tokens} new tokens per row, "
        f"{torch.get_num_threads()} threads, same greedy text in {agreed:.0%} of rows"
    )
    loads = ("fixed",) if options.preset else LOADS  # random weights never end a line
    batches, new_tokens, repeats = tuple(options.batches), options.new_tokens, options.repeats
    results = [m for load in loads for m in compare(model, tokenizer, batches, new_tokens, repeats, load)]
    print(table(results))
    if options.json:
        options.json.write_text(as_json(results, name, agreed) + "\n")


if __name__ == "__main__":
    main()
