"""Trains one language model of a lab on the workers of Ray Train, from its last saved state on.

Owns the loop around `ulm.train.documents`: what a worker opens, when it logs and saves, and how it stops.
One worker or many, CPU or GPU: the loop is the same.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from swarm.actors.ray_tasks import require_device
from swarm.actors.ray_train import give_up, run_workers
from swarm.errors import SwarmError
from swarm.lab.ltm.config import Arm, LabConfig, TrainSection
from swarm.seeds import derive_seed
from swarm.train.loop import run_training
from ulm.checkpoint import save_checkpoint
from ulm.data.corpus import Corpus
from ulm.data.document_stream import DocumentStream, Windows, corpus_documents, recall_documents
from ulm.data.recall import RecallTask
from ulm.model import Decoder
from ulm.train.documents import LanguageModelTraining
from ulm.train.pairs import make_optimizer
from ulm.train.states import RollingStates

__all__ = ["is_trained", "recall_task", "require_training", "train_language_model"]


def recall_task(config: LabConfig, corpus: Corpus) -> RecallTask:
    """Return the recall task of a lab; keys and values are the same tokens for every seed and arm.

    Raises:
        ValueError: the tokenizer has too few tokens.
    """
    r = config.recall
    return RecallTask.of(
        corpus.tokenizer,
        r.filler,
        num_keys=r.num_keys,
        num_values=r.num_values,
        num_pairs=r.num_pairs,
        spacing=r.spacing,
        seed=derive_seed(config.corpus.seed, "recall tokens"),
    )


def _stream(config: LabConfig, corpus: Corpus, seed: int) -> DocumentStream | Windows:
    train = config.train
    order = derive_seed(seed, "documents")
    if train.mode == "windows":
        return Windows(corpus.stream("train"), train.batch_size, train.width, train.stride, order)
    rows = [corpus_documents(corpus, order)] * (train.batch_size - config.recall.rows)
    if config.recall.rows:
        practice = recall_documents(
            recall_task(config, corpus),
            derive_seed(seed, "practice"),
            config.recall.practice_tokens,
            corpus.stream("train"),
            config.recall.practice_text,
        )
        rows += [practice] * config.recall.rows
    return DocumentStream(rows, config.model.window, corpus.tokenizer.pad_id)


def _loop(settings: dict[str, Any]) -> None:
    """Run in every worker: the whole training, from the last saved state on."""
    import ray.train
    import ray.train.torch

    config = LabConfig.model_validate(settings["config"])
    arm: Arm = settings["arm"]
    seed = int(settings["seed"])
    folder = Path(settings["folder"])
    train = config.train
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    if train.threads:
        torch.set_num_threads(train.threads)
    device = ray.train.torch.get_device() if train.device != "cpu" else torch.device("cpu")
    corpus = Corpus.open(Path(settings["corpus"]))
    shape = config.model.config(arm, corpus.tokenizer.vocab_size)
    model = Decoder(shape, seed=derive_seed(seed, "weights")).to(device)
    optimizer = make_optimizer(model, train.lr, train.weight_decay, train.betas, train.optimizer)
    try:
        training = LanguageModelTraining(
            model,
            optimizer,
            _stream(config, corpus, seed),
            segments=1 if train.mode == "windows" else train.span // config.model.window,
            peak_lr=train.lr,
            warmup=train.warmup,
            steps=train.steps,
            clip=train.clip,
            micro_batches=train.micro_batches,
            autocast=torch.bfloat16 if train.dtype == "bfloat16" else None,
            compile=train.compile,
            rank=rank,
            workers=workers,
        )
    except ValueError as error:
        return give_up(folder, str(error))
    states = RollingStates(folder / "states", train.keep)
    with _tracking(config, arm, seed, folder) if rank == 0 and train.tracking == "wandb" else nullcontext() as track:
        reason = run_training(
            training, states, folder, save_every=train.save_every, log_every=train.log_every, track=track
        )
    if reason is not None:
        return give_up(folder, f"{arm}, seed {seed}: {reason}")
    ray.train.report({"step": train.steps})
    return None


@contextmanager
def _tracking(config: LabConfig, arm: Arm, seed: int, folder: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give what sends a line of the log to Weights & Biases; at the end what was sent is on disk, or there."""
    import wandb

    run = wandb.init(
        project=config.name,
        name=f"{arm}-s{seed}",
        dir=str(folder),
        config={**config.model_dump(mode="json"), "arm": arm, "seed": seed},
        resume="allow",
        id=f"{config.name}-{arm}-s{seed}",
    )
    try:
        yield lambda line: run.log(line, step=line["step"])
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


def require_training(train: TrainSection) -> None:
    """Refuse a device or a package that is not there.

    Raises:
        SwarmError: it is not.
    """
    require_device(train.device)
    if train.tracking == "wandb" and importlib.util.find_spec("wandb") is None:
        raise SwarmError("tracking: wandb needs its package: pip install 'ulm-swarm[tracking]'")


def train_language_model(config: LabConfig, arm: Arm, seed: int, corpus: Corpus, folder: Path) -> None:
    """Train one arm with one seed and leave its checkpoint in `folder`/checkpoint.

    Args:
        config: the lab.
        arm: which model.
        seed: of weights and data order.
        corpus: prepared.
        folder: of this training: states, metrics, checkpoint; a training that is there is continued.

    Raises:
        SwarmError: bad device, another recipe in the folder, or the training failed.
    """
    train = config.train
    cuda = torch.cuda.is_available()
    require_training(train)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = _recipe(config, arm, seed, corpus)
    recipe_file = folder / "recipe.json"
    if recipe_file.exists():
        _check_recipe(folder, recipe)
    else:
        recipe_file.write_text(json.dumps(recipe, indent=1, sort_keys=True), encoding="utf-8")
    run_workers(
        _loop,
        {
            "config": config.model_dump(mode="json"),
            "arm": arm,
            "seed": seed,
            "folder": str(folder.resolve()),
            "corpus": str(corpus.folder.resolve()),
        },
        name=f"{config.name}-{arm}-s{seed}",
        folder=folder,
        workers=train.workers,
        threads=train.threads,
        use_gpu=train.device == "cuda" or (train.device == "auto" and cuda),
    )
    model = Decoder(config.model.config(arm, corpus.tokenizer.vocab_size))
    saved = RollingStates(folder / "states", train.keep).load(
        model, make_optimizer(model, 1.0, 0.0, (0.9, 0.99), train.optimizer), lambda line: None
    )
    if saved is None or saved.progress["step"] != train.steps:
        raise SwarmError(f"training in {folder} ended before its last step; run the same command again")
    meta = {
        "recipe": recipe,
        "training_seconds": round(saved.progress["seconds"], 1),
        "tokens": saved.progress["tokens"],
        "hardware": f"{os.cpu_count()} CPU cores, {'cuda' if cuda else 'cpu'}",
    }
    save_checkpoint(folder / "checkpoint", model, corpus.tokenizer, meta, dtype=torch.bfloat16)


def is_trained(config: LabConfig, arm: Arm, seed: int, corpus: Corpus, folder: Path) -> bool:
    """Return whether a folder holds the finished training of this recipe.

    Raises:
        SwarmError: it holds another one.
    """
    if not (folder / "recipe.json").exists():
        return False
    _check_recipe(folder, _recipe(config, arm, seed, corpus))
    return (folder / "checkpoint").is_dir()


def _check_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    try:
        same = json.loads((folder / "recipe.json").read_text(encoding="utf-8")) == recipe
    except ValueError as error:
        raise SwarmError(f"{folder / 'recipe.json'} is damaged ({error}); remove {folder} to start over") from error
    if not same:
        raise SwarmError(f"{folder} was trained with another recipe; choose another --out, or remove the folder")


_PLACE = frozenset({"workers", "threads", "device", "save_every", "keep", "log_every", "tracking"})
"""Settings that say where and how a training runs, and may change when it is continued."""


def _recipe(config: LabConfig, arm: Arm, seed: int, corpus: Corpus) -> dict[str, Any]:
    """Return what decides the result of a training."""
    data = config.model_dump(mode="json")
    recall = {k: v for k, v in data["recall"].items() if k not in ("distances", "sequences")}
    return {
        "arm": arm,
        "seed": seed,
        "model": config.model.config(arm, corpus.tokenizer.vocab_size).to_dict(),
        "corpus": corpus.manifest["sha256"],
        "recall": recall,
        "train": {k: v for k, v in data["train"].items() if k not in _PLACE},
    }
