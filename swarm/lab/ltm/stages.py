"""`swarm lab`: prepare, train, evaluate and plot a pair of models, one resumable command.

Owns the stages, their order, and what is already done: every stage looks for its results, verifies them, and does only
what is missing. A stage whose input is not there says which stage makes it.

    runs/lab-<name>/
      lab.json        resolved config      data/           tokens, tokenizer, manifest
      s<seed>/<arm>/  states, metrics, checkpoint; eval/<condition>.json: a number per document and sequence
      results.json    results.png
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from swarm.errors import SwarmError
from swarm.identity import refuse_other, work_folder
from swarm.lab.ltm.config import Arm, LabConfig
from swarm.lab.ltm.results import lab_results
from swarm.lab.measurements import read_measured, write_json, write_measured
from ulm.checkpoint import checkpoint_hash, load_checkpoint, read_checkpoint_config
from ulm.data.corpus import Corpus, OtherCorpusError, prepare_corpus
from ulm.data.documents import CorpusError
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer

Stage = Literal["prepare", "train", "eval", "plot"]
STAGES: tuple[Stage, ...] = ("prepare", "train", "eval", "plot")

Follow = Callable[[Path, int, str], AbstractContextManager[None]]
"""Follows a metrics file of so many steps under a title, for as long as the context is open."""


def run_lab(
    config: LabConfig,
    beside: Path,
    folder: Path,
    stages: Sequence[Stage],
    echo: Callable[[str], None],
    follow: Follow,
) -> Path:
    """Run stages of a lab and return its folder.

    Args:
        config: the lab.
        beside: folder that the config's paths are relative to.
        folder: where everything is written.
        stages: in any order; they run in theirs.
        echo: receives progress lines.
        follow: shows a training's progress.

    Raises:
        SwarmError: a stage cannot run; what was done before is kept.
    """
    if "train" in stages:
        from swarm.lab.ltm.trainer import require_training

        require_training(config)
    with work_folder(folder, ("lab.json", "data")):
        return _run(config, beside, folder, stages, echo, follow)


def _run(
    config: LabConfig, beside: Path, folder: Path, stages: Sequence[Stage], echo: Callable[[str], None], follow: Follow
) -> Path:
    corpus = _prepare(config, beside, folder, echo) if "prepare" in stages else _open(folder)
    _check_vocabulary(config, corpus)
    _check_recipes(config, corpus, folder)
    write_json(folder / "lab.json", config.model_dump(mode="json"))
    if "train" in stages:
        _train(config, corpus, folder, echo, follow)
    if "eval" in stages:
        _evaluate(config, corpus, folder, echo)
    if "plot" in stages:
        _plot(config, folder, echo)
    return folder


def _prepare(config: LabConfig, beside: Path, folder: Path, echo: Callable[[str], None]) -> Corpus:
    c = config.corpus
    tokenizer = c.tokenizer
    if isinstance(tokenizer, str) and (beside / tokenizer).exists():
        tokenizer = str(beside / tokenizer)
    try:
        return prepare_corpus(
            [source.source(beside) for source in c.sources],
            folder / "data",
            tokenizer=tokenizer,
            val_share=c.val_share,
            seed=c.seed,
            bin_type=c.bin_type,
            echo=echo,
        )
    except OtherCorpusError as error:
        refuse_other(folder / "data", error.found, error.wanted)
        raise
    except CorpusError as error:
        raise SwarmError(f"prepare: {error}") from error


def _open(folder: Path) -> Corpus:
    try:
        return Corpus.open(folder / "data")
    except CorpusError as error:
        raise SwarmError(str(error)) from error


def _check_vocabulary(config: LabConfig, corpus: Corpus) -> None:
    from swarm.lab.ltm.trainer import recall_task

    try:
        recall_task(config, corpus)
    except ValueError as error:
        raise SwarmError(
            f"{error}; lower recall.num_keys and recall.num_values, or take a larger tokenizer and another --out"
        ) from error


def _check_recipes(config: LabConfig, corpus: Corpus, folder: Path) -> None:
    """Refuse to mix trainings of two recipes in one folder, before anything in it changes."""
    from swarm.lab.ltm.trainer import is_trained

    for arm, seed, place in _trainings(config, folder):
        is_trained(config, arm, seed, corpus, place)


def _trainings(config: LabConfig, folder: Path) -> list[tuple[Arm, int, Path]]:
    return [(arm, seed, folder / f"s{seed}" / arm) for seed in config.seeds for arm in config.arms]


def _train(config: LabConfig, corpus: Corpus, folder: Path, echo: Callable[[str], None], follow: Follow) -> None:
    from swarm.actors.ray_train import METRICS
    from swarm.lab.ltm.trainer import is_trained, train_language_model

    for arm, seed, place in _trainings(config, folder):
        if is_trained(config, arm, seed, corpus, place):
            echo(f"{arm}, seed {seed}: trained already")
            continue
        title = f"{arm}, seed {seed}"
        with follow(place / METRICS, config.optimizer.steps, title):
            train_language_model(config, arm, seed, corpus, place)
        parameters = read_checkpoint_config(place / "checkpoint").num_parameters
        echo(f"{arm}, seed {seed}: {parameters:,} parameters, checkpoint in {place / 'checkpoint'}")


def _evaluate(config: LabConfig, corpus: Corpus, folder: Path, echo: Callable[[str], None]) -> None:
    from swarm.lab.ltm.evaluator import conditions, evaluate_all

    trainings = _trainings(config, folder)
    wanted: dict[tuple[Path, str], dict[str, Any]] = {}
    for arm, seed, place in trainings:
        if not (place / "checkpoint").is_dir():
            raise SwarmError(f"{arm}, seed {seed} is not trained; run the stage `train` first")
        source = {"checkpoint": _checked_hash(place / "checkpoint", corpus), "corpus": corpus.manifest["sha256"]}
        wanted |= {(place, name): {**source, **rest} for name, rest in conditions(config, arm).items()}
    missing = [key for key, identity in wanted.items() if read_measured(_measured_at(*key), identity) is None]
    started = time.monotonic()
    count = 0

    def done(index: int, measured: dict[str, Any]) -> None:
        nonlocal count
        place, condition = missing[index]
        path = _measured_at(place, condition)
        path.parent.mkdir(exist_ok=True)
        write_measured(path, wanted[place, condition], measured)
        count += 1
        passed = time.monotonic() - started
        echo(f"evaluated {place.relative_to(folder)}, {condition} ({count} of {len(missing)}, {passed:.0f} s)")

    if missing:
        echo(f"evaluating {len(missing)} of {len(wanted)}: model x condition")
        evaluate_all(config, corpus, [(place / "checkpoint", condition) for place, condition in missing], done)
    measured: dict[str, list[Any]] = {arm: [] for arm in config.arms}
    for arm, _, place in trainings:
        parts = {}
        for name in conditions(config, arm):
            parts[name] = read_measured(_measured_at(place, name), wanted[place, name])
            if parts[name] is None:
                raise SwarmError(f"{_measured_at(place, name)} vanished; run the stage `eval` again")
        measured[arm].append(_by_condition(parts))
    echo("measuring speed")
    first = folder / f"s{config.seeds[0]}"
    models: dict[str, Decoder] = {arm: load_checkpoint(first / arm / "checkpoint").model for arm in config.arms}
    from swarm.lab.ltm.speed import measure_speed

    results = lab_results(
        measured,
        corpus.sizes("val"),
        corpus.sources("val"),
        measure_speed(config, corpus, models),
        seeds=config.seeds,
        window=config.model.window,
        num_pairs=config.recall.num_pairs,
        chance=1 / config.recall.num_values,
        parameters={arm: model.num_parameters() for arm, model in models.items()},
    )
    results["meta"] = {
        "config": config.model_dump(mode="json"),
        "hardware": f"{os.cpu_count()} CPU cores",
        "corpus": corpus.manifest["splits"],
        "hit_rate_over_training": _over_training(config, folder),
    }
    write_json(folder / "results.json", results)
    for line in summary(results):
        echo(line)


def _measured_at(place: Path, condition: str) -> Path:
    return place / "eval" / f"{condition.replace(':', '-')}.json"


def _by_condition(parts: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured with the conditions innermost, as `swarm.lab.ltm.results` reads it."""
    found: dict[str, Any] = {"documents": {name: part["documents"] for name, part in parts.items()}, "recall": {}}
    for name, part in parts.items():
        for filler, scored in part["recall"].items():
            by_distance = found["recall"].setdefault(filler, {})
            for distance, scores in scored.items():
                by_distance.setdefault(distance, {})[name] = scores
    return found


def _checked_hash(checkpoint: Path, corpus: Corpus) -> str:
    """Return the hash of a checkpoint that was trained on this corpus.

    Raises:
        SwarmError: it is damaged, or has another tokenizer.
    """
    try:
        found = checkpoint_hash(checkpoint)
        same = Tokenizer.load(checkpoint).to_json() == corpus.tokenizer.to_json()
    except ValueError as error:
        raise SwarmError(
            f"{error}; or remove {checkpoint} and run the stage `train`, which makes it again from the last state"
        ) from error
    if not same:
        raise SwarmError(f"{checkpoint} has another tokenizer than {corpus.folder}; train it on this corpus again")
    return found


def _over_training(config: LabConfig, folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return per seed the hit rate of the arm with memory, step by step."""
    from swarm.actors.ray_train import METRICS
    from swarm.train.progress import read_metrics

    found: dict[str, list[tuple[int, float]]] = {}
    for arm, seed, place in _trainings(config, folder):
        if arm == "with_ltm":
            found[str(seed)] = [(line["step"], line["ltm_hit_rate"]) for line in read_metrics(place / METRICS)]
    return found


def summary(results: dict[str, Any]) -> list[str]:
    """Return the results as a few lines of text."""
    lines = []
    for arm in ("baseline", "with_ltm"):
        if arm not in results:
            continue
        one = results[arm]
        bpb, far = one["details"]["bits_per_byte"], one["details"]["long_range_recall"]
        recall = f"recall {far['estimate']:.3f} [{far['low']:.3f}, {far['high']:.3f}]" if far else "no recall scored"
        lines.append(
            f"{arm:9} bpc {one['bpc']:.4f}  bits per byte {bpb['estimate']:.4f} [{bpb['low']:.4f}, {bpb['high']:.4f}]  "
            f"{recall}  hit rate {one['memory_hit_rate']:.3f}  {one['tokens_per_sec']:,.0f} tokens/s"
        )
    lines += list(results.get("verdict", {}).values())
    return lines


def _plot(config: LabConfig, folder: Path, echo: Callable[[str], None]) -> None:
    from swarm.figures import to_png
    from swarm.lab.ltm.plots import plot_results

    path = folder / "results.json"
    if not path.is_file():
        raise SwarmError(f"no {path}; run the stage `eval` first")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SwarmError(f"{path} is damaged ({error}); run the stage `eval` again") from error
    try:
        picture = to_png(plot_results(results, config.model.window))
    except KeyError as error:
        raise SwarmError(f"{path} has no {error}, it is of an older version; run the stage `eval` again") from error
    (folder / "results.png").write_bytes(picture)
    echo(f"plot          {folder / 'results.png'}")
