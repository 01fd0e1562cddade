"""Measures the trained models of a lab: one under one condition, as a Ray task, and the speed of all in turn.

Of a condition comes out one number per document and per recall sequence, so that `swarm.lab.ltm.results` can resample
them; what they mean is said there.

Conditions are `none`, the null controls and, with `policy:` before their names, other write rules and evictions on the
same weights.
"""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from swarm.lab.ltm.config import POLICY, LabConfig, policy_of
from swarm.lab.ltm.trainer import recall_task
from swarm.seeds import derive_seed
from ulm.checkpoint import load_checkpoint
from ulm.config import LTMConfig
from ulm.data.coherence import Sentences
from ulm.data.corpus import Corpus
from ulm.data.document_stream import DocumentStream, corpus_documents
from ulm.data.infill import InfillTask
from ulm.memory.consolidation import Consolidator
from ulm.memory.ltm import Control
from ulm.model import Decoder
from ulm.train.comprehension import (
    ClozeScores,
    InfillScores,
    passages_of,
    score_cloze,
    score_infill,
    score_next,
    score_order,
)
from ulm.train.documents import DocumentObjective
from ulm.train.evaluation import score_documents, score_recall
from ulm.train.step import Worker, make_optimizer, train_step

PASSAGE_ROOM = 8
"""Tokens of the window that a passage leaves for marks."""

WORD = 4
"""Characters of a word that is asked for, at least, its space not counted."""


def conditions(config: LabConfig, arm: str) -> dict[str, dict[str, Any]]:
    """Return the conditions under which an arm is measured, each with what decides its numbers beside the model."""
    base = {"recall": config.recall.model_dump(mode="json"), "seed": config.corpus.seed}
    alone = base | ({"passages": config.eval.passages} if config.eval.passages else {})
    learns = config.arm(arm)
    if config.shape(arm, 4096).ltm is None or (learns is not None and not learns.conditions):
        return {"none": alone}
    controls = {str(control): {**base, "control": control} for control in config.eval.controls}
    policies = {f"{POLICY}{name}": {**base, "ltm": changes} for name, changes in config.eval.policies.items()}
    return {"none": alone, **controls, **policies}


def evaluate_condition(config: LabConfig, data: Path, checkpoint: Path, condition: str, device: str) -> dict[str, Any]:
    """Measure one trained model under one condition on the held-out documents and on fresh recall sequences.

    Args:
        config: the lab.
        data: folder of the prepared corpus.
        checkpoint: the model.
        condition: one of `conditions`.
        device: where it is computed.

    Returns:
        `documents`: lists of `nats`, `written` and `readings` per document; `recall`: filler between the pairs (`quiet`
        or `text`) -> distance -> lists of `recalled`, `hits` and `written` per sequence. Null controls are scored with
        the quiet filler only. With consolidation, `consolidations`: how many there were, and were accepted, and the
        sums of what they did; as trained, `comprehension`: an array per measure of `ulm.train.comprehension`.
    """
    corpus, model = Corpus.open(data), load_checkpoint(checkpoint, device).model
    control: Control = "none"
    between = None
    if condition.startswith(POLICY):
        changes, consolidation = policy_of(config.eval.policies[condition.removeprefix(POLICY)])
        model = _with_policy(model, changes)
        if consolidation is not None and model.ltm is not None:
            between = Consolidator(model.ltm, consolidation)
    else:
        control = cast("Control", condition)
    documents = [corpus.document("val", i) for i in range(corpus.num_documents("val"))]
    task = recall_task(config, corpus)
    seed = derive_seed(config.corpus.seed, "recall sequences")
    scores = score_documents(model, documents, control=control, seed=seed, between=between)
    found: dict[str, dict[str, Any]] = {"quiet": {}, "text": {}}
    for filler, text in (("quiet", None), ("text", corpus.stream("val"))):
        for distance in config.recall.distances:
            if text is not None and (control != "none" or len(text) < task.length(distance)):
                continue
            recall = score_recall(
                model, task, distance, config.recall.sequences, seed=seed, text=text, control=control, between=between
            )
            found[filler][str(distance)] = {
                "recalled": recall.recalled.sum(1).tolist(),
                "hits": recall.hit.sum(1).tolist(),
                "written": recall.written.tolist(),
            }
    return {
        "documents": {name: getattr(scores, name).tolist() for name in ("nats", "written", "readings")},
        "recall": found,
        **({} if between is None else {"consolidations": between.totals()}),
        **({"comprehension": _comprehension(config, corpus, model)} if condition == "none" else {}),
    }


def _comprehension(config: LabConfig, corpus: Corpus, model: Decoder) -> dict[str, list[Any]]:
    """Return what the model makes of held-out text: nats per hidden span, and what was told right."""
    count, seed, codec = config.eval.passages, derive_seed(config.corpus.seed, "passages"), corpus.tokenizer
    if not count:
        return {}
    documents = [corpus.document("val", i) for i in range(corpus.num_documents("val"))]
    task, sentences = InfillTask.of(codec), Sentences.of(codec, config.model.window)
    passages = passages_of(documents, config.model.window - PASSAGE_ROOM, count, seed)
    texts = codec.token_texts
    infill = score_infill(model, task, passages, np.array([len(text.encode()) for text in texts]), seed)
    # A word with a space before it, which no other token goes on with where it is asked for.
    word_V = np.array([text[:1] == " " and len(text) > WORD and text[1:].isalpha() for text in texts])
    cloze = score_cloze(model, task, passages, word_V, seed)
    orders = {f"order_{block}": score_order(model, sentences, documents, block, seed) for block in (1, 4)}
    found = {
        **{f"span_{name}": getattr(infill, name) for name in InfillScores.__dataclass_fields__},
        **{f"cloze_{name}": getattr(cloze, name) for name in ClozeScores.__dataclass_fields__},
        **orders,
        "next": score_next(model, sentences, documents, count, seed),
    }
    return {name: values.tolist() for name, values in found.items()}


def _with_policy(model: Decoder, changes: dict[str, Any]) -> Decoder:
    """Return a model with the same weights and other rules of writing and forgetting."""
    ltm = LTMConfig.from_dict({**model.config.to_dict()["ltm"], **changes})
    other = Decoder(dataclasses.replace(model.config, ltm=ltm))
    other.load_state_dict(model.state_dict())
    return other.to(model.device).eval()


def measure_speed(
    config: LabConfig, corpus: Corpus, models: Mapping[str, Decoder]
) -> dict[str, dict[str, list[float]]]:
    """Time the arms in turn and in this process, so that their ratio means something.

    Other work on the machine makes intervals wide, not ratios wrong.

    Returns:
        `read` and `train` -> arm -> tokens per second of each round; the models' weights are trained on.

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
    return DocumentObjective(
        model.requires_grad_(True),
        make_optimizer(model, optimizer.lr, optimizer.weight_decay, optimizer.betas, optimizer.kind),
        Worker(0, 1, model.device, lambda record: None),
        DocumentStream(
            [corpus_documents(corpus, 0)] * optimizer.batch_size, config.model.window, corpus.tokenizer.pad_id
        ),
        segments=config.train.span // config.model.window,
        parts=optimizer.micro_batches,
    )
