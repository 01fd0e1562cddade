"""Measures how fast the arms of a lab read and train, in turn and in this process, so that their ratio means something.

Owns the rounds; a machine that does other work at the time gives wide intervals, not a wrong ratio.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from swarm.lab.ltm.config import LabConfig
from ulm.data.corpus import Corpus
from ulm.data.document_stream import DocumentStream, corpus_documents
from ulm.model import Decoder
from ulm.train.documents import LanguageModelTraining
from ulm.train.evaluation import score_documents
from ulm.train.pairs import make_optimizer

__all__ = ["measure_speed"]


def measure_speed(
    config: LabConfig, corpus: Corpus, models: Mapping[str, Decoder]
) -> dict[str, dict[str, list[float]]]:
    """Return `read` and `train` -> arm -> tokens per second of each round; the models' weights are trained on.

    Args:
        config: the lab; its batch and segments are what is timed.
        corpus: held-out documents are read, training documents trained on.
        models: arm -> trained model.
    """
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    documents, tokens = [], 0
    for index in range(corpus.num_documents("val")):
        documents.append(corpus.document("val", index))
        tokens += len(documents[-1]) - 1
        if tokens >= config.eval.speed_tokens:
            break
    trainings = {arm: _training(config, corpus, model) for arm, model in models.items()}
    found: dict[str, dict[str, list[float]]] = {kind: {arm: [] for arm in models} for kind in ("read", "train")}
    for number in range(config.eval.speed_rounds + 1):
        for arm, model in models.items():
            start = time.perf_counter()
            read = int(score_documents(model.eval(), documents).tokens.sum())
            reading = read / (time.perf_counter() - start)
            start = time.perf_counter()
            trained = sum(trainings[arm].train_step().tokens for _ in range(2))
            training = trained / (time.perf_counter() - start)
            if number:  # the first round warms up
                found["read"][arm].append(reading)
                found["train"][arm].append(training)
    return found


def _training(config: LabConfig, corpus: Corpus, model: Decoder) -> LanguageModelTraining:
    train = config.train
    rows = [corpus_documents(corpus, 0)] * train.batch_size
    return LanguageModelTraining(
        model.requires_grad_(True),
        make_optimizer(model, train.lr, train.weight_decay, train.betas, train.optimizer),
        DocumentStream(rows, config.model.window, corpus.tokenizer.pad_id),
        segments=train.span // config.model.window,
        peak_lr=train.lr,
        warmup=1,
        steps=10**6,
        micro_batches=train.micro_batches,
    )
