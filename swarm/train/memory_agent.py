"""`swarm train` for agents that remember: whole episodes, call by call, with the memory carried through each.

Owns the recipe (`MemoryAgentConfig`), what a Ray Train worker builds from it, and the scoring on held-out episodes with
the memory on and off. The loop itself is that of every training on documents.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from swarm.actors.ray_tasks import require_device
from swarm.actors.ray_train import give_up, run_workers
from swarm.config.section import Section
from swarm.errors import SwarmError
from swarm.prompt import STOP
from swarm.seeds import derive_seed
from swarm.train import lessons
from swarm.train.loop import METRICS, run_training
from swarm.train.progress import following, progress_lines
from ulm.checkpoint import save_checkpoint
from ulm.config import ModelConfig, preset
from ulm.data.document_stream import DocumentStream
from ulm.decode.engine import Engine, GenerationRequest
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer
from ulm.train.documents import LanguageModelTraining
from ulm.train.pairs import make_optimizer
from ulm.train.states import RollingStates

__all__ = ["MemoryAgentConfig", "check_recipe", "score_episodes", "train_memory_agent"]


class MemoryAgentConfig(Section):
    """What a training file for an agent with memory may say.

    Attributes:
        name: names the run folder and the policy.
        world: whose lessons are learned; task: one of theirs, whose examples are episodes.
        preset: a size of `ulm.config.PAIRS`, with memory; window: STM in tokens; ltm: fields that differ.
        vocab_size: upper limit of the trained BPE tokenizer.
        span: tokens per row and step, a multiple of the memory's segment; gradients reach back so far.
        steps, batch_size, lr, betas, warmup, weight_decay, clip, optimizer: the optimizer, with a cosine schedule.
        save_every, log_every, workers, threads, device: as for every training.
        score_episodes: held-out episodes that the finished policy is scored on.
        out: checkpoint folder, relative to the YAML file.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    world: str
    task: str
    seed: int = Field(0, ge=0, lt=2**63)
    preset: str = "revena-1m"
    window: int = Field(128, ge=8)
    ltm: dict[str, Any] = Field(default_factory=dict)
    vocab_size: int = Field(1024, ge=259)
    span: int = Field(512, ge=8)
    steps: int = Field(ge=1)
    batch_size: int = Field(16, ge=1)
    lr: float = Field(2e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = Field(100, ge=1)
    weight_decay: float = Field(0.1, ge=0)
    clip: float = Field(1.0, gt=0)
    optimizer: Literal["adamw", "muon"] = "muon"
    save_every: int = Field(200, ge=1)
    log_every: int = Field(50, ge=1)
    workers: int = Field(1, ge=1)
    threads: int | None = Field(None, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    score_episodes: int = Field(64, ge=1)
    out: str

    def shape(self, vocab_size: int) -> ModelConfig:
        """Return the shape of the model.

        Raises:
            ValueError: no such preset, one without memory, or fields that do not fit.
        """
        config = preset(self.preset, vocab_size, window=self.window, ltm=self.ltm)
        if config.ltm is None:
            raise ValueError(f"preset {self.preset} has no long-term memory; take one of the revena presets")
        return config

    @model_validator(mode="after")
    def _fits(self) -> MemoryAgentConfig:
        ltm = self.shape(self.vocab_size).ltm
        if ltm is not None and self.span % ltm.segment:
            raise ValueError(f"span {self.span} must be a multiple of the memory's segment {ltm.segment}")
        if self.batch_size % self.workers:
            raise ValueError(f"batch_size {self.batch_size} cannot be shared evenly by {self.workers} workers")
        return self


def _stream(config: MemoryAgentConfig, tokenizer: Tokenizer, segment: int) -> DocumentStream:
    seed = derive_seed(config.seed, "episodes")

    def texts(number: int) -> list[NDArray[np.int64]]:
        calls = lessons.episode(config.world, config.task, seed, number)
        return [np.array(ids) for ids in _encode([lessons.pair(call) for call in calls], tokenizer)]

    return DocumentStream([texts] * config.batch_size, segment, tokenizer.pad_id)


def _encode(calls: list[lessons.Text], tokenizer: Tokenizer) -> list[list[int]]:
    """Return the ids of each call; prompt and completion are encoded apart, as they meet in play."""
    prompts = tokenizer.encode_batch([prompt for _, prompt, _ in calls])
    completions = tokenizer.encode_batch([completion for _, _, completion in calls])
    return [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]


def _loop(settings: dict[str, Any]) -> None:
    """Run in every worker: the whole training, from the last saved state on."""
    import ray.train
    import ray.train.torch

    config = MemoryAgentConfig.model_validate(settings["config"])
    folder = Path(settings["folder"])
    context = ray.train.get_context()
    if config.threads:
        torch.set_num_threads(config.threads)
    device = ray.train.torch.get_device() if config.device != "cpu" else torch.device("cpu")
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    shape = config.shape(tokenizer.vocab_size)
    model = Decoder(shape, seed=derive_seed(config.seed, "weights")).to(device)
    training = LanguageModelTraining(
        model,
        make_optimizer(model, config.lr, config.weight_decay, config.betas, config.optimizer),
        _stream(config, tokenizer, shape.segment),
        segments=config.span // shape.segment,
        peak_lr=config.lr,
        warmup=config.warmup,
        steps=config.steps,
        clip=config.clip,
        rank=context.get_world_rank(),
        workers=context.get_world_size(),
    )
    states = RollingStates(folder / "states")
    reason = run_training(training, states, folder, save_every=config.save_every, log_every=config.log_every)
    if reason is not None:
        return give_up(folder, reason)
    ray.train.report({"step": config.steps})
    return None


def train_memory_agent(
    config: MemoryAgentConfig, folder: Path, out: Path, echo: Callable[[str], None], resume: bool = False
) -> Path:
    """Train, score and save an agent with memory; arguments and errors as of `swarm.train.policy.train`.

    Returns:
        `out`.

    Raises:
        SwarmError: unfinished state without `resume`, another recipe, no GPU, or training failed.
    """
    require_device(config.device)
    lessons.open_lessons(config.world, config.task)
    cuda = torch.cuda.is_available()
    recipe = config.model_dump(mode="json")
    recipe_file = folder / "recipe.json"
    if recipe_file.exists():
        if not resume:
            raise SwarmError(f"{folder} holds an earlier training; add --resume to go on, or remove the folder")
        check_recipe(recipe_file, recipe)
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            Tokenizer.train(lessons.corpus(config.world, config.task), config.vocab_size).save(
                folder / "tokenizer.json"
            )
            recipe_file.write_text(json.dumps(recipe, indent=1, sort_keys=True), encoding="utf-8")
        except OSError as error:
            raise SwarmError(f"cannot write to {folder}: {error}") from error
    with following(folder / METRICS, progress_lines(config.steps, echo)):
        run_workers(
            _loop,
            {"config": recipe, "folder": str(folder.resolve())},
            name=config.name,
            folder=folder,
            workers=config.workers,
            threads=config.threads,
            use_gpu=config.device == "cuda" or (config.device == "auto" and cuda),
        )
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    model = Decoder(config.shape(tokenizer.vocab_size))
    optimizer = make_optimizer(model, 1.0, 0.0, (0.9, 0.99), config.optimizer)
    saved = RollingStates(folder / "states").load(model, optimizer, lambda line: None)
    if saved is None or saved.progress["step"] != config.steps:
        raise SwarmError(f"training in {folder} ended before its last step; go on with --resume")
    model.to(torch.bfloat16).to(torch.float32)  # scores belong to the weights that ship
    scores = score_episodes(model, tokenizer, config.world, config.task, config.seed, config.score_episodes)
    for name, score in scores.items():
        echo(f"score of {name}: {score}")
    meta = {
        "recipe": recipe,
        "training_seconds": round(float(saved.progress["seconds"]), 1),
        "tokens": saved.progress["tokens"],
        "scores": scores,
        "hardware": f"{os.cpu_count()} CPU cores, {'cuda' if cuda else 'cpu'}",
    }
    save_checkpoint(out, model, tokenizer, meta, dtype=torch.bfloat16)
    return out


_PLACE = frozenset({"name", "workers", "threads", "device", "save_every", "log_every", "score_episodes", "out"})


def check_recipe(recipe_file: Path, recipe: dict[str, Any]) -> None:
    """Refuse to go on with a training that was started as another one; where it runs may change.

    Raises:
        SwarmError: it was, or its record is damaged.
    """
    try:
        earlier = json.loads(recipe_file.read_text(encoding="utf-8"))
        same = {k: v for k, v in earlier.items() if k not in _PLACE} == {
            k: v for k, v in recipe.items() if k not in _PLACE
        }
    except (OSError, ValueError, AttributeError) as error:
        raise SwarmError(f"{recipe_file} is damaged ({error}); remove its folder to start over") from error
    if not same:
        raise SwarmError(f"{recipe_file.parent} was started with another recipe; remove the folder to start over")


def score_episodes(
    model: Decoder, tokenizer: Tokenizer, world: str, task: str, seed: int, episodes: int
) -> dict[str, dict[str, float | int]]:
    """Score an agent on held-out episodes, greedily, its prompts being those of an agent that does everything right.

    Returns:
        kind of call -> `n`, `memory_on` and `memory_off`: shares of calls answered as they should be, with the memory
        carried through the episode and with an empty one at every call.
    """
    engine, taught = Engine(model, tokenizer), lessons.open_lessons(world, task)
    held_out = derive_seed(seed, "held-out episodes")
    right: dict[str, dict[str, list[bool]]] = {}
    for number in range(episodes):
        for name in ("memory_on", "memory_off"):
            memory = None
            for call in lessons.episode(world, task, held_out, number, held_out=True):
                kind, prompt, _ = lessons.pair(call)
                request = GenerationRequest(prompt, 0, 8, 0.0, stop=(STOP,), memory=memory)
                (result,) = engine.generate([request])
                if name == "memory_on":
                    memory = result.memory
                right.setdefault(kind, {}).setdefault(name, []).append(taught.judge(call, result.text))
    return {
        kind: {"n": len(found["memory_on"]), **{name: round(float(np.mean(x)), 4) for name, x in found.items()}}
        for kind, found in sorted(right.items())
    }
