"""Training of the learned arms: the same batches, steps and schedule for all, resumable after `kill -9`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swarm.actors.ray_train import METRICS, appending
from swarm.errors import SwarmError
from swarm.lab.engram.arms import open_base, untrained_arm
from swarm.lab.engram.config import LearnSection
from swarm.lab.facts.exact_match import ExactMatch
from swarm.seeds import derive_seed
from swarm.train.progress import read_metrics


def train_arm(
    name: str,
    model: str,
    beside: str,
    learn: dict[str, Any],
    facts: Sequence[ExactMatch],
    seed: int,
    out: str,
    device: str,
) -> dict[str, Any]:
    """Train one arm, from its last checkpoint if there is one, and return how it went.

    Args:
        name: one of `LEARNED`.
        model: as of `open_base`.
        beside: as of `open_base`.
        learn: fields of `LearnSection`.
        facts: what is learned.
        seed: of weights and batches.
        out: folder that receives states, metrics and, at the end, the adapter.
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

    section, folder = LearnSection.model_validate(learn), Path(out)
    base = open_base(model, Path(beside), device)
    arm: Any = untrained_arm(name, base, section, seed)
    settings = section.optimizer_of(name)
    decay, betas = settings.weight_decay, settings.betas
    objective = AnswerObjective(
        arm,
        make_optimizer(arm, settings.lr, decay, betas)
        if name == "lora"
        else engram_optimizer(
            arm, settings.lr, weight_decay=decay, betas=betas, table_lr_factor=section.table_lr_factor
        ),
        Worker(0, 1, torch.device(device), appending(folder / METRICS)),
        AnswerCollator(base.tokenizer),
        practice_rows(section, Path(beside), facts, seed).__getitem__,
        batch_size=settings.batch_size,
        parts=settings.micro_batches,
    )
    progress = run_training(
        objective,
        settings,
        states=RollingStates(folder / STATES),
        save_every=section.save_every,
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
    words = _words(beside / learn.text.file) if learn.text else []
    waiting: list[int] = []
    rows: list[dict[str, Any]] = []
    for _ in range(learn.optimizer.steps * learn.optimizer.batch_size):
        if learn.text and generator.random() < learn.text.share:
            some = _some(words, learn.text.before + learn.text.words, generator)
            text = {"prompt": " ".join(some[: learn.text.before]), "answer": " " + " ".join(some[learn.text.before :])}
            rows.append({**text, "end": False})
            continue
        if not waiting:
            waiting = generator.permutation(len(facts)).tolist()
        row = dataclasses.asdict(facts[waiting.pop()])
        if learn.text and generator.random() < 0.5:
            before = _some(words, int(generator.integers(1, learn.text.before + 1)), generator)
            row["prompt"] = " ".join(before) + "\n" + row["prompt"]
        rows.append(row)
    return rows


def _some(words: Sequence[str], count: int, generator: np.random.Generator) -> Sequence[str]:
    start = int(generator.integers(len(words) - count))
    return words[start : start + count]


def _words(file: Path) -> list[str]:
    try:
        words = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise SwarmError(f"learn.text.file: cannot read {file} ({error})") from error
    if len(words) < 1000:
        raise SwarmError(f"learn.text.file: {file} has {len(words)} words, at least 1,000 are needed")
    return words
