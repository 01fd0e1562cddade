"""Training speed of the lab's models: against GPT-2 of transformers, with and without long-term memory, and by workers.

Sides take turns in one process and one run, and the median of the rounds' ratios counts.

- `gpt2`: a whole training step (forward, backward, clipping, AdamW) of our baseline and of `GPT2LMHeadModel` with as
  many parameters, layers and tokens, on windows of 128, batch 8. GPT-2 runs with its dropout of .1 and without it;
  without is what counts.
- `memory`: a step of the same model with and without memory, as many parameters, on documents, 8 rows of 512 tokens.
- `workers`: `swarm lab`'s training by 2 workers of 1 thread and by 1 worker of 2 threads, tokens per second as logged.

    python tests/benchmarks/bench_lm_training.py --sizes 1m 4m --rounds 7 --json training.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ulm.config import ModelConfig, preset
from ulm.data.document_stream import DocumentStream, Windows
from ulm.model import Decoder
from ulm.train.documents import DocumentObjective
from ulm.train.step import Worker, make_optimizer, train_step

VOCAB, ROWS, WINDOW = 4096, 8, 128
ALONE = Worker(0, 1, torch.device("cpu"), lambda record: None)
WANTED_OVER_GPT2, WANTED_MEMORY_COST, WANTED_WORKERS = 1.3, 1.25, 0.9


def tokens(count: int, seed: int = 0) -> NDArray[np.int64]:
    """Tokens with the frequencies of words (Zipf), end-of-text left out."""
    ranks = np.arange(1, VOCAB - 3)
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.choice(ranks, count, p=(1 / ranks) / (1 / ranks).sum()) + 3


def training(config: ModelConfig, stream: Any, segments: int) -> DocumentObjective:
    model = Decoder(config)
    optimizer = make_optimizer(model, 5e-4, 0.1, (0.9, 0.95))
    return DocumentObjective(model, optimizer, ALONE, stream, segments=segments)


def take_step(of: DocumentObjective) -> int:
    return train_step(of, 0, 5e-4).tokens


def gpt2_like(config: ModelConfig, dropout: float) -> Any:
    """GPT-2 with as many layers and, by its inner width, as many parameters as a config."""
    from transformers import GPT2Config, GPT2LMHeadModel

    d, wanted = config.d_model, config.num_parameters()

    def built(inner: int) -> Any:
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCAB, n_positions=WINDOW, n_embd=d, n_layer=config.n_layer, n_head=config.n_head,
                n_inner=inner, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
            )
        )  # fmt: skip

    base = sum(p.numel() for p in built(1).parameters())
    inner = 1 + round((wanted - base) / (config.n_layer * (2 * d + 1)))
    return built(inner)


def timed(sides: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Tokens per second of each side, in turn; a first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, step in sides.items():
            start = time.perf_counter()
            count = sum(step() for _ in range(3))
            if number:
                found[name].append(count / (time.perf_counter() - start))
    return found


def ratios(of: list[float], to: list[float]) -> list[float]:
    return [a / b for a, b in zip(of, to, strict=True)]


def against_gpt2(size: str, rounds: int) -> dict[str, Any]:
    config = preset(f"gpt-{size}", VOCAB, window=WINDOW)
    data = tokens(200_000)
    ours = training(config, Windows(data, ROWS, WINDOW, 64, seed=0), 1)
    sides: dict[str, Callable[[], int]] = {"ours": lambda: take_step(ours)}
    parameters = {"ours": ours.model.num_parameters()}
    for name, dropout in (("gpt2", 0.0), ("gpt2_dropout", 0.1)):
        model = gpt2_like(config, dropout).train()
        parameters[name] = sum(p.numel() for p in model.parameters())
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        windows = Windows(data, ROWS, WINDOW, 64, seed=0)

        def step(model: Any = model, optimizer: Any = optimizer, windows: Windows = windows) -> int:
            batch = windows.next_batch()
            optimizer.zero_grad(set_to_none=True)
            logits = model(input_ids=batch.ids_NBS[0]).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels_NBS[0].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return batch.ids_NBS[0].numel()

        sides[name] = step
    speeds = timed(sides, rounds)
    return {
        "size": size,
        "parameters": parameters,
        "tokens_per_s": {name: statistics.median(values) for name, values in speeds.items()},
        "ratio": statistics.median(ratios(speeds["ours"], speeds["gpt2"])),
        "ratio_with_dropout": statistics.median(ratios(speeds["ours"], speeds["gpt2_dropout"])),
        "rounds": speeds,
    }


def with_memory(size: str, rounds: int, segment: int) -> dict[str, Any]:
    def document(number: int) -> NDArray[np.int64]:
        return tokens(3000, number)

    sides: dict[str, Callable[[], int]] = {}
    for name in ("gpt", "ltm"):
        config = preset(f"{name}-{size}", VOCAB, window=WINDOW, ltm={"segment": segment})
        side = training(config, DocumentStream([document] * ROWS, WINDOW, 0), 512 // WINDOW)
        sides[name] = lambda side=side: take_step(side)  # type: ignore[misc]
    speeds = timed(sides, rounds)
    costs = ratios(speeds["gpt"], speeds["ltm"])
    return {
        "size": size,
        "segment": segment,
        "tokens_per_s": {name: statistics.median(values) for name, values in speeds.items()},
        "time_ratio": statistics.median(costs),
        "lowest": min(costs),
        "highest": max(costs),
    }


def by_workers(size: str, rounds: int) -> dict[str, Any]:
    from swarm.lab.ltm.config import LabConfig
    from swarm.lab.ltm.stages import run_lab
    from swarm.train.progress import read_metrics

    speeds: dict[str, list[float]] = {"2 workers x 1 thread": [], "1 worker x 2 threads": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        texts = [" ".join(f"w{i % 900}" for i in tokens(600, n)) for n in range(200)]
        (root / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
        for number in range(rounds):
            for name, workers, threads in (("2 workers x 1 thread", 2, 1), ("1 worker x 2 threads", 1, 2)):
                config = LabConfig.model_validate(
                    {
                        "name": "workers", "seeds": [number],
                        "corpus": {"sources": [{"files": ["texts.jsonl"]}], "tokenizer": 2048},
                        "model": {"size": size}, "recall": {"rows": 0},
                        "train": {"log_every": 20},
                        "optimizer": {"steps": 60, "warmup": 5, "batch_size": 8},
                        "place": {"workers": workers, "threads": threads},
                    }
                )  # fmt: skip
                out = root / f"{workers}-{number}"
                run_lab(config, root, out, ["prepare", "train"], lambda line: None, lambda *_: nullcontext())
                lines = read_metrics(out / f"s{number}" / "baseline" / "metrics.jsonl")
                speeds[name].append(statistics.median(line["tokens_per_s"] for line in lines[1:]))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    two, one = medians.values()
    return {"size": size, "tokens_per_s": medians, "ratio": two / one, "rounds": speeds}


def say(line: str) -> None:
    print(line, flush=True)


def measure(sizes: list[str], rounds: int, segments: list[int], worker_rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "gpt2": [], "memory": [], "workers": None}
    for size in sizes:
        found["gpt2"].append(one := against_gpt2(size, rounds))
        dropout = f"{one['ratio_with_dropout']:.2f}x with its dropout"
        say(f"{size}: {one['ratio']:.2f}x GPT-2 (target {WANTED_OVER_GPT2}), {dropout}")
        say(f"  {one['tokens_per_s']} tokens/s; parameters {one['parameters']}")
        for segment in segments:
            found["memory"].append(two := with_memory(size, rounds, segment))
            cost = f"{two['time_ratio']:.3f}x ({two['lowest']:.3f} to {two['highest']:.3f})"
            say(f"{size}, segments of {segment}: memory costs {cost} training time (target {WANTED_MEMORY_COST})")
    if worker_rounds:
        found["workers"] = three = by_workers(sizes[0], worker_rounds)
        say(f"{sizes[0]}: {three['tokens_per_s']}, ratio {three['ratio']:.2f} (target {WANTED_WORKERS})")
    return found


@pytest.mark.bench
def test_training_speed() -> None:
    found = measure(["1m"], 5, [32, 128], 2)
    assert found["gpt2"][0]["ratio"] >= WANTED_OVER_GPT2
    assert found["memory"][0]["time_ratio"] <= WANTED_MEMORY_COST
    assert found["workers"]["ratio"] >= WANTED_WORKERS


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["1m", "4m"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--segments", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--worker-rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = measure(arguments.sizes, arguments.rounds, arguments.segments, arguments.worker_rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
