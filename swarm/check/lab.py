"""What the lab's files would do: trainings and measurements, which of them are done, and what they need."""

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from swarm.actors.ray_train import METRICS
from swarm.check.measure import JUST_NOW, step_seconds
from swarm.check.models import look_for
from swarm.check.plan import Plan, about, size
from swarm.check.training import BYTES_PER_WEIGHT, hub_corpus, place
from swarm.config.load import load_yaml_model
from swarm.config.training import resolve_device
from swarm.lab.engram.config import EngramEvalConfig
from swarm.lab.facts.config import ExactMatchConfig
from swarm.lab.ltm.config import LabConfig
from swarm.lab.mqar.config import MqarConfig
from swarm.process.machine import cores, memory_bytes
from swarm.train.progress import read_metrics
from ulm.data.corpus import Corpus
from ulm.data.document_stream import DocumentStream, Windows
from ulm.data.documents import corpus_files
from ulm.train.step import Objective, Worker


def check_lab(plan: Plan, file: Path, overrides: Sequence[str]) -> None:
    """Tell what `swarm lab` would do with a file."""
    from swarm.lab.ltm.evaluator import conditions
    from swarm.lab.ltm.stages import trainings
    from swarm.lab.ltm.trainer import objective_of, require_training

    config = load_yaml_model(file, LabConfig, overrides)
    folder = Path("runs") / f"lab-{config.name}"
    runs, steps, section = trainings(config, folder), config.optimizer.steps, config.place
    done = [run for run in runs if (run[2] / "checkpoint").is_dir()]
    plan.tell("lab", f"{config.name}: {len(config.names)} arms x {len(config.seeds)} seeds, {steps:,} steps each")
    vocab_size = _corpus(plan, config, file.resolve().parent, folder)
    device = place(plan, config.place)
    with plan.noting():
        require_training(config)
    shapes = {arm: config.shape(arm, vocab_size or 4096) for arm in config.names}
    for arm, shape in shapes.items():
        plan.tell("model", f"{arm}: {shape.num_parameters():,} parameters{'' if vocab_size else ', if 4,096 tokens'}")
    _memory(plan, max(shape.num_parameters() for shape in shapes.values()) * config.place.workers)
    plan.tell("trainings", f"{len(runs)}, {len(done)} of them done, in {folder}")
    measured = sum(len(conditions(config, arm)) for arm, _, _ in runs)
    plan.tell("evaluation", f"{measured} measurements, one per training and condition; how long is not known")
    left = 0.0
    for arm in dict.fromkeys(run[0] for run in runs if run not in done):
        before = [line for _, _, path in runs if path.name == arm for line in read_metrics(path / METRICS)[-1:]]
        if before:
            per_step, basis = before[-1]["seconds"] / before[-1]["step"], "as steps of the work folder went"
        elif plan.missing:
            return
        else:
            stream = _some_text(config, vocab_size or 4096)
            plain = config.model_copy(update={"place": section.model_copy(update={"compile": False})})
            make = partial(_in_place, partial(objective_of, plain, arm, config.seeds[0]), vocab_size or 4096, stream)
            per_step = step_seconds(make, config.optimizer.clip, device, section.threads) / section.workers
            basis = JUST_NOW
        left += per_step * steps * sum(run[0] == arm for run in runs if run not in done)
    plan.tell("time", about(left, f"{basis}; for the trainings alone") if left else "all trainings are done")


def _in_place(make: Callable[..., Objective], vocab_size: int, stream: Any, folder: Path, worker: Worker) -> Objective:
    return make(worker, vocab_size, stream)


def _some_text(config: LabConfig, vocab_size: int) -> DocumentStream | Windows:
    """Return documents of random tokens, which take as long as real ones."""
    tokens, train, rows = np.random.Generator(np.random.PCG64(0)), config.train, config.optimizer.batch_size
    if train.mode == "windows":
        return Windows(tokens.integers(1, vocab_size, 100 * train.width), rows, train.width, train.stride, 0)
    return DocumentStream([lambda number: tokens.integers(1, vocab_size, 1000)] * rows, config.model.window, 0)


def _corpus(plan: Plan, config: LabConfig, beside: Path, folder: Path) -> int | None:
    """Tell where the texts come from; return the size of the vocabulary, None where it is not known yet."""
    corpus = config.corpus
    if (folder / "data" / "manifest.json").is_file():
        with plan.noting():
            there = Corpus.open(folder / "data")
            tokens = {split: numbers["tokens"] for split, numbers in there.manifest["splits"].items()}
            plan.tell(
                "corpus", f"prepared: {', '.join(f'{count:,} tokens to {name}' for name, count in tokens.items())}"
            )
            return int(there.tokenizer.vocab_size)
    for source in corpus.sources:
        if source.hub is not None:
            hub_corpus(plan, source.hub)
            plan.tell("corpus", f"{source.hub} of the hub, read as a stream")
            continue
        for name in source.files:
            with plan.noting("corpus.sources: "):
                files = corpus_files([str(beside / name)])
                plan.tell("corpus", f"{name}: {len(files)} file(s), {size(sum(f.stat().st_size for f in files))}")
    if isinstance(corpus.tokenizer, int):
        plan.tell("tokenizer", f"BPE of {corpus.tokenizer:,} tokens, trained on the training documents")
        return corpus.tokenizer
    local = (beside / corpus.tokenizer).exists()
    plan.tell("tokenizer", f"{corpus.tokenizer}, {'a file here' if local else 'from the hub, or its cache'}")
    return None


def _memory(plan: Plan, num_parameters: int) -> None:
    needed, there = float(BYTES_PER_WEIGHT * num_parameters), memory_bytes()
    plan.tell(
        "memory use", f"about {size(needed)} for weights and optimizer, and a batch", f"this machine has {size(there)}"
    )
    if needed > there:
        plan.lack(f"the weights alone need {size(needed)}, this machine has {size(there)}; lower the size of the model")


def check_mqar(plan: Plan, file: Path, overrides: Sequence[str]) -> None:
    """Tell what `swarm mqar` would do with a file."""
    from swarm.lab.mqar.experiment import measurement, objective_of, runs_of

    config = load_yaml_model(file, MqarConfig, overrides)
    folder, runs, device = Path("runs") / f"mqar-{config.name}", runs_of(config), "cpu"
    with plan.noting("device: "):
        device = resolve_device(config.device)
    found = {run: measurement(config, folder, *run).read() for run in runs}
    todo = [run for run in runs if found[run] is None]
    plan.tell(
        "mqar",
        f"{config.name}: {len(config.tasks)} tasks x 2 arms x {len(config.seeds)} seeds = {len(runs)} trainings of "
        f"{config.optimizer.steps:,} steps, each then scored on {config.eval.sequences:,} sequences",
    )
    plan.tell("trainings", f"{len(runs) - len(todo)} of {len(runs)} done, in {folder}", f"on {device}")
    left = 0.0
    for task, arm in dict.fromkeys((task, arm) for task, arm, _ in todo):
        count = sum((task, arm) == run[:2] for run in todo)
        known = [one["training_seconds"] for run, one in found.items() if run[:2] == (task, arm) and one]
        if known:
            left += count * float(np.mean(known))
        elif plan.missing:
            return
        else:
            make = partial(_at, partial(objective_of, config, task, arm, config.seeds[0]))
            left += count * config.optimizer.steps * step_seconds(make, config.optimizer.clip, device)
    at_once = min(cores(), max(1, len(todo)))
    basis = f"{at_once} at a time, {JUST_NOW} or trainings that are done; scoring comes on top"
    plan.tell("time", about(left / at_once, basis) if todo else "all is done")


def _at(make: Callable[[Worker], Objective], folder: Path, worker: Worker) -> Objective:
    return make(worker)


def check_eval(plan: Plan, file: Path, overrides: Sequence[str]) -> None:
    """Tell what `swarm eval` would do with a file."""
    from swarm.lab.engram.config import LEARNED
    from swarm.lab.engram.evaluation import checked_facts, measurements

    config, beside = load_yaml_model(file, EngramEvalConfig, overrides), file.resolve().parent
    folder, wanted = Path("runs") / f"engram-{config.name}", measurements(config)
    plan.tell("eval", f"{config.name}: {len(wanted)} measurements, seed {config.seed}")
    if config.learn.categories:
        plan.tell("trainings", f"{len(LEARNED)} of {config.learn.optimizer.steps:,} steps: {', '.join(LEARNED)}")
    if importlib.util.find_spec("peft") is None:
        plan.lack("`swarm eval` needs peft: pip install 'ulm-swarm[hf]'")
    with plan.noting("device: "):
        plan.tell("computes", f"{resolve_device(config.device)}, one thread or GPU per task, {cores()} cores here")
    model = look_for(plan, "model", config.model, beside, ours=False)
    texts = {"text.file": config.text.file, "facts": config.facts}
    if config.learn.text is not None:
        texts["learn.text.file"] = config.learn.text.file
    if config.faq is not None:
        texts["faq.unanswerable"] = config.faq.unanswerable
    _files(plan, texts, beside)
    if (facts := beside / config.facts).is_file():
        with plan.noting(f"{config.facts}: "):
            _tables(plan, load_yaml_model(facts, ExactMatchConfig), facts.resolve().parent)
    if not plan.missing and model is not None:  # this says the first thing only
        with plan.noting():
            checked_facts(config, beside)
    done = len(list((folder / "measured").glob("*.json")))
    plan.tell("work folder", str(folder), f"{done} measurements in it")
    plan.tell("time", about(None, "it depends on model and facts; the command says so once its first tasks are done"))


def check_exact_match(plan: Plan, file: Path, overrides: Sequence[str]) -> None:
    """Tell what `swarm data exact-match` would do with a file."""
    from swarm.lab.facts.exact_match import build_exact_match

    config, beside = load_yaml_model(file, ExactMatchConfig, overrides), file.resolve().parent
    plan.tell("questions", f"{config.name}: {len(config.categories)} categories, seed {config.seed}")
    _tables(plan, config, beside)
    if not plan.missing:
        with plan.noting():
            sets = build_exact_match(config, beside)
            plan.tell("would write", ", ".join(f"{len(records):,} in {split}.jsonl" for split, records in sets.items()))
    plan.tell("time", "seconds: no model is asked")


def _tables(plan: Plan, config: ExactMatchConfig, beside: Path) -> None:
    named: dict[str, str] = {}
    for name, category in config.categories.items():
        if category.file is not None:
            named[f"categories.{name}.file"] = category.file
        if category.questions is not None:
            named[f"categories.{name}.questions.train"] = category.questions.train
            named[f"categories.{name}.questions.test"] = category.questions.test
    _files(plan, named, beside)


def _files(plan: Plan, named: dict[str, str], beside: Path) -> None:
    """Tell of files that settings name, and note those that are not there."""
    for setting, name in named.items():
        if (beside / name).is_file():
            plan.tell("reads", f"{setting}: {name}, {size((beside / name).stat().st_size)}")
        else:
            plan.lack(f"{setting}: no file at {beside / name}; download it, or correct the path")
