"""Training states: bytes of a whole one, bytes that each further one adds, and seconds per save.

- `full`: bytes of a whole state, as a new folder would get it, over the raw bytes of its tensors.
- `changed`: share of numbers that differ from the save before.
- `more`: bytes that a further save writes, manifest included, over those of a whole state; the median of the saves.
- `copy`: the same over the raw bytes of all that the model needs, its frozen base included. A base is never part of a
  state.
- `save_s`, `plain_s`: medians; plain are the same tensors in a safetensors file with a checksum, settled on the disk,
  as states were written before. They take turns in one process.

Sides: a decoder of .9 M parameters with its memory on documents, with Muon and with AdamW; LoRA beside a frozen Llama;
an Engram's tables when few or many of their rows were read between two saves; and what 16 agents remember, of which one
or all have read on.

    python tests/benchmarks/bench_states.py --saves 4 --json states.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from ulm.config import preset
from ulm.data.document_stream import DocumentStream
from ulm.files import settle, sha256
from ulm.model import Decoder
from ulm.streaming import StreamState, read_document
from ulm.train.documents import DocumentObjective
from ulm.train.states import RollingStates
from ulm.train.step import Worker, make_optimizer, train_step

VOCAB, WINDOW = 4096, 128
WANTED_FULL, WANTED_MORE = 0.95, 0.10

State = tuple[nn.Module, torch.optim.Optimizer, Mapping[str, Tensor]]
"""Model, optimizer and extra tensors, as they are saved."""


def tokens(count: int, seed: int = 0) -> NDArray[np.int64]:
    """Tokens with the frequencies of words (Zipf), end-of-text left out."""
    ranks = np.arange(1, VOCAB - 3)
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.choice(ranks, count, p=(1 / ranks) / (1 / ranks).sum()) + 3


def decoder(kind: Any) -> Iterator[State]:
    """A training of the lab, 4 steps from save to save."""
    model = Decoder(preset("ltm-1m", VOCAB, window=WINDOW))
    optimizer = make_optimizer(model, 5e-4, 0.1, (0.9, 0.95), kind)
    stream = DocumentStream([lambda number: tokens(3000, number)] * 4, WINDOW, 0)
    objective = DocumentObjective(
        model, optimizer, Worker(0, 1, torch.device("cpu"), lambda _: None), stream, segments=2
    )
    for step in itertools.count():
        train_step(objective, step, 5e-4)
        if step % 4 == 3:
            yield model, optimizer, objective.state()[1]


def llama() -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 4}
    return AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=VOCAB, num_key_value_heads=2, **shape))


def steps(model: Any, optimizer: torch.optim.Optimizer, count: int, rows: int, length: int) -> Iterator[State]:
    """Train a model of transformers on text, so many steps from save to save."""
    for step in itertools.count(1):
        ids = torch.from_numpy(tokens(rows * length, step)).reshape(rows, length)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % count == 0:
            yield model, optimizer, {}


def lora() -> Iterator[State]:
    from peft import LoraConfig, get_peft_model

    shape = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(llama(), shape)
    return steps(model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3), 4, 4, 64)


def engram(count: int, rows: int, length: int) -> Iterator[State]:
    from fakes.hf_models import tiny_tokenizer

    from ulm.engram import EngramConfig, add_engram
    from ulm.engram.optimizer import engram_optimizer

    config = EngramConfig(layers=(2,), rows=20_000, exact=False, compress=False)
    model = add_engram(llama(), config, tiny_tokenizer())
    optimizer = engram_optimizer(model, 1e-3)
    for _, state in zip(range(2), steps(model, optimizer, 20, 8, 64), strict=False):  # rows that had been read before
        del state
    return steps(model, optimizer, count, rows, length)


def memories(active: int) -> Iterator[State]:
    """What 16 agents remember after 2,048 tokens each; from save to save some read 128 more."""
    model = Decoder(preset("ltm-1m", VOCAB, window=WINDOW, ltm={"capacity": 1024})).eval().requires_grad_(False)
    optimizer = torch.optim.SGD([torch.zeros(1)])

    def read(count: int, length: int, seed: int, state: StreamState | None) -> StreamState:
        return read_document(model, torch.from_numpy(tokens(count * length, seed)).reshape(count, length), state).state

    state, first = read(16, 2048, 0, None), torch.arange(active)
    for seed in itertools.count(1):
        yield model, optimizer, state.tensors()
        after = read(active, 128, seed, state_of(state, first)).tensors()
        state = StreamState.from_tensors(
            {name: tensor.index_copy(0, first, after[name]) for name, tensor in state.tensors().items()}
        )


def state_of(state: StreamState, rows: Tensor) -> StreamState:
    return StreamState.from_tensors({name: tensor[rows] for name, tensor in state.tensors().items()})


SIDES: dict[str, Callable[[], Iterator[State]]] = {
    ".9 M decoder, Muon": lambda: decoder("muon"),
    ".9 M decoder, AdamW": lambda: decoder("adamw"),
    "frozen base + LoRA": lora,
    "Engram, few rows read": lambda: engram(1, 2, 32),
    "Engram, many rows read": lambda: engram(20, 8, 64),
    "memories, 1 of 16 reads": lambda: memories(1),
    "memories, all read": lambda: memories(16),
}


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_ino, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def plain(tensors: Mapping[str, Tensor], folder: Path) -> float:
    began = time.perf_counter()
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(folder / "state.safetensors"))
    sha256(folder / "state.safetensors")
    settle(folder)
    return time.perf_counter() - began


def written(states: RollingStates, step: int, state: State) -> tuple[int, float]:
    """Save a state; bytes that were written, and seconds."""
    there, began = files(states.folder), time.perf_counter()
    states.save(step, state[0], state[1], {}, state[2])
    took = time.perf_counter() - began
    return sum(found[1] for path, found in files(states.folder).items() if there.get(path) != found), took


def measured(states: Iterator[State], saves: int) -> dict[str, float]:
    """Save one state and so many more."""
    rows = []
    before: dict[str, Tensor] = {}
    with tempfile.TemporaryDirectory() as name:
        here = RollingStates(Path(name) / "states")
        for step, state in zip(range(saves + 1), states, strict=False):
            more, save_s = written(here, step, state)
            tensors = here.read(step)[0]
            plain_s = plain(tensors, Path(name) / f"plain-{step}")
            if before:
                differ = sum(int((before[key] != value).sum()) for key, value in tensors.items())
                changed = differ / sum(value.numel() for value in tensors.values())
                rows.append({"changed": changed, "more": more, "save_s": save_s, "plain_s": plain_s})
            before = tensors
        whole, _ = written(RollingStates(Path(name) / "fresh"), 0, state)
        base = sum(p.numel() * p.element_size() for p in state[0].parameters() if not p.requires_grad)
    raw, medians = num_bytes(before), {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    more = medians.pop("more")
    return {"raw_mb": raw / 1e6, "full": whole / raw, "more": more / whole, "copy": more / (raw + base), **medians}


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    names = list(next(iter(found.values())))
    lines = [f"{'':24}" + "".join(f"{name:>9}" for name in names)]
    lines += [f"{side:24}" + "".join(f"{row[name]:9.3f}" for name in names) for side, row in found.items()]
    return "\n".join(lines)


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_whole_states_are_smaller_than_raw_and_further_ones_cost_what_changed() -> None:
    found = {name: measured(side(), 3) for name, side in SIDES.items()}
    print("\n" + table(found))
    assert all(row["full"] <= WANTED_FULL for row in found.values())
    assert found["frozen base + LoRA"]["copy"] <= WANTED_MORE
    for name in ("Engram, few rows read", "memories, 1 of 16 reads"):
        assert found[name]["more"] <= WANTED_MORE


def main() -> None:
    """Measure all sides from the command line."""
    parser = argparse.ArgumentParser(description="bytes and seconds of training states")
    parser.add_argument("--saves", type=int, default=4, help="further saves per side")
    parser.add_argument("--only", help="sides whose name holds this")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name, side in SIDES.items():
        if not options.only or options.only in name:
            found[name] = measured(side(), options.saves)
            print(table({name: found[name]}), flush=True)
    print("\n" + table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
