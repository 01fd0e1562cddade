"""Training of the learned arms: the same batches, steps and schedule for all, resumable after `kill -9`.

Owns one training as a task, its checkpoints and its progress line. It refuses to know who else is trained.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swarm.errors import SwarmError
from swarm.lab.engram.arms import open_base, untrained_arm
from swarm.lab.engram.config import LearnSection
from swarm.lab.facts.exact_match import ExactMatch
from swarm.seeds import derive_seed

__all__ = ["PROGRESS", "practice_rows", "train_arm"]

PROGRESS = "progress.txt"


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
        out: folder that receives checkpoints, progress and, at the end, the adapter.
        device: `cpu` or `cuda`.

    Returns:
        `parameters` that were trained, `seconds` of all attempts, `losses`: (step, mean loss before it, in nats).
    """
    from transformers import PrinterCallback, TrainerCallback, TrainingArguments

    from ulm.engram import AnswerCollator, AnswerTrainer, EngramTrainer
    from ulm.engram.trainer import last_checkpoint

    section, folder = LearnSection.model_validate(learn), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    base = open_base(model, Path(beside), device)
    arm: Any = untrained_arm(name, base, section, seed)
    lr = section.lr["engram" if name == "engram_capacity_1" else name]
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=section.steps,
        per_device_train_batch_size=section.batch_size,
        learning_rate=lr,
        lr_scheduler_type="linear",
        warmup_steps=section.warmup,
        logging_steps=min(10, section.steps),
        save_steps=section.save_every,
        save_total_limit=2,
        seed=seed,
        use_cpu=device == "cpu",
        dataloader_pin_memory=False,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
    )
    before = _seconds(folder)
    started = time.monotonic()

    class Progress(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                line = {"step": state.global_step, "loss": logs["loss"], "seconds": before + time.monotonic() - started}
                with (folder / PROGRESS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")

    options: dict[str, Any] = {
        "train_dataset": practice_rows(section, Path(beside), facts, seed),
        "data_collator": AnswerCollator(base.tokenizer),
        "callbacks": [Progress()],
    }
    if name == "lora":
        trainer = AnswerTrainer(arm, arguments, **options)
    else:
        trainer = EngramTrainer(arm, arguments, table_lr_factor=section.table_lr_factor, **options)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder / "checkpoints"))
    trainer.save_model(str(folder))
    lines = _lines(folder)
    return {
        "parameters": sum(p.numel() for p in arm.parameters() if p.requires_grad),
        "seconds": round(before + time.monotonic() - started, 1),
        "losses": [(line["step"], round(line["loss"], 4)) for line in lines],
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
    for _ in range(learn.steps * learn.batch_size):
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


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / PROGRESS
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    by_step = {line["step"]: line for line in found}  # a resumed training repeats steps
    return [by_step[step] for step in sorted(by_step)]


def _seconds(folder: Path) -> float:
    lines = _lines(folder)
    return float(lines[-1]["seconds"]) if lines else 0.0
