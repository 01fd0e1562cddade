"""Trains one language model of a lab, from its last saved state on."""

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swarm.actors.ray_train import run_workers
from swarm.config.section import logical_settings
from swarm.config.training import resolve_device
from swarm.errors import SwarmError
from swarm.files import make_folder
from swarm.identity import claim, is_claimed
from swarm.lab.ltm.config import LabConfig
from swarm.process.machine import cores
from swarm.seeds import derive_seed
from swarm.train.loop import STATES, run_training, trained
from ulm.checkpoint import save_checkpoint
from ulm.data.coherence import Continuations, Sentences
from ulm.data.corpus import Corpus
from ulm.data.document_stream import DocumentStream, Source, Windows, corpus_documents, recall_documents
from ulm.data.infill import InfillTask, infill_documents
from ulm.data.recall import RecallTask, fits
from ulm.model import Decoder
from ulm.train.curriculum import Curriculum
from ulm.train.documents import DocumentObjective
from ulm.train.evaluation import score_recall
from ulm.train.reconstruction import ReconstructionObjective, ReconstructionRules
from ulm.train.states import RollingStates
from ulm.train.step import Worker, make_optimizer

PROBED = 4
"""Sequences by which a curriculum judges what is mastered."""


def recall_task(config: LabConfig, corpus: Corpus) -> RecallTask:
    """Return the recall task of a lab; keys and values are the same tokens for every seed and arm.

    Raises:
        ValueError: the tokenizer has too few tokens.
    """
    fields = config.recall.model_dump(include={"filler", "num_keys", "num_values", "num_pairs", "spacing"})
    return RecallTask.of(corpus.tokenizer, seed=derive_seed(config.corpus.seed, "recall tokens"), **fields)


def _stream(config: LabConfig, arm: str, corpus: Corpus, seed: int) -> DocumentStream | Windows:
    train, order = config.train, derive_seed(seed, "documents")
    if train.mode == "windows":
        return Windows(corpus.stream("train"), config.optimizer.batch_size, train.width, train.stride, order)
    learns, text = config.arm(arm), corpus.stream("train")
    practised = config.recall.practice_text if learns is None else learns.practice_text
    if practised and len(text) < config.recall.practice_tokens:
        raise SwarmError(
            f"recall is to be practised in {config.recall.practice_tokens} tokens of text, and the corpus has "
            f"{len(text)}; lower recall.practice_tokens, or take more text"
        )
    practice = partial(recall_documents, recall_task(config, corpus), derive_seed(seed, "practice"))
    sources: dict[str, Source] = {
        "text": corpus_documents(corpus, order),
        "recall": practice(config.recall.practice_tokens, text, practised),
    }
    if learns is not None and learns.curriculum is not None:
        levels = _levels(config)
        sources["recall"] = Curriculum(
            [practice(longest, text, float(through_text)) for longest, through_text in levels],
            learns.curriculum,
            config.optimizer.steps,
            derive_seed(seed, "curriculum"),
            partial(_mastered, config, corpus, levels),
            range(len(levels)),
        )
    if learns is not None and learns.infill_rows:
        sources["infill"] = infill_documents(
            InfillTask.of(corpus.tokenizer),
            text,
            derive_seed(seed, "holes"),
            config.model.window,
            far=learns.far,
            seen=learns.seen,
            longest=learns.longest,
        )
    return DocumentStream(
        [sources[kind] for kind in kinds_of_rows(config, arm)], config.model.window, corpus.tokenizer.pad_id
    )


def _levels(config: LabConfig) -> list[tuple[int, bool]]:
    """Return the levels of practising recall: tokens of the longest sequences, and whether through text."""
    longest = config.recall.practice_tokens
    lengths = [longest // 2**halved for halved in (3, 2, 1, 0) if longest // 2**halved >= 64] or [longest]
    return [(length, through_text) for length in lengths for through_text in (False, True)]


def _mastered(
    config: LabConfig, corpus: Corpus, levels: Sequence[tuple[int, bool]], model: Decoder, level: int
) -> float:
    """Return the recall of fresh pairs at half the length of a level's sequences, through its filler."""
    longest, through_text = levels[level]
    task = recall_task(config, corpus)
    distance = next((d for d in range(longest // 2, 4 * longest) if fits(d, task.num_pairs, task.spacing)), longest)
    text = corpus.stream("train") if through_text else None
    scores = score_recall(model, task, distance, PROBED, seed=derive_seed(0, "probe"), text=text)
    return float(scores.recalled.mean())


def kinds_of_rows(config: LabConfig, arm: str) -> list[str]:
    """Return what each row of a batch reads."""
    learns = config.arm(arm)
    recall, infill = (config.recall.rows, 0) if learns is None else (learns.recall_rows, learns.infill_rows)
    return ["text"] * (config.optimizer.batch_size - recall - infill) + ["recall"] * recall + ["infill"] * infill


def train_worker(settings: dict[str, Any], worker: Worker) -> None:
    """Train a worker's share of an arm.

    Args:
        settings: `config`, `arm`, `seed`, `folder` (of the training) and `corpus` (folder).
        worker: who trains; without Ray the only one.

    Raises:
        SwarmError: see `run_training`.
    """
    config, arm, seed, folder = (settings[name] for name in ("config", "arm", "seed", "folder"))
    train, optimizer, corpus = config.train, config.optimizer, Corpus.open(settings["corpus"])
    stream = _stream(config, arm, corpus, seed)
    objective = objective_of(config, arm, seed, worker, corpus.tokenizer.vocab_size, stream, corpus)
    tracked = worker.rank == 0 and train.tracking == "wandb"
    with _tracking(config, arm, seed, folder, worker) if tracked else nullcontext(worker) as objective.worker:
        run_training(
            objective,
            optimizer,
            states=RollingStates(folder / STATES, train.keep),
            save_every=train.save_every,
            log_every=train.log_every,
        )


def objective_of(
    config: LabConfig,
    arm: str,
    seed: int,
    worker: Worker,
    vocab_size: int,
    stream: DocumentStream | Windows,
    corpus: Corpus | None = None,
) -> DocumentObjective:
    """Return what a worker trains: an arm's model, before its first step, on what the rows of a stream read.

    Args:
        config: the lab.
        arm: which model.
        seed: of weights and data order.
        worker: who trains.
        vocab_size: tokens of the corpus.
        stream: what the rows read.
        corpus: what an arm learns beside the next token comes from; None leaves that out.
    """
    train, optimizer, place, learns = config.train, config.optimizer, config.place, config.arm(arm)
    model = Decoder(config.shape(arm, vocab_size), seed=derive_seed(seed, "weights")).to(worker.device)
    updates = make_optimizer(model, optimizer.lr, optimizer.weight_decay, optimizer.betas, optimizer.kind)
    settings: dict[str, Any] = {
        "segments": 1 if train.mode == "windows" else train.span // config.model.window,
        "parts": optimizer.micro_batches,
        "dtype": place.compute_dtype,
        "compile": place.compile,
    }
    if learns is None or corpus is None:
        return DocumentObjective(model, updates, worker, stream, **settings)
    _raise_rate(updates, model, learns.reader_lr)
    rules = ReconstructionRules(
        kinds_of_rows(config, arm),
        InfillTask.of(corpus.tokenizer) if learns.infill_rows or learns.two_way else None,
        **learns.model_dump(include={"noise", "two_way", "consistency", "coherence", "plain"}),
        continuations=_continuations(config, corpus) if learns.coherence else None,
        curriculum=next((source for source in stream.sources() if isinstance(source, Curriculum)), None),
        seed=derive_seed(seed, "reconstruction"),
    )
    return ReconstructionObjective(model, updates, worker, stream, rules=rules, **settings)


def _raise_rate(updates: torch.optim.Optimizer, model: Decoder, factor: float) -> None:
    """Give what reads the memory a learning rate of its own, a multiple of the others'."""
    readers = {id(p) for name, p in model.named_parameters() if name.startswith("ltm.")}
    for group in [*updates.param_groups] if factor != 1.0 else ():
        own = [id(p) in readers for p in group["params"]]
        for_each = [name for name, value in group.items() if isinstance(value, list) and len(value) == len(own)]
        ours = {name: [x for x, is_own in zip(group[name], own, strict=True) if is_own] for name in for_each}
        if any(own):
            for name in for_each:
                group[name] = [x for x, is_own in zip(group[name], own, strict=True) if not is_own]
            updates.add_param_group({**group, **ours, "lr_factor": factor})


def _continuations(config: LabConfig, corpus: Corpus) -> Callable[[np.random.Generator], Continuations | None]:
    """Return what draws sentences to tell apart from a corpus.

    Raises:
        SwarmError: it has none.
    """
    count, sentences = corpus.num_documents("train"), Sentences.of(corpus.tokenizer, config.model.window)

    def draw(generator: np.random.Generator) -> Continuations | None:
        return sentences.continuations(generator, corpus.document("train", int(generator.integers(count))))

    generator = np.random.Generator(np.random.PCG64(0))
    if not any(draw(generator) for _ in range(200)):
        raise SwarmError(
            "coherence needs documents of several sentences that end with a full stop; set coherence: 0, or take other "
            "texts"
        )
    return draw


@contextmanager
def _tracking(config: LabConfig, arm: str, seed: int, folder: Path, worker: Worker) -> Iterator[Worker]:
    """Give a worker that also sends its metrics to Weights & Biases; at the end what was sent is on disk, or there."""
    import wandb

    run = wandb.init(
        project=config.name,
        name=f"{arm}-s{seed}",
        dir=str(folder),
        config={**config.model_dump(mode="json"), "arm": arm, "seed": seed},
        resume="allow",
        id=f"{config.name}-{arm}-s{seed}",
    )

    def report(record: dict[str, Any]) -> None:
        worker.report(record)
        if "step" in record:
            run.log(record, step=record["step"])

    try:
        yield dataclasses.replace(worker, report=report)
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


def require_training(config: LabConfig) -> None:
    """Refuse a device or a package that is not there.

    Raises:
        SwarmError: it is not.
    """
    resolve_device(config.place.device)
    if config.train.tracking == "wandb" and importlib.util.find_spec("wandb") is None:
        raise SwarmError("tracking: wandb needs its package: pip install 'ulm-swarm[tracking]'")


def train_language_model(config: LabConfig, arm: str, seed: int, corpus: Corpus, folder: Path) -> None:
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
    make_folder(folder)
    recipe = _recipe(config, arm, seed, corpus)
    claim(folder / "recipe.json", recipe)
    settings = {
        "config": config,
        "arm": arm,
        "seed": seed,
        "folder": folder.resolve(),
        "corpus": corpus.folder.resolve(),
    }
    try:
        run_workers(train_worker, settings, name=f"{config.name}-{arm}-s{seed}", folder=folder, place=config.place)
    except SwarmError as error:
        raise SwarmError(f"{arm}, seed {seed}: {error}") from error
    model = Decoder(config.shape(arm, corpus.tokenizer.vocab_size))
    progress = trained(folder, model, config.optimizer.steps)
    meta = {
        "recipe": recipe,
        "training_seconds": round(progress["seconds"], 1),
        "tokens": progress["tokens"],
        "hardware": f"{cores()} CPU cores, {resolve_device(config.place.device)}",
    }
    save_checkpoint(folder / "checkpoint", model, corpus.tokenizer, meta, dtype=torch.bfloat16)


def is_trained(config: LabConfig, arm: str, seed: int, corpus: Corpus, folder: Path) -> bool:
    """Return whether a folder holds the finished training of this recipe.

    Raises:
        SwarmError: it holds another one.
    """
    return is_claimed(folder / "recipe.json", _recipe(config, arm, seed, corpus)) and (folder / "checkpoint").is_dir()


def _recipe(config: LabConfig, arm: str, seed: int, corpus: Corpus) -> dict[str, Any]:
    """Return what decides the result of a training."""
    settings = logical_settings(config)
    decides = {name: settings[name] for name in ("train", "optimizer", "place", "recall")}
    decides["recall"] = {k: v for k, v in decides["recall"].items() if k not in ("distances", "sequences")}
    shape = config.shape(arm, corpus.tokenizer.vocab_size).to_dict()
    if (learns := config.arm(arm)) is not None:
        decides["learns"] = learns.model_dump(exclude={"like", "conditions"})
    return {"arm": arm, "seed": seed, "model": shape, "corpus": corpus.manifest["sha256"], **decides}
