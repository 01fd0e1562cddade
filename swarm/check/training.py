"""What a training file would do: lessons, model, steps, what they need, and how long they take."""

import importlib.util
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from swarm.actors.ray_train import METRICS, require_compiler
from swarm.check.measure import JUST_NOW, step_seconds
from swarm.check.models import HUB_TIMEOUT_S, asking_hub, look_for, weights_bytes
from swarm.check.plan import Plan, about, size
from swarm.config.training import PlaceSection, resolve_device
from swarm.doctor import recipe_for
from swarm.identity import is_claimed
from swarm.process.machine import cores, memory_bytes
from swarm.train.lessons import open_lessons
from swarm.train.progress import read_metrics
from swarm.train.recipe import (
    LoraRecipe,
    MemoryRecipe,
    PolicyRecipe,
    Recipe,
    RewardRecipe,
    SymmetricRecipe,
    TaughtRecipe,
    TextRecipe,
    load_recipe,
)
from swarm.train.training import open_training, result_folder, work_folder_of
from ulm.train.step import Objective, Worker

BYTES_PER_WEIGHT = 16
"""Memory that a trained weight takes: itself, its gradient and two moments, in float32."""


FEW = 20
"""Puzzles of a round that is made so that steps can be timed."""


FEW_TEXTS = 500
"""Documents of the first stage that are prepared so that steps can be timed."""


def check_training(plan: Plan, file: Path, overrides: Sequence[str]) -> None:
    """Tell what `swarm train` would do with a file."""
    recipe = load_recipe(file, overrides)
    steps, batch = recipe.optimizer.steps, recipe.optimizer.batch_size
    plan.tell("training", f"{recipe.name}, kind {recipe.kind}: {steps:,} steps of {batch} = {steps * batch:,} examples")
    if isinstance(recipe, RewardRecipe):
        each = f"{recipe.explore:,} random attempts at each"
        each += f", {recipe.attempts:,} own ones where none was right" if recipe.attempts else ""
        rounds = -(-steps // recipe.every)
        plan.tell(
            "rounds",
            f"{rounds:,} rounds of {recipe.puzzles:,} puzzles of {recipe.world}, {each}",
            f"seed {recipe.seed}",
        )
    elif isinstance(recipe, TextRecipe):
        _stages(plan, recipe)
    elif isinstance(recipe, TaughtRecipe) and recipe.task != "runs":
        with plan.noting():
            open_lessons(recipe.world, recipe.task)
            plan.tell("lessons", f"task {recipe.task} of {recipe.world}", f"seed {recipe.seed}")
    elif isinstance(recipe, SymmetricRecipe):
        plan.tell("pairs", recipe.pairs, f"scored on {recipe.held_out}")
    is_here = _models(plan, recipe, file)
    device = place(plan, recipe.place)
    training, folder, out = open_training(recipe, file.parent), work_folder_of(recipe), result_folder(recipe, file)
    inputs: dict[str, Any] | None = None
    if not plan.missing and is_here:  # this says the first thing only
        with plan.noting():
            inputs = training.inputs()
    if inputs is not None:
        with plan.noting():
            is_claimed(folder / "recipe.json", {**recipe.identity(), **inputs})
    plan.tell("result", f"{out}{', replaced at the end' if out.exists() else ''}", f"work folder {folder}")
    if done := read_metrics(folder / METRICS):
        last = done[-1]
        per_step, basis = last["seconds"] / last["step"], f"as its first {last['step']:,} steps went"
        left = steps - last["step"]
        plan.tell("goes on", f"from step {last['step']:,}; {left:,} are left")
    elif plan.missing:
        return
    elif not is_here:
        plan.tell("time", about(None, "the model has to be fetched or unpacked first"))
        return
    else:
        left = steps
        with plan.noting("the first step: "):
            per_step = _measured(recipe, file, device)
            basis = JUST_NOW if not recipe.place.compile else f"{JUST_NOW}, not compiled"
        if plan.missing:
            return
    more = "attempts, scoring and Ray's start" if isinstance(recipe, RewardRecipe) else "scoring and Ray's start"
    plan.tell("time", about(left * per_step, f"{basis} ({per_step:.2g} s a step); {more} come on top"))


def _stages(plan: Plan, recipe: TextRecipe) -> None:
    """Tell what each stage reads and for how long, and what that lacks."""
    each = recipe.optimizer.batch_size * recipe.span
    for number, (start, end) in zip(recipe.in_order(), pairwise((0, *recipe.ends())), strict=True):
        stage = recipe.stages[number]
        where = ", ".join(stage.files) if stage.hub is None else f"{stage.hub} of the hub, read as a stream"
        title = stage.source(Path()).title
        plan.tell("stage", f"{title}: {end - start:,} steps, {(end - start) * each:,} tokens: {where}")
        if stage.hub is not None:
            hub_corpus(plan, stage.hub)
        if stage.cleaning.language is not None and importlib.util.find_spec("py3langid") is None:
            plan.lack(f"{title}: cleaning by `language` needs: pip install 'ulm-swarm[data]'")


def hub_corpus(plan: Plan, name: str) -> None:
    """Note what a corpus of a hub lacks: the package that reads it, or the name."""
    from huggingface_hub import dataset_info

    if importlib.util.find_spec("datasets") is None:
        plan.lack(f"corpus {name!r} is on a hub, which needs: pip install 'ulm-swarm[data]'")
    with asking_hub(plan, f"corpus {name!r}"):
        dataset_info(name, timeout=HUB_TIMEOUT_S)


def _measured(recipe: Recipe, file: Path, device: str) -> float:
    """Return how long a step takes, without the minutes that torch.compile needs first."""
    changes: dict[str, Any] = {"place": recipe.place.model_copy(update={"compile": False})}
    if isinstance(recipe, RewardRecipe):
        changes |= {"puzzles": min(recipe.puzzles, FEW), "score_examples": min(recipe.score_examples, FEW)}
    if isinstance(recipe, TextRecipe):  # a step takes as long in every stage
        first = recipe.stages[0]
        changes["stages"] = (first.model_copy(update={"samples": min(first.samples or FEW_TEXTS, FEW_TEXTS)}),)
    plain = recipe.model_copy(update=changes)
    training = open_training(plain, file.parent)

    def make(folder: Path, worker: Worker) -> Objective:
        training.prepare(folder)
        return training.objective(folder, worker)

    return step_seconds(make, recipe.optimizer.clip, device, recipe.place.threads) / recipe.place.workers


def place(plan: Plan, section: PlaceSection) -> str:
    """Tell where a training is computed, and what that lacks; return the device."""
    device = "cpu"
    with plan.noting("place.device: "):
        device = resolve_device(section.device)
    plan.tell("computes", f"{section.workers} worker(s) of Ray Train on {device}, {section.dtype}")
    if device == "cpu" and section.workers > cores():
        plan.lack(f"{section.workers} workers need as many processors, and there are {cores()}; lower place.workers")
    if section.compile:
        with plan.noting():
            require_compiler(device)
    return device


def _models(plan: Plan, recipe: Recipe, file: Path) -> bool:
    """Tell what is trained, from what it starts, and the memory that this takes; return whether its base is here."""
    beside = file.resolve().parent
    needed, is_here = 0.0, True
    if isinstance(recipe, PolicyRecipe | MemoryRecipe | RewardRecipe | SymmetricRecipe | TextRecipe):
        count = recipe.model.config(recipe.model.vocab_size).num_parameters()
        needed = BYTES_PER_WEIGHT * count
        plan.tell("model", f"preset {recipe.model.preset}: at most {count:,} parameters, as the tokenizer turns out")
    elif isinstance(recipe, LoraRecipe):
        folder = look_for(plan, "model", recipe.model, beside, ours=False)
        needed, is_here = weights_bytes(folder), folder is not None
        if importlib.util.find_spec("peft") is None:
            plan.lack("training an adapter needs the package peft: pip install 'ulm-swarm[hf]'")
        for run in recipe.runs:
            if not (beside / run / "journal.jsonl").is_file():
                plan.lack(f"runs: no run folder at {beside / run}")
    if recipe.init is not None:
        start = beside / recipe.init
        wanted = "adapter_config.json" if isinstance(recipe, LoraRecipe) else "config.json"
        if (start / wanted).is_file():
            plan.tell("starts from", str(start))
        else:
            plan.lack(f"init: nothing to start from at {start}: {recipe_for(beside, start)}")
    there = memory_bytes()
    each = f"about {size(needed * recipe.place.workers)} for weights and optimizer, and what a batch takes"
    plan.tell("memory use", each, f"this machine has {size(there)}")
    if needed * recipe.place.workers > there:
        plan.lack(f"the weights alone need {size(needed * recipe.place.workers)}, this machine has {size(there)}")
    return is_here
