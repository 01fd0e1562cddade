"""Training of the learned arms: the same batches, steps and schedule for all, resumable after `kill -9`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swarm.actors.ray_train import METRICS, appending
from swarm.errors import SwarmError
from swarm.files import path_in, read_text
from swarm.lab.engram.arms import open_base, untrained_arm
from swarm.lab.engram.config import EngramEvalConfig, LearnSection
from swarm.lab.facts.exact_match import ExactMatch
from swarm.seeds import derive_seed
from swarm.train.progress import read_metrics


def train_arm(
    name: str, config: EngramEvalConfig, beside: Path, facts: Sequence[ExactMatch], folder: Path, device: str
) -> dict[str, Any]:
    """Train one arm, from its last checkpoint if there is one, and return how it went.

    Args:
        name: one of `LEARNED`.
        config: the evaluation.
        beside: folder of its file.
        facts: what is learned.
        folder: receives states, metrics and, at the end, the adapter.
        device: `cpu`, `cuda` or `mps`.

    Returns:
        `parameters` that were trained, `seconds` of all attempts, `losses`: (step, mean loss before it, in nats).

    Raises:
        SwarmError: see `run_training`.
    """
    from swarm.train.loop import STATES, run_training
    from ulm.engram.optimizer import engram_optimizer, save_trained
    from ulm.train.answers import AnswerCollator, AnswerObjective
    from ulm.train.states import RollingStates
    from ulm.train.step import Worker, make_optimizer

    learn, base = config.learn, open_base(config.model, beside, device)
    arm: Any = untrained_arm(name, base, learn, config.seed)
    settings = learn.optimizer_of(name)
    shared: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay, "betas": settings.betas}
    objective = AnswerObjective(
        arm,
        make_optimizer(arm, **shared)
        if name == "lora"
        else engram_optimizer(arm, table_lr_factor=learn.table_lr_factor, **shared),
        Worker(0, 1, torch.device(device), appending(folder / METRICS)),
        AnswerCollator(base.tokenizer),
        practice_rows(learn, beside, facts, config.seed).__getitem__,
        batch_size=settings.batch_size,
        parts=settings.micro_batches,
    )
    progress = run_training(
        objective,
        settings,
        states=RollingStates(folder / STATES),
        save_every=learn.save_every,
        log_every=min(10, settings.steps),
    )
    if name == "lora":
        arm.save_pretrained(str(folder))
    else:
        save_trained(arm, folder)
    return {
        "parameters": sum(p.numel() for p in arm.parameters() if p.requires_grad),
        "seconds": round(progress["seconds"], 1),
        "losses": [(line["step"], round(line["loss"], 4)) for line in read_metrics(folder / METRICS)],
    }


def practice_rows(learn: LearnSection, beside: Path, facts: Sequence[ExactMatch], seed: int) -> list[dict[str, Any]]:
    """Return the rows of all steps in their order: each fact once, in an order of chance, then each once more.

    Args:
        learn: how long, and what text is among them.
        beside: folder of the YAML file.
        facts: what is learned.
        seed: of order and text.

    Raises:
        SwarmError: the text cannot be read, or is too short.
    """
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "rows")))
    text, words = learn.text, []
    if text:
        words = read_text("learn.text.file", path_in(beside, text.file)).split()
        if len(words) < 1000:
            raise SwarmError(
                f"learn.text.file: {path_in(beside, text.file)} has {len(words)} words, at least 1,000 are needed"
            )

    def some(count: int) -> list[str]:
        start = int(generator.integers(len(words) - count))
        return words[start : start + count]

    waiting: list[int] = []
    rows: list[dict[str, Any]] = []
    for _ in range(learn.optimizer.steps * learn.optimizer.batch_size):
        if text and generator.random() < text.share:
            line = some(text.before + text.words)
            prompt, answer = " ".join(line[: text.before]), " " + " ".join(line[text.before :])
            rows.append({"prompt": prompt, "answer": answer, "end": False})
            continue
        if not waiting:
            waiting = generator.permutation(len(facts)).tolist()
        row = dataclasses.asdict(facts[waiting.pop()])
        if text and generator.random() < 0.5:
            row["prompt"] = " ".join(some(int(generator.integers(1, text.before + 1)))) + "\n" + row["prompt"]
        rows.append(row)
    return rows
