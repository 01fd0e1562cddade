"""Evaluates the trained models of a lab, many at a time, as Ray tasks.

Owns what is measured for one trained model under one condition (`evaluate_condition`) and how such measurements are
spread over Ray. What comes out is one number per document and per recall sequence, so that `swarm.lab.ltm.results` can
resample them. It refuses to know what they mean.

Conditions are `none`, the null controls and, with `policy:` before their names, other write rules and evictions on the
same weights.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from swarm.actors.ray_tasks import run_tasks
from swarm.lab.ltm.config import POLICY, Arm, LabConfig
from swarm.lab.ltm.trainer import recall_task
from swarm.seeds import derive_seed
from ulm.checkpoint import load_checkpoint
from ulm.config import LTMConfig, ModelConfig
from ulm.data.corpus import Corpus
from ulm.memory.ltm import Control
from ulm.model import Decoder
from ulm.train.evaluation import score_documents, score_recall

QUIET, TEXT = "quiet", "text"
"""Fillers between the pairs of recall sequences."""


def conditions(config: LabConfig, arm: Arm) -> dict[str, dict[str, Any]]:
    """Return the conditions under which an arm is measured, each with what decides its numbers beside the model."""
    base = {"recall": config.recall.model_dump(mode="json"), "seed": config.corpus.seed}
    found: dict[str, dict[str, Any]] = {"none": base}
    if arm == "with_ltm":
        found |= {str(control): {**base, "control": control} for control in config.eval.controls}
        for name, changes in config.eval.policies.items():
            found[f"{POLICY}{name}"] = {**base, "ltm": changes}
    return found


def evaluate_condition(
    config: LabConfig, corpus: Corpus, checkpoint: Path, condition: str, device: str
) -> dict[str, Any]:
    """Measure one trained model under one condition on the held-out documents and on fresh recall sequences.

    Returns:
        `documents`: lists of `nats`, `written` and `readings` per document; `recall`: filler -> distance -> lists of
        `recalled`, `hits` and `written` per sequence. Null controls are scored with the quiet filler only.
    """
    model = load_checkpoint(checkpoint, device).model
    control: Control = "none"
    if condition.startswith(POLICY):
        model = _with_policy(model, config.eval.policies[condition.removeprefix(POLICY)])
    elif condition != "none":
        control = cast("Control", condition)
    documents = [corpus.document("val", i) for i in range(corpus.num_documents("val"))]
    task = recall_task(config, corpus)
    seed = derive_seed(config.corpus.seed, "recall sequences")
    scores = score_documents(model, documents, control=control, seed=seed)
    found: dict[str, Any] = {
        "documents": {
            "nats": scores.nats.tolist(),
            "written": scores.written.tolist(),
            "readings": scores.readings.tolist(),
        },
        "recall": {QUIET: {}, TEXT: {}},
    }
    for filler, text in ((QUIET, None), (TEXT, corpus.stream("val"))):
        for distance in config.recall.distances:
            if text is not None and (control != "none" or len(text) < task.length(distance)):
                continue
            recall = score_recall(model, task, distance, config.recall.sequences, seed=seed, text=text, control=control)
            found["recall"][filler][str(distance)] = {
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
    config: LabConfig, corpus: Corpus, wanted: Sequence[tuple[Path, str]], done: Callable[[int, dict[str, Any]], None]
) -> None:
    """Evaluate checkpoints under conditions, as many at a time as Ray has processors.

    Args:
        config: the lab.
        corpus: prepared.
        wanted: folders of checkpoints, each with a condition.
        done: receives the index of what was wanted and what `evaluate_condition` gave, as soon as it is there.

    Raises:
        SwarmError: Ray cannot be started, or an evaluation failed.
    """
    settings = config.model_dump(mode="json")
    folder = str(corpus.folder.resolve())
    run_tasks(
        _evaluate,
        [(settings, folder, str(path.resolve()), condition) for path, condition in wanted],
        done,
        titles=[f"evaluation of {path} ({condition})" for path, condition in wanted],
        device=config.place.device,
    )


def _evaluate(settings: dict[str, Any], folder: str, checkpoint: str, condition: str, device: str) -> dict[str, Any]:
    config = LabConfig.model_validate(settings)
    return evaluate_condition(config, Corpus.open(Path(folder)), Path(checkpoint), condition, device)
