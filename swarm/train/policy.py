"""`swarm train`: trains a policy on a world's lessons with Ray Train, resumably, and ships it with its scores.

Owns the training recipe (`TrainConfig`), the loop around `ulm.train.pairs.train_step`, and the scoring on held-out
puzzles. One worker or many, CPU or GPU: the loop is the same; with N workers each takes every N-th example of a batch
and gradients are averaged. Batches follow from (seed, step) alone, so a resumed run is bit-equal to an undisturbed one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from swarm.actors.ray_tasks import require_device
from swarm.actors.ray_train import give_up, run_workers
from swarm.config.section import Section
from swarm.errors import SwarmError
from swarm.prompt import STOP
from swarm.seeds import derive_seed
from swarm.train import lessons
from swarm.train.progress import following, progress_lines
from ulm.checkpoint import Checkpoint, load_checkpoint, read_checkpoint_config, save_checkpoint
from ulm.config import PRESETS, preset
from ulm.decode.engine import Engine, GenerationRequest
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer
from ulm.train.pairs import learning_rate, make_optimizer, micro_batches, train_step
from ulm.train.states import load_state, save_state

__all__ = ["TrainConfig", "score_policy", "train", "train_from_file"]


class TrainConfig(Section):
    """What a training file may say.

    Attributes:
        name: names the run folder and the policy.
        world: whose lessons are learned; task: one of theirs.
        preset: model size, from `ulm.config.PRESETS`; window: STM in tokens.
        vocab_size: upper limit of the trained BPE tokenizer.
        spell_numbers: numbers after a space are read digit by digit (`Tokenizer.spelled`).
        steps, batch_size, lr, warmup, weight_decay, betas, clip: the optimizer, with a cosine schedule.
        optimizer: `adamw`, or `muon` for the matrices with AdamW for embeddings and norms.
        micro_batches: parts of similar length a batch is computed in.
        save_every, log_every: in steps.
        workers, threads, device, dtype: where it runs; `dtype` bfloat16 computes under autocast.
        score_examples: held-out examples per kind that the finished policy is scored on.
        init: checkpoint folder whose weights and tokenizer the training starts from, relative to the YAML file.
        out: checkpoint folder, relative to the YAML file.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    world: str
    task: str
    seed: int = Field(0, ge=0, lt=2**63)
    preset: str = "1m"
    window: int = Field(128, ge=8)
    vocab_size: int = Field(512, ge=259)
    spell_numbers: bool = False
    steps: int = Field(ge=1)
    batch_size: int = Field(128, ge=1)
    micro_batches: int = Field(4, ge=1)
    lr: float = Field(1e-3, gt=0)
    warmup: int = Field(200, ge=1)
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    optimizer: Literal["adamw", "muon"] = "adamw"
    clip: float = Field(1.0, gt=0)
    save_every: int = Field(500, ge=1)
    log_every: int = Field(50, ge=1)
    workers: int = Field(1, ge=1)
    threads: int | None = Field(None, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    score_examples: int = Field(500, ge=0)
    init: str | None = None
    out: str

    @model_validator(mode="after")
    def _shares_evenly(self) -> TrainConfig:
        if self.batch_size % self.workers:
            raise ValueError(f"batch_size {self.batch_size} cannot be shared evenly by {self.workers} workers")
        return self


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    require_device(name)
    return torch.device(name)


def _loop(settings: dict[str, Any]) -> None:
    """Run in every Ray Train worker: the whole training, from the last saved state on."""
    import ray.train
    import ray.train.torch

    config = TrainConfig.model_validate(settings["config"])
    folder = Path(settings["folder"])
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    if config.threads:
        torch.set_num_threads(config.threads)
    device = ray.train.torch.get_device() if config.device != "cpu" else torch.device("cpu")
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    model = Decoder(preset(config.preset, tokenizer.vocab_size, window=config.window), seed=config.seed).to(device)
    if config.init is not None:
        model.load_state_dict(load_checkpoint(Path(config.init)).model.state_dict())
    optimizer = make_optimizer(model, config.lr, config.weight_decay, config.betas, config.optimizer)
    saved = load_state(folder / "state", model, optimizer)
    progress: dict[str, Any] = saved.progress if saved else {"step": 0, "seconds": 0.0, "examples": 0}
    schedule = list(progress.get("schedule", []))
    if not schedule or schedule[-1]["steps"] != config.steps:
        schedule.append({"from_step": progress["step"], "steps": config.steps})
    wrapped = torch.nn.parallel.DistributedDataParallel(model) if world_size > 1 else model
    per_worker = config.batch_size // world_size
    autocast = torch.bfloat16 if config.dtype == "bfloat16" else None
    start, before = time.monotonic(), float(progress["seconds"])
    for step in range(int(progress["step"]), config.steps):
        first = step * config.batch_size + rank * per_worker
        asked = [lessons.example(config.world, config.task, config.seed, i) for i in range(first, first + per_worker)]
        pairs = [lessons.pair(example)[1:] for example in asked]
        rate = learning_rate(step, peak=config.lr, warmup=config.warmup, steps=config.steps)
        batches = [batch.to(device) for batch in micro_batches(pairs, tokenizer, config.micro_batches)]
        try:
            stats = train_step(wrapped, optimizer, batches, rate, clip=config.clip, autocast=autocast)
        except FloatingPointError as error:  # the same on every worker and in every retry: end, and say so
            reason = str(error).partition(";")[0]
            give_up(folder, f"training diverged at step {step}: {reason}; remove {folder} and set a lower lr")
            break
        done = step + 1
        if rank == 0 and (done % config.log_every == 0 or done == config.steps):
            line = {
                "step": done,
                "loss": round(stats.loss, 5),
                "lr": rate,
                "seconds": before + time.monotonic() - start,
            }
            with (folder / "metrics.jsonl").open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(line) + "\n")
        if rank == 0 and (done % config.save_every == 0 or done == config.steps):
            seconds = before + time.monotonic() - start
            examples = done * per_worker * world_size
            state = {"step": done, "seconds": seconds, "examples": examples, "schedule": schedule}
            save_state(folder / "state", model, optimizer, state)
    ray.train.report({"step": config.steps})


def train(config: TrainConfig, folder: Path, out: Path, echo: Callable[[str], None], resume: bool = False) -> Path:
    """Train, score and save a policy.

    Args:
        config: the recipe.
        folder: working folder: tokenizer, metrics and resumable state.
        out: checkpoint folder to write.
        echo: receives progress lines.
        resume: continue from the state in `folder`; otherwise an unfinished state there is an error.

    Returns:
        `out`.

    Raises:
        SwarmError: bad recipe, unfinished state without `resume`, Ray not startable, or training failed.
    """
    lessons.open_lessons(config.world, config.task)
    if config.preset not in PRESETS:
        raise SwarmError(f"unknown preset {config.preset!r}; available: {', '.join(PRESETS)}")
    device = _device(config.device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SwarmError(f"cannot write to {folder}: {error}") from error
    recipe = config.model_dump(mode="json")
    recipe_file = folder / "recipe.json"
    if recipe_file.exists():
        if not resume:
            raise SwarmError(f"{folder} holds an earlier training; add --resume to go on, or remove the folder")
        try:
            earlier = TrainConfig.model_validate(json.loads(recipe_file.read_text())).model_dump(mode="json")
            compared = {k: v for k, v in earlier.items() if k in _IDENTITY}
        except (OSError, ValueError) as error:
            raise SwarmError(f"{recipe_file} is damaged ({error}); remove the folder to start over") from error
        if compared != {k: v for k, v in recipe.items() if k in _IDENTITY}:
            raise SwarmError(f"{folder} was started with another recipe; remove the folder to start over")
    else:
        parent = _parent(config)
        tokenizer = (
            Tokenizer.train(lessons.corpus(config.world, config.task), config.vocab_size)
            if parent is None
            else parent.tokenizer
        )
        if config.spell_numbers:
            tokenizer = tokenizer.spelled()
        tokenizer.save(folder / "tokenizer.json")
        recipe_file.write_text(json.dumps(recipe, indent=1, sort_keys=True))
    with following(folder / "metrics.jsonl", progress_lines(config.steps, echo)):
        _fit(config, folder, device)
    return _finish(config, folder, out, device, echo)


# What a resumed training may not change. Where it runs may; so may its length, which the checkpoint then records.
_IDENTITY = frozenset(TrainConfig.model_fields) - {
    "name", "steps", "workers", "threads", "device", "save_every", "log_every", "score_examples", "out",
}  # fmt: skip


def _parent(config: TrainConfig) -> Checkpoint | None:
    """Return the checkpoint that a training starts from.

    Raises:
        SwarmError: it is missing, damaged, or of another shape.
    """
    if config.init is None:
        return None
    try:
        parent = load_checkpoint(Path(config.init))
    except ValueError as error:
        raise SwarmError(f"init: {error}") from error
    wanted = preset(config.preset, parent.tokenizer.vocab_size, window=config.window)
    if parent.config != wanted:
        raise SwarmError(f"init: {config.init} is no {config.preset} of window {config.window}; set preset and window")
    return parent


def _fit(config: TrainConfig, folder: Path, device: torch.device) -> None:
    run_workers(
        _loop,
        {"config": config.model_dump(mode="json"), "folder": str(folder.resolve())},
        name=config.name,
        folder=folder,
        workers=config.workers,
        threads=config.threads,
        use_gpu=device.type == "cuda",
    )


def _finish(config: TrainConfig, folder: Path, out: Path, device: torch.device, echo: Callable[[str], None]) -> Path:
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    model = Decoder(preset(config.preset, tokenizer.vocab_size, window=config.window), seed=config.seed)
    saved = load_state(folder / "state", model, make_optimizer(model, 1.0, 0.0, (0.9, 0.99), config.optimizer))
    if saved is None:
        raise SwarmError(f"no training state in {folder}")
    progress = saved.progress
    # Scores belong to the weights that ship, so they are rounded to bfloat16 before they are scored.
    model.to(torch.bfloat16).to(torch.float32)
    scores = score_policy(model.to(device), tokenizer, config.world, config.task, config.seed, config.score_examples)
    for kind, score in scores.items():
        echo(f"score of {kind}: {score}")
    meta = {
        "recipe": config.model_dump(mode="json"),
        "training_seconds": round(float(progress["seconds"]), 1),
        "examples": progress["examples"],
        "schedule": progress.get("schedule", []),
        "scores": scores,
        "hardware": f"{os.cpu_count()} CPU cores, {device.type}",
    }
    if config.init is not None:
        try:
            parent = read_checkpoint_config(Path(config.init))
        except ValueError as error:
            raise SwarmError(f"init: {error}") from error
        meta["recipe"]["init"] = Path(config.init).name
        meta["started_from"] = {"sha256": parent.sha256, "meta": parent.meta}
    save_checkpoint(out, model.cpu(), tokenizer, meta, dtype=torch.bfloat16)
    return out


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def score_policy(
    model: Decoder, tokenizer: Tokenizer, world: str, task: str, seed: int, examples: int
) -> dict[str, dict[str, Any]]:
    """Score a policy on held-out puzzles, kind by kind.

    Returns:
        kind -> n, `held_out` (false for kinds without a puzzle to hold out), `greedy` (share solved by one greedy
        attempt) and `sampled` (by one attempt at temperature .7).
    """
    engine = Engine(model, tokenizer)
    scores: dict[str, dict[str, Any]] = {}
    taught = lessons.open_lessons(world, task)
    for kind in taught.tasks[task] if examples else ():
        cases = [lessons.held_out_example(world, task, kind, seed, i) for i in range(examples)]
        row: dict[str, Any] = {"n": len(cases), "held_out": kind not in taught.practice}
        for name, temperature in (("greedy", 0.0), ("sampled", 0.7)):
            requests = [
                GenerationRequest(lessons.pair(case)[1], derive_seed(seed, "score", i), 64, temperature, stop=(STOP,))
                for i, case in enumerate(cases)
            ]
            answers = [result.text for batch in _batches(requests, 512) for result in engine.generate(batch)]
            solved = sum(taught.judge(case, answer) for case, answer in zip(cases, answers, strict=True))
            row[name] = round(solved / len(cases), 4)
        scores[kind] = row
    return scores


def train_from_file(
    path: Path,
    overrides: list[str],
    out: Path | None,
    workers: int | None,
    resume: bool,
    echo: Callable[[str], None] = print,
) -> Path:
    """Train what a YAML file describes; the working folder is `runs/train-<name>`.

    Raises:
        SwarmError: see `train`.
    """
    from swarm.config.load import load_chosen_model
    from swarm.train.lora import LoraRecipe, train_lora
    from swarm.train.memory_agent import MemoryAgentConfig, train_memory_agent

    def schema(data: Mapping[str, Any]) -> type[LoraRecipe | MemoryAgentConfig | TrainConfig]:
        if "model" in data:
            return LoraRecipe
        return MemoryAgentConfig if "span" in data else TrainConfig

    recipe = load_chosen_model(path, schema, overrides, {"workers": workers})
    work = Path("runs") / f"train-{recipe.name}"
    target = out if out is not None else path.parent / recipe.out
    if isinstance(recipe, LoraRecipe):
        return train_lora(recipe, path.parent, work, target, echo, resume)
    if isinstance(recipe, MemoryAgentConfig):
        return train_memory_agent(recipe, work, target, echo, resume)
    if recipe.init is not None:
        recipe = recipe.model_copy(update={"init": str((path.parent / recipe.init).resolve())})
    return train(recipe, work, target, echo, resume)
