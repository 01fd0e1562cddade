"""Memory of a training on running text by the size of its corpus: `swarm train` with kind `text`, without Ray.

The same training (prepare, 20 steps, the score of what is held out) on synthetic text of 1, 10 and 100 MB, each in a
process of its own. Printed is the peak of its resident memory: when everything is imported and torch has multiplied
matrices, when the corpus is prepared, when it was trained on, and at the end; and what came after the first. What the
steps themselves take (activations of a batch) is in it. Target: 500 MB at any size.

    python tests/benchmarks/corpus_memory.py                       # some minutes; 300 MB of disk
    python tests/benchmarks/corpus_memory.py --sizes 1 10 --kind parquet --clean
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

MB = 1_000_000
WANTED_MB = 500
WORDS = 50_000


def texts(num_bytes: int) -> Iterator[str]:
    """Documents of some 1,000 characters, of words that are as unequal as those of English."""
    generator = np.random.Generator(np.random.PCG64(0))
    letters = np.array(list("etaoinshrdlucmfw"))
    words = np.array(["".join(generator.choice(letters, generator.integers(2, 9))) for _ in range(WORDS)])
    share = 1 / np.arange(1, WORDS + 1)
    left = num_bytes
    while left > 0:
        many = generator.choice(words, (100, 180), p=share / share.sum())
        for text in map(" ".join, many):
            left -= len(text) + 1
            yield text


def write(path: Path, num_bytes: int) -> None:
    """Write a corpus, a batch of documents at a time."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        schema = pa.schema([("text", pa.string())])
        found = texts(num_bytes)
        with parquet.ParquetWriter(path, schema) as writer:
            while batch := [text for text, _ in zip(found, range(10_000), strict=False)]:
                writer.write_table(pa.table({"text": batch}, schema=schema))
        return
    with path.open("w") as file:
        for text in texts(num_bytes):
            file.write(json.dumps({"text": text}) + "\n" if path.suffix == ".jsonl" else text + "\n\n")


def peak_bytes() -> int:
    """Return the peak of this process' resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(path: Path, clean: bool) -> dict[str, Any]:
    """Train on a corpus in this process."""
    import torch

    from swarm.train.loop import run_training
    from swarm.train.recipe import TextRecipe
    from swarm.train.text import TextTraining, held_out_bits
    from ulm.data.corpus import Corpus
    from ulm.train.step import Worker

    torch.set_num_threads(1)
    stage = {"name": "texts", "files": [path.name], "separator": "\n\n"}
    if clean:
        stage["cleaning"] = {"length": [100, 100_000], "repeated_lines": 0.3, "near_duplicates": True}
    recipe = TextRecipe.model_validate(
        {
            "kind": "text",
            "name": "memory",
            "model": {"preset": "1m", "window": 128, "vocab_size": 4096},
            "stages": [stage],
            "optimizer": {"steps": 20, "batch_size": 8, "micro_batches": 2},
            "out": "out",
        }
    )
    training, worker = TextTraining(recipe, path.parent), Worker(0, 1, torch.device("cpu"), lambda record: None)

    a = torch.rand(1000, 1000)
    (a @ a).sum()
    before, started = peak_bytes(), time.monotonic()
    training.prepare(path.parent)
    prepared, seconds = peak_bytes(), time.monotonic() - started
    objective = training.objective(path.parent, worker)
    run_training(objective, recipe.optimizer)
    trained = peak_bytes()
    held_out_bits(objective.model, Corpus.open(path.parent / "data"), "texts", recipe)
    return {"before": before, "prepared": prepared, "trained": trained, "peak": peak_bytes(), "prepare_s": seconds}


def main() -> None:
    """Measure each size in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100], metavar="MB")
    parser.add_argument("--kind", choices=("txt", "jsonl", "parquet"), default="txt")
    parser.add_argument("--clean", action="store_true", help="with rules of cleaning, near-duplicates among them")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.one, options.clean)))
        return
    print(f"{'corpus':>8} {'before':>8} {'prepared':>9} {'trained':>8} {'scored':>8} {'more':>7}  prepare")
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"texts.{options.kind}"
            write(path, size * MB)
            command = [sys.executable, __file__, "--one", str(path), *(["--clean"] if options.clean else [])]
            found = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
        before, prepared, trained, peak = (found[name] / MB for name in ("before", "prepared", "trained", "peak"))
        columns = ((size, 5), (before, 5), (prepared, 6), (trained, 5), (peak, 5), (peak - before, 4))
        told = " ".join(f"{value:>{width}.0f} MB" for value, width in columns)
        verdict = "" if peak - before <= WANTED_MB else "  above the target"
        print(f"{told}  {found['prepare_s']:.0f} s{verdict}", flush=True)


if __name__ == "__main__":
    main()
