"""Measures how fast the arms of a lab read and train, in turn and in this process, so that their ratio means something.

Owns the rounds; a machine that does other work at the time gives wide intervals, not a wrong ratio.
"""

import time
from collections.abc import Mapping

import torch

from swarm.lab.ltm.config import LabConfig
from ulm.data.corpus import Corpus
from ulm.data.document_stream import DocumentStream, corpus_documents
from ulm.model import Decoder
from ulm.train.documents import DocumentObjective
from ulm.train.evaluation import score_documents
from ulm.train.step import Worker, make_optimizer, train_step


def measure_speed(
    config: LabConfig, corpus: Corpus, models: Mapping[str, Decoder]
) -> dict[str, dict[str, list[float]]]:
    """Return `read` and `train` -> arm -> tokens per second of each round; the models' weights are trained on.

    Args:
        config: the lab; its batch and segments are what is timed.
        corpus: held-out documents are read, training documents trained on.
        models: arm -> trained model.
    """
    if config.place.threads:
        torch.set_num_threads(config.place.threads)
    enough = int(corpus.sizes("val")[0].cumsum().searchsorted(config.eval.speed_tokens)) + 1
    documents = [corpus.document("val", index) for index in range(min(enough, corpus.num_documents("val")))]
    trainings = {arm: _training(config, corpus, model) for arm, model in models.items()}
    found: dict[str, dict[str, list[float]]] = {kind: {arm: [] for arm in models} for kind in ("read", "train")}
    for number in range(config.eval.speed_rounds + 1):
        for arm, model in models.items():
            start = time.perf_counter()
            read = int(score_documents(model.eval(), documents).tokens.sum())
            between = time.perf_counter()
            trained = sum(train_step(trainings[arm], number, config.optimizer.lr).tokens for _ in range(2))
            found["read"][arm].append(read / (between - start))
            found["train"][arm].append(trained / (time.perf_counter() - between))
    # The first round warms up.
    return {kind: {arm: rounds[1:] for arm, rounds in by_arm.items()} for kind, by_arm in found.items()}


def _training(config: LabConfig, corpus: Corpus, model: Decoder) -> DocumentObjective:
    optimizer = config.optimizer
    rows = [corpus_documents(corpus, 0)] * optimizer.batch_size
    return DocumentObjective(
        model.requires_grad_(True),
        make_optimizer(model, optimizer.lr, optimizer.weight_decay, optimizer.betas, optimizer.kind),
        Worker(0, 1, model.device, lambda record: None),
        DocumentStream(rows, config.model.window, corpus.tokenizer.pad_id),
        segments=config.train.span // config.model.window,
        parts=optimizer.micro_batches,
    )
