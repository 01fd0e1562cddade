"""`swarm lab`: prepare, train, evaluate and plot a pair of models, one resumable command.

Owns the stages, their order, and what is already done: every stage looks for its results, verifies them, and does only
what is missing. A stage whose input is not there says which stage makes it.

    runs/lab-<name>/
      lab.json        resolved config      data/           tokens, tokenizer, manifest
      s<seed>/<arm>/  states, metrics, checkpoint; eval/<condition>.json: a number per document and sequence
      results.json    results.png
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from swarm.actors.ray_train import METRICS
from swarm.errors import SwarmError
from swarm.files import path_in, write_whole
from swarm.identity import refuse_other, work_folder
from swarm.lab.ltm.ablation import ablation, ablation_lines
from swarm.lab.ltm.config import ARMS, LabConfig
from swarm.lab.ltm.results import lab_results
from swarm.lab.measurements import Measurement, measure_all, shown, write_json
from swarm.process.machine import cores
from swarm.process.progress import progress
from swarm.train.progress import read_metrics, totals, training_shown
from ulm.checkpoint import checkpoint_hash, load_checkpoint, read_checkpoint_config
from ulm.data.corpus import Corpus, OtherCorpusError, prepare_corpus
from ulm.data.documents import CorpusError
from ulm.data.infill import MARKS
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer

Stage = Literal["prepare", "train", "eval", "plot"]
STAGES: tuple[Stage, ...] = ("prepare", "train", "eval", "plot")


def run_lab(
    config: LabConfig,
    beside: Path,
    folder: Path,
    stages: Sequence[Stage],
    echo: Callable[[str], None],
) -> Path:
    """Run stages of a lab and return its folder.

    Args:
        config: the lab.
        beside: folder that the config's paths are relative to.
        folder: where everything is written.
        stages: in any order; they run in theirs.
        echo: receives progress lines.

    Raises:
        SwarmError: a stage cannot run; what was done before is kept.
    """
    from swarm.lab.ltm.trainer import is_trained, recall_task, require_training

    if "train" in stages:
        require_training(config)
    with work_folder(folder, "lab"):
        try:
            corpus = _prepare(config, beside, folder, echo) if "prepare" in stages else Corpus.open(folder / "data")
        except CorpusError as error:
            raise SwarmError(f"prepare: {error}" if "prepare" in stages else str(error)) from error
        try:
            recall_task(config, corpus)
        except ValueError as error:
            raise SwarmError(
                f"{error}; lower recall.num_keys and recall.num_values, or take a larger tokenizer and another --out"
            ) from error
        for arm, seed, place in trainings(config, folder):  # refuses other recipes before anything changes
            is_trained(config, arm, seed, corpus, place)
        write_json(folder / "lab.json", config.model_dump(mode="json"))
        if "train" in stages:
            _train(config, corpus, folder, echo)
        if "eval" in stages:
            _evaluate(config, corpus, folder, echo)
        if "plot" in stages:
            _plot(config, folder, echo)
    return folder


def _prepare(config: LabConfig, beside: Path, folder: Path, echo: Callable[[str], None]) -> Corpus:
    c = config.corpus
    local = path_in(beside, c.tokenizer) if isinstance(c.tokenizer, str) else None
    try:
        with progress("preparing the corpus", unit="documents", say=echo) as work:
            return prepare_corpus(
                [source.source(beside) for source in c.sources],
                folder / "data",
                tokenizer=str(local) if local is not None and local.exists() else c.tokenizer,
                val_share=c.val_share,
                seed=c.seed,
                bin_type=c.bin_type,
                marks=MARKS if config.has_holes else (),
                echo=echo,
                on_documents=lambda done, total: work.update(done, total=total),
            )
    except OtherCorpusError as error:
        refuse_other(folder / "data", error.found, error.wanted)
        raise


def trainings(config: LabConfig, folder: Path) -> list[tuple[str, int, Path]]:
    """Return arm, seed and folder of every training of a lab."""
    return [(arm, seed, folder / f"s{seed}" / arm) for seed in config.seeds for arm in config.names]


def _train(config: LabConfig, corpus: Corpus, folder: Path, echo: Callable[[str], None]) -> None:
    from swarm.lab.ltm.trainer import is_trained, train_language_model

    todo = []
    for arm, seed, place in trainings(config, folder):
        if is_trained(config, arm, seed, corpus, place):
            echo(f"{arm}, seed {seed}: trained already")
        else:
            todo.append((arm, seed, place))
    for others, (arm, seed, place) in zip(reversed(range(len(todo))), todo, strict=True):
        title, checkpoint = f"{arm}, seed {seed}", place / "checkpoint"
        with training_shown(place / METRICS, config.optimizer.steps, title, echo, others):
            train_language_model(config, arm, seed, corpus, place)
        size = read_checkpoint_config(checkpoint).num_parameters
        echo(f"{title}: {totals(place / METRICS)}; {size:,} parameters, checkpoint in {checkpoint}")


def _evaluate(config: LabConfig, corpus: Corpus, folder: Path, echo: Callable[[str], None]) -> None:
    from swarm.lab.ltm.evaluator import conditions, evaluate_condition

    wanted: dict[tuple[str, int, str], Measurement] = {}
    for arm, seed, place in trainings(config, folder):
        checkpoint = place / "checkpoint"
        if not checkpoint.is_dir():
            raise SwarmError(f"{arm}, seed {seed} is not trained; run the stage `train` first")
        source = {"checkpoint": _checked_hash(checkpoint, corpus), "corpus": corpus.manifest["sha256"]}
        for name, decides in conditions(config, arm).items():
            wanted[arm, seed, name] = Measurement(
                f"{place.relative_to(folder)}, {name}",
                place / "eval" / f"{name.replace(':', '-')}.json",
                {**source, **decides},
                (config, corpus.folder.resolve(), checkpoint.resolve(), name),
            )
    found = measure_all("evaluating", [*wanted.values()], evaluate_condition, echo, device=config.place.device)
    measured: dict[str, dict[str, list[Any]]] = {arm: {} for arm in config.names}
    for (arm, _, name), scores in zip(wanted, found, strict=True):
        measured[arm].setdefault(name, []).append(scores)
    if config.arms:
        results: dict[str, Any] = {"arms": ablation(measured, corpus.sizes("val")[2], config.recall.num_pairs)}
    else:
        results = _pair(config, corpus, folder, measured, echo)
    results["meta"] = {
        "config": config.model_dump(mode="json"),
        "hardware": f"{cores()} CPU cores",
        "corpus": corpus.manifest["splits"],
        "hit_rate_over_training": {
            str(seed): [(line["step"], line["ltm_hit_rate"]) for line in read_metrics(place / METRICS)]
            for arm, seed, place in trainings(config, folder)
            if arm == "with_ltm"
        },
    }
    write_json(folder / "results.json", results)
    for line in summary(results):
        echo(line)


def _pair(
    config: LabConfig, corpus: Corpus, folder: Path, measured: Mapping[str, Any], echo: Callable[[str], None]
) -> dict[str, Any]:
    """Return the results of models with and without memory, their speed among them."""
    from swarm.lab.ltm.evaluator import measure_speed

    echo("measuring speed")  # nothing is drawn meanwhile, which would take part of it
    models: dict[str, Decoder] = {
        arm: load_checkpoint(place / "checkpoint").model
        for arm, seed, place in trainings(config, folder)
        if seed == config.seeds[0]
    }
    return lab_results(
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


def _checked_hash(checkpoint: Path, corpus: Corpus) -> str:
    """Return the hash of a checkpoint that was trained on this corpus.

    Raises:
        SwarmError: it is damaged, or has another tokenizer.
    """
    try:
        found, tokenizer = checkpoint_hash(checkpoint), Tokenizer.load(checkpoint)
    except ValueError as error:
        raise SwarmError(
            f"{error}; or remove {checkpoint} and run the stage `train`, which makes it again from the last state"
        ) from error
    if tokenizer.to_json() != corpus.tokenizer.to_json():
        raise SwarmError(f"{checkpoint} has another tokenizer than {corpus.folder}; train it on this corpus again")
    return found


def summary(results: dict[str, Any]) -> list[str]:
    """Return the results as a few lines of text."""
    if "arms" in results:
        return ablation_lines(results["arms"])
    lines = []
    for arm, one in ((arm, results[arm]) for arm in ARMS if arm in results):
        far = one["details"]["long_range_recall"]
        lines.append(
            f"{arm:9} bpc {one['bpc']:.4f}  bits per byte {shown(one['details']['bits_per_byte'], '.4f')}  "
            f"{f'recall {shown(far)}' if far else 'no recall scored'}  hit rate {one['memory_hit_rate']:.3f}  "
            f"{one['tokens_per_sec']:,.0f} tokens/s"
        )
    return [*lines, *results.get("verdict", {}).values()]


def _plot(config: LabConfig, folder: Path, echo: Callable[[str], None]) -> None:
    from swarm.figures import to_png
    from swarm.lab.ltm.plots import plot_arms, plot_results

    path = folder / "results.json"
    if not path.is_file():
        raise SwarmError(f"no {path}; run the stage `eval` first")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        picture = to_png(plot_arms(results) if config.arms else plot_results(results, config.model.window))
    except ValueError as error:
        raise SwarmError(f"{path} is damaged ({error}); run the stage `eval` again") from error
    write_whole(folder / "results.png", picture)
    echo(f"plot          {folder / 'results.png'}")
