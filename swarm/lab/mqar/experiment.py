"""`swarm mqar`: does a model with memory recall what has left its window? Synthetic, fast, with null controls.

Owns the runs (task x arm x seed), what is done already, and the results. A run trains one model and scores it in one
Ray task; it takes minutes, so one that was killed is begun again, and those that were done are not. Models are not
kept: another control means training the arm with memory again.

    runs/mqar-<name>/
      <task>-<arm>-s<seed>.json     identity and measurements: one number per query
      results.json
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from swarm.identity import work_folder
from swarm.lab.ltm.config import ARMS, Arm
from swarm.lab.measurements import Measurement, measure_all, shown, write_json
from swarm.lab.mqar.config import MqarConfig
from swarm.seeds import derive_seed
from swarm.stats import rate_interval
from swarm.train.loop import run_training
from ulm.model import Decoder
from ulm.train.mqar import MqarObjective, MqarTask, score_mqar
from ulm.train.step import Worker, make_optimizer


def run_mqar(config: MqarConfig, folder: Path, echo: Callable[[str], None]) -> dict[str, Any]:
    """Train and score what is missing, write `results.json` and return it.

    Args:
        config: the experiment.
        folder: where everything is written.
        echo: receives progress lines.

    Raises:
        SwarmError: the folder cannot be written or holds something else, a GPU is missing, or a run failed; what was
            done before is kept.
    """
    runs = runs_of(config)
    wanted = [measurement(config, folder, *run) for run in runs]
    with work_folder(folder, "mqar"):
        for run in wanted:
            run.refuse_other(free=("eval",))
        measured = measure_all(
            "training and scoring", wanted, _train_and_score, echo, device=config.device,
            about=lambda found: f": recall {np.mean(found['conditions']['none']['recalled']):.4f}",
        )  # fmt: skip
        results = _results(config, dict(zip(runs, measured, strict=True)))
        write_json(folder / "results.json", results)
    return results


def runs_of(config: MqarConfig) -> list[tuple[str, Arm, int]]:
    """Return task, arm and seed of every training."""
    return [(task, arm, seed) for task in config.tasks for arm in ARMS for seed in config.seeds]


def measurement(config: MqarConfig, folder: Path, task: str, arm: Arm, seed: int) -> Measurement:
    """Return a training with its scores, and where in a folder they are kept."""
    return Measurement(
        f"{task}, {arm}, seed {seed}",
        folder / f"{task}-{arm}-s{seed}.json",
        _identity(config, task, arm, seed),
        (config, task, arm, seed),
    )


def _train_and_score(config: MqarConfig, task_name: str, arm: Arm, seed: int, device: str) -> dict[str, Any]:
    """Train one model and return its scores, one number per query."""
    task = MqarTask(**config.tasks[task_name].model_dump())
    worker = Worker(0, 1, torch.device(device), lambda record: None)
    objective = objective_of(config, task_name, arm, seed, worker)
    model = objective.model
    started = time.monotonic()
    run_training(objective, config.optimizer)
    model.eval()
    seconds = time.monotonic() - started
    conditions: dict[str, Any] = {}
    for control in ("none", *(config.eval.controls if arm == "with_ltm" else ())):
        scores, lags = score_mqar(
            model, task, config.eval.sequences, seed=derive_seed(seed, "mqar test"), control=control
        )
        conditions[control] = {
            "recalled": scores.recalled.astype(int).tolist(),
            "hits": float(scores.hit.mean()),
            "written": float(scores.written.mean()),
        }
    return {
        "conditions": conditions,
        "lags": lags.tolist(),
        "parameters": model.num_parameters(),
        "training_seconds": round(seconds, 1),
    }


def objective_of(config: MqarConfig, task_name: str, arm: Arm, seed: int, worker: Worker) -> MqarObjective:
    """Return what a worker trains: an arm's model on a task, before its first step."""
    section, optimizer = config.tasks[task_name], config.optimizer
    model = Decoder(config.model.config(arm, section.vocab_size), seed=derive_seed(seed, "weights")).to(worker.device)
    return MqarObjective(
        model,
        make_optimizer(model, optimizer.lr, optimizer.weight_decay, optimizer.betas, optimizer.kind),
        worker,
        MqarTask(**section.model_dump()),
        batch_size=optimizer.batch_size,
        seed=derive_seed(seed, "mqar training"),
    )


def _results(config: MqarConfig, measured: Mapping[tuple[str, Arm, int], Any]) -> dict[str, Any]:
    """Return estimates and intervals per task, arm and condition; a sequence is the unit that is resampled."""
    tasks = {
        name: {
            "chance": MqarTask(**section.model_dump()).chance,
            "arms": {arm: _arm(config, [measured[name, arm, seed] for seed in config.seeds]) for arm in ARMS},
        }
        for name, section in config.tasks.items()
    }
    return {"config": config.model_dump(mode="json"), "tasks": tasks}


def _arm(config: MqarConfig, runs: Sequence[Any]) -> dict[str, Any]:
    lags = np.array([run["lags"] for run in runs])
    far, out_of_reach = lags > config.model.window, lags > config.model.reach
    conditions = {}
    for condition in runs[0]["conditions"]:
        scored = [run["conditions"][condition] for run in runs]
        conditions[condition] = {
            **_recall(np.array([scores["recalled"] for scores in scored]), far, out_of_reach),
            "hit_rate": float(np.mean([scores["hits"] for scores in scored])),
            "written": float(np.mean([scores["written"] for scores in scored])),
        }
    return {
        "parameters": runs[0]["parameters"],
        "training_seconds": [run["training_seconds"] for run in runs],
        "queries": int(far.size),
        "queries_beyond_window": int(far.sum()),
        "queries_beyond_reach": int(out_of_reach.sum()),
        "conditions": conditions,
    }


def _recall(recalled: NDArray[np.int64], far: NDArray[np.bool_], out_of_reach: NDArray[np.bool_]) -> dict[str, Any]:
    """Return recall of (seeds, sequences, queries): all, and of pairs that have left the window, or the reach.

    Intervals are over sequences, given the trained models; what another training might give, the seeds show.
    """
    rows = np.broadcast_to(np.arange(recalled[..., 0].size).reshape(recalled.shape[:2])[..., None], recalled.shape)

    def rate(chosen: NDArray[np.bool_]) -> dict[str, float] | None:
        return rate_interval(recalled[chosen].tolist(), rows[chosen].tolist())._asdict() if chosen.any() else None

    return {
        "recall": rate(np.ones_like(far)),
        "beyond_window": rate(far),
        "beyond_reach": rate(out_of_reach),
        "recall_by_seed": recalled.mean((1, 2)).tolist(),
    }


def summary(results: dict[str, Any]) -> list[str]:
    """Return the results as lines of text."""
    lines = []
    for name, task in results["tasks"].items():
        for arm, one in task["arms"].items():
            lines.append(
                f"{name}: {arm}, {one['parameters']:,} parameters, n = {one['queries']:,} queries, "
                f"{one['queries_beyond_window']:,} of them beyond the window, {one['queries_beyond_reach']:,} beyond "
                f"the reach of all blocks, chance {task['chance']:.4f}"
            )
            for condition, scored in one["conditions"].items():
                rates = [
                    f"{key.replace('_', ' ')} {shown(scored[key], '.4f')}"
                    for key in ("recall", "beyond_window", "beyond_reach")
                    if scored[key]
                ]
                by_seed = ", ".join(f"{rate:.4f}" for rate in scored["recall_by_seed"])
                title = "as trained" if condition == "none" else condition
                lines.append(f"    {title:16} {'  '.join(rates)}  by seed {by_seed}")
    return lines


def _identity(config: MqarConfig, task: str, arm: Arm, seed: int) -> dict[str, Any]:
    """Return what decides the measurements of a run."""
    return {
        "task": config.tasks[task].model_dump(),
        "model": config.model.config(arm, config.tasks[task].vocab_size).to_dict(),
        "seed": seed,
        "optimizer": config.optimizer.model_dump(mode="json"),
        "eval": config.eval.model_dump(mode="json", exclude=set() if arm == "with_ltm" else {"controls"}),
    }
