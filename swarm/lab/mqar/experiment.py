"""`swarm mqar`: does a model with memory recall what has left its window? Synthetic, fast, with null controls.

Owns the runs (task x arm x seed), what is done already, and the results. A run trains one model and scores it in one
Ray task; it takes minutes, so one that was killed is begun again, and those that were done are not. Models are not
kept: another control means training the arm with memory again.

    runs/mqar-<name>/
      <task>-<arm>-s<seed>.json     identity and measurements: one number per query
      results.json
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm.config.training import resolve_device
from swarm.errors import SwarmError
from swarm.identity import work_folder
from swarm.lab.ltm.config import ARMS, Arm
from swarm.lab.measurements import read_measured, refuse_other_measured, write_json, write_measured
from swarm.lab.mqar.config import MqarConfig
from swarm.seeds import derive_seed
from swarm.stats import rate_interval


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
    with work_folder(folder, ("*-s*.json",)):
        return _run(config, folder, echo)


def _run(config: MqarConfig, folder: Path, echo: Callable[[str], None]) -> dict[str, Any]:
    runs = [(task, arm, seed) for task in config.tasks for arm in ARMS for seed in config.seeds]
    for run in runs:
        refuse_other_measured(_path(folder, *run), _identity(config, *run), free=("eval",))
    missing = [run for run in runs if _measured(config, folder, *run) is None]
    started = time.monotonic()
    failed: list[str] = []

    def done(index: int, measured: dict[str, Any]) -> None:
        task, arm, seed = missing[index]
        if "error" in measured:
            failed.append(f"{task}, {arm}, seed {seed}: {measured['error']}")
            return
        write_measured(_path(folder, task, arm, seed), _identity(config, task, arm, seed), measured)
        rate = np.mean(measured["conditions"]["none"]["recalled"])
        echo(f"{task}, {arm}, seed {seed}: recall {rate:.4f} ({time.monotonic() - started:.0f} s)")

    if missing:
        from swarm.actors.ray_tasks import run_tasks

        resolve_device(config.device)
        echo(f"training and scoring {len(missing)} of {len(runs)} models")
        calls = [(config.model_dump(mode="json"), *run) for run in missing]
        titles = [f"{task}, {arm}, seed {seed}" for task, arm, seed in missing]
        run_tasks(_train_and_score, calls, done, titles=titles, device=config.device)
    if failed:
        raise SwarmError("\n".join(failed))
    results = _results(config, folder)
    write_json(folder / "results.json", results)
    return results


def _train_and_score(settings: dict[str, Any], task_name: str, arm: Arm, seed: int, device: str) -> dict[str, Any]:
    """Train one model and return its scores, one number per query; `error` says why there are none."""
    import torch

    from swarm.train.loop import run_training
    from ulm.model import Decoder
    from ulm.train.mqar import MqarObjective, MqarTask, score_mqar
    from ulm.train.step import Worker, make_optimizer

    config = MqarConfig.model_validate(settings)
    section, optimizer = config.tasks[task_name], config.optimizer
    task = MqarTask(**section.model_dump())
    model = Decoder(config.model.config(arm, section.vocab_size), seed=derive_seed(seed, "weights")).to(device)
    objective = MqarObjective(
        model,
        make_optimizer(model, optimizer.lr, optimizer.weight_decay, optimizer.betas, optimizer.kind),
        Worker(0, 1, torch.device(device), lambda record: None),
        task,
        batch_size=optimizer.batch_size,
        seed=derive_seed(seed, "mqar training"),
    )
    started = time.monotonic()
    try:
        run_training(objective, optimizer)
    except SwarmError as error:
        return {"error": str(error)}
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


def _results(config: MqarConfig, folder: Path) -> dict[str, Any]:
    """Return estimates and intervals per task, arm and condition; a sequence is the unit that is resampled."""
    from ulm.train.mqar import MqarTask

    results: dict[str, Any] = {"config": config.model_dump(mode="json"), "tasks": {}}
    for name, section in config.tasks.items():
        found: dict[str, Any] = {"chance": MqarTask(**section.model_dump()).chance, "arms": {}}
        for arm in ARMS:
            runs = [_measured(config, folder, name, arm, seed) for seed in config.seeds]
            measured = [run for run in runs if run is not None]
            if len(measured) < len(runs):
                raise SwarmError(f"measurements in {folder} vanished; run the same command again")
            lags = np.array([run["lags"] for run in measured])
            far, out_of_reach = lags > config.model.window, lags > config.model.reach
            found["arms"][arm] = {
                "parameters": measured[0]["parameters"],
                "training_seconds": [run["training_seconds"] for run in measured],
                "queries": int(far.size),
                "queries_beyond_window": int(far.sum()),
                "queries_beyond_reach": int(out_of_reach.sum()),
                "conditions": {
                    condition: {
                        **_recall(
                            np.array([run["conditions"][condition]["recalled"] for run in measured]), far, out_of_reach
                        ),
                        "hit_rate": float(np.mean([run["conditions"][condition]["hits"] for run in measured])),
                        "written": float(np.mean([run["conditions"][condition]["written"] for run in measured])),
                    }
                    for condition in measured[0]["conditions"]
                },
            }
        results["tasks"][name] = found
    return results


def _recall(recalled: NDArray[np.int64], far: NDArray[np.bool_], out_of_reach: NDArray[np.bool_]) -> dict[str, Any]:
    """Return recall of (seeds, sequences, queries): all, and of pairs that have left the window, or the reach.

    Intervals are over sequences, given the trained models; what another training might give, the seeds show.
    """
    rows = np.broadcast_to(np.arange(recalled[..., 0].size).reshape(recalled.shape[:2])[..., None], recalled.shape)
    return {
        "recall": _interval(recalled.astype(bool).ravel(), rows.ravel()),
        "beyond_window": _interval(recalled[far].astype(bool), rows[far]) if far.any() else None,
        "beyond_reach": (
            _interval(recalled[out_of_reach].astype(bool), rows[out_of_reach]) if out_of_reach.any() else None
        ),
        "recall_by_seed": recalled.mean((1, 2)).tolist(),
    }


def _interval(successes: NDArray[np.bool_], rows: NDArray[np.int64]) -> dict[str, float]:
    interval = rate_interval(successes.tolist(), rows.tolist())
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


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
                line = f"    {'as trained' if condition == 'none' else condition:16} recall {_shown(scored['recall'])}"
                for key in ("beyond_window", "beyond_reach"):
                    if scored[key]:
                        line += f"  {key.replace('_', ' ')} {_shown(scored[key])}"
                by_seed = ", ".join(f"{rate:.4f}" for rate in scored["recall_by_seed"])
                lines.append(f"{line}  by seed {by_seed}")
    return lines


def _shown(interval: dict[str, float]) -> str:
    return f"{interval['estimate']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]"


def _identity(config: MqarConfig, task: str, arm: Arm, seed: int) -> dict[str, Any]:
    """Return what decides the measurements of a run."""
    optimizer = config.optimizer.model_dump(mode="json")
    shape = config.model.config(arm, config.tasks[task].vocab_size).to_dict()
    evaluation = config.eval.model_dump(mode="json", exclude=set() if arm == "with_ltm" else {"controls"})
    return {
        "task": config.tasks[task].model_dump(),
        "model": shape,
        "seed": seed,
        "optimizer": optimizer,
        "eval": evaluation,
    }


def _path(folder: Path, task: str, arm: Arm, seed: int) -> Path:
    return folder / f"{task}-{arm}-s{seed}.json"


def _measured(config: MqarConfig, folder: Path, task: str, arm: Arm, seed: int) -> Any | None:
    return read_measured(_path(folder, task, arm, seed), _identity(config, task, arm, seed))
