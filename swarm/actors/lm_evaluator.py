"""Evaluates the trained models of a lab, many at a time, as Ray tasks.

Owns what is measured for one trained model (`evaluate_model`) and how such measurements are spread over Ray. What comes
out is one number per document and per recall sequence, so that `swarm.lab_results` can resample them. It refuses to
know what they mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from swarm.actors.lm_trainer import recall_task
from swarm.actors.ray_tasks import run_tasks
from swarm.lab_config import LabConfig
from swarm.seeds import derive_seed
from ulm.checkpoint import load_checkpoint
from ulm.config import LTMConfig, ModelConfig
from ulm.corpus import Corpus
from ulm.evaluation import score_documents, score_recall
from ulm.memory.ltm import Control
from ulm.model import Decoder

__all__ = ["evaluate_all", "evaluate_model"]

QUIET, TEXT = "quiet", "text"
"""Fillers between the pairs of recall sequences."""


def evaluate_model(config: LabConfig, corpus: Corpus, checkpoint: Path, device: str) -> dict[str, Any]:
    """Measure one trained model on the held-out documents and on fresh recall sequences.

    Returns:
        `documents`: condition -> lists of `nats`, `written` and `readings` per document; `recall`: filler ->
        distance -> condition -> lists of `recalled`, `hits` and `written` per sequence. Conditions are `none`, the null
        controls (quiet filler only) and, with `policy:` before their names, other write rules and evictions on the same
        weights.
    """
    model = load_checkpoint(checkpoint, device).model
    documents = [corpus.document("val", i) for i in range(corpus.num_documents("val"))]
    task = recall_task(config, corpus)
    seed = derive_seed(config.corpus.seed, "recall sequences")
    conditions: list[tuple[str, Decoder, Control]] = [("none", model, "none")]
    if model.config.ltm is not None:
        conditions += [(control, model, control) for control in config.eval.controls]
        for name, changes in config.eval.policies.items():
            conditions.append((f"policy:{name}", _with_policy(model, changes), "none"))
    found: dict[str, Any] = {"documents": {}, "recall": {QUIET: {}, TEXT: {}}}
    for name, variant, control in conditions:
        scores = score_documents(variant, documents, control=control, seed=seed)
        found["documents"][name] = {
            "nats": scores.nats.tolist(),
            "written": scores.written.tolist(),
            "readings": scores.readings.tolist(),
        }
        for filler, text in ((QUIET, None), (TEXT, corpus.stream("val"))):
            for distance in config.recall.distances:
                if text is not None and (control != "none" or len(text) < task.length(distance)):
                    continue
                recall = score_recall(
                    variant, task, distance, config.recall.sequences, seed=seed, text=text, control=control
                )
                found["recall"][filler].setdefault(str(distance), {})[name] = {
                    "recalled": recall.recalled.sum(1).tolist(),
                    "hits": recall.hit.sum(1).tolist(),
                    "written": recall.written.tolist(),
                }
    return found


def _with_policy(model: Decoder, changes: dict[str, Any]) -> Decoder:
    """Return a model with the same weights and other rules of writing and forgetting."""
    config = model.config.to_dict()
    ltm = LTMConfig.from_dict({**config["ltm"], **changes})
    other = Decoder(dataclasses.replace(ModelConfig.from_dict(config), ltm=ltm))
    other.load_state_dict(model.state_dict())
    return other.to(model.device).eval()


def evaluate_all(
    config: LabConfig, corpus: Corpus, checkpoints: Sequence[Path], done: Callable[[int, dict[str, Any]], None]
) -> None:
    """Evaluate many checkpoints, as many at a time as Ray has processors.

    Args:
        config: the lab.
        corpus: prepared.
        checkpoints: folders.
        done: receives the index of a checkpoint and what `evaluate_model` gave, as soon as it is there.

    Raises:
        SwarmError: Ray cannot be started, or an evaluation failed.
    """
    settings = config.model_dump(mode="json")
    folder = str(corpus.folder.resolve())
    run_tasks(
        _evaluate,
        [(settings, folder, str(path.resolve())) for path in checkpoints],
        done,
        titles=[f"evaluation of {path}" for path in checkpoints],
        device=config.train.device,
    )


def _evaluate(settings: dict[str, Any], folder: str, checkpoint: str, device: str) -> dict[str, Any]:
    return evaluate_model(LabConfig.model_validate(settings), Corpus.open(Path(folder)), Path(checkpoint), device)
