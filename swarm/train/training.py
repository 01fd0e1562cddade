"""`swarm train`: carries out what a training file describes; the same command goes on where it was.

runs/train-NAME/
  recipe.json     what decides the result; another recipe is refused
  tokenizer.json  states/  metrics.jsonl
"""

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from swarm.actors.ray_train import METRICS, run_workers
from swarm.config.shipped import find_file, is_shipped
from swarm.config.training import resolve_device
from swarm.errors import SwarmError
from swarm.files import path_in
from swarm.identity import claim, is_claimed, work_folder
from swarm.process.machine import cores
from swarm.process.progress import progress
from swarm.train.loop import STATES, run_training
from swarm.train.progress import totals, training_shown
from swarm.train.recipe import Recipe, load_recipe
from ulm.checkpoint import FILES as CHECKPOINT_FILES
from ulm.files import TakenError, refuse_taken
from ulm.train.states import RollingStates
from ulm.train.step import Objective, Worker

RecipeT = TypeVar("RecipeT", bound=Recipe)
Scores = dict[str, dict[str, Any]]

_KINDS = {
    "policy": "swarm.train.policy:PolicyTraining",
    "memory": "swarm.train.memory:MemoryTraining",
    "reward": "swarm.learn.reward:RewardTraining",
    "text": "swarm.train.text:TextTraining",
    "lora": "swarm.train.lora:LoraTraining",
    "symmetric": "swarm.train.symmetric:SymmetricTraining",
}


@dataclass
class Training(ABC, Generic[RecipeT]):
    """What one kind of recipe adds to the loop.

    Attributes:
        recipe: what to train.
        beside: folder of its file; the paths in it are relative to that.
        files: names of what the result is made of, which a new result replaces.
    """

    files: ClassVar[frozenset[str]] = CHECKPOINT_FILES

    recipe: RecipeT
    beside: Path

    @property
    def init(self) -> Path | None:
        """The folder that the training starts from."""
        return None if self.recipe.init is None else path_in(self.beside, self.recipe.init)

    @abstractmethod
    def inputs(self) -> dict[str, Any]:
        """Return hashes of what the training reads, part of its identity.

        Raises:
            SwarmError: something is missing, or does not fit the recipe.
        """

    def prepare(self, folder: Path, echo: Callable[[str], None] = lambda line: None) -> None:
        """Write what all workers read, before the first step; `echo` receives lines about it."""

    @abstractmethod
    def objective(self, folder: Path, worker: Worker) -> Objective:
        """Return what a worker trains."""

    @abstractmethod
    def ship(self, folder: Path, out: Path, device: str) -> Scores:
        """Write the result and return its scores."""

    def meta(self, progress: dict[str, Any], scores: Scores, device: str) -> dict[str, Any]:
        """Return what a result says of its training."""
        recipe = self.recipe.model_dump(mode="json")
        if self.init is not None:
            recipe["init"] = self.init.name
        return {
            "recipe": recipe,
            "training_seconds": round(progress["seconds"], 1),
            "examples": progress["step"] * self.recipe.optimizer.batch_size,
            "tokens": progress["tokens"],
            "schedule": progress["schedule"],
            "scores": scores,
            "hardware": f"{cores()} CPU cores, {device}",
        }


def open_training(recipe: Recipe, beside: Path) -> Training[Any]:
    """Return the training that a recipe describes; paths in it are relative to the folder `beside`."""
    found: Training[Any] = pkgutil.resolve_name(_KINDS[recipe.kind])(recipe, beside.resolve())
    return found


def result_folder(recipe: Recipe, path: Path) -> Path:
    """Return where the result of a file's recipe goes if nothing else is said."""
    return path_in(Path() if is_shipped(path) else path.parent, recipe.out)


def work_folder_of(recipe: Recipe) -> Path:
    """Return where a recipe's work is kept."""
    return Path("runs") / f"train-{recipe.name}"


def train_policy(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    workers: int | None = None,
    echo: Callable[[str], None] = print,
) -> Path:
    """Train what a file describes, from where an earlier try ended; score it and return its folder.

    Args:
        path: the YAML file, or the name of a shipped one.
        overrides: texts such as ``optimizer.steps=4``.
        out: where the result goes; None for the file's `out`.
        workers: replaces the file's.
        echo: receives progress lines.

    Raises:
        SwarmError: a bad file, the work of another recipe in the work folder, or a training that cannot go on.
    """
    path = find_file(path)
    recipe = load_recipe(path, overrides, workers)
    folder = work_folder_of(recipe)
    out = result_folder(recipe, path) if out is None else out
    device = resolve_device(recipe.place.device)
    training = open_training(recipe, path.parent)
    identity = {**recipe.identity(), **training.inputs()}
    try:
        refuse_taken(out, training.files)
    except TakenError as error:
        raise SwarmError(f"the result cannot be written: {error} with --out") from error
    with work_folder(folder, "train"):
        if not is_claimed(folder / "recipe.json", identity):
            training.prepare(folder, echo)
            claim(folder / "recipe.json", identity)
        with training_shown(folder / METRICS, recipe.optimizer.steps, f"training {recipe.name}", echo):
            settings = {"training": training, "folder": folder.resolve()}
            run_workers(train_worker, settings, name=recipe.name, folder=folder, place=recipe.place)
        with progress(f"scoring {recipe.name}"):
            scores = training.ship(folder, out, device)
        for name, score in scores.items():
            echo(f"score of {name}: {score}")
        echo(f"trained       {totals(folder / METRICS)}")
    return out


def train_worker(settings: dict[str, Any], worker: Worker) -> None:
    """Train a worker's share of a recipe.

    Args:
        settings: `training`, and `folder`, where it is written.
        worker: who trains; without Ray the only one.

    Raises:
        SwarmError: see `run_training`.
    """
    recipe, folder = settings["training"].recipe, settings["folder"]
    run_training(
        settings["training"].objective(folder, worker),
        recipe.optimizer,
        states=RollingStates(folder / STATES),
        save_every=recipe.save_every,
        log_every=recipe.log_every,
    )
