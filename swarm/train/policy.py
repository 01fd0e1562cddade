"""Recipes of kind `policy`: a µLM learns from a world's lessons, and is scored on puzzles that no training text holds.

Examples follow from (seed, number) alone, so the cursor of a training is its step.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from swarm.errors import SwarmError
from swarm.prompt import STOP
from swarm.seeds import derive_seed
from swarm.train import lessons
from swarm.train.loop import trained
from swarm.train.recipe import MemoryRecipe, PolicyRecipe
from swarm.train.training import Scores, Training
from ulm.checkpoint import CheckpointConfig, load_checkpoint, read_checkpoint_config, save_checkpoint
from ulm.decode.engine import Engine, GenerationRequest
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer
from ulm.train.pairs import PairObjective
from ulm.train.step import Objective, Worker, make_optimizer


class PolicyTraining(Training[PolicyRecipe | MemoryRecipe]):
    """A µLM and the tokenizer that it is trained with."""

    def inputs(self) -> dict[str, Any]:
        """Return the hashes of the checkpoint that the training starts from."""
        self.check_task()
        if self.init is None:
            return {}
        parent, recipe = self._parent(self.init), self.recipe
        if parent.model != recipe.model.config(parent.model.vocab_size):
            raise SwarmError(
                f"init: {recipe.init} is no {recipe.model.preset} of window {recipe.model.window}; set model.preset "
                "and model.window"
            )
        return {"init_sha256": parent.sha256}

    def _parent(self, init: Path) -> CheckpointConfig:
        try:
            return read_checkpoint_config(init)
        except ValueError as error:
            raise SwarmError(f"init: {error}") from error

    def check_task(self) -> None:
        """Refuse a task without lessons, or with whole episodes."""
        lessons.example(self.recipe.world, self.recipe.task, self.recipe.seed, 0)

    def corpus(self) -> Iterable[str]:
        """Return the texts that the tokenizer is trained on."""
        return lessons.corpus(self.recipe.world, self.recipe.task)

    def prepare(self, folder: Path) -> None:
        """Write the tokenizer: that of the checkpoint to start from, or a new one."""
        model = self.recipe.model
        try:
            found = (
                load_checkpoint(self.init).tokenizer if self.init else Tokenizer.train(self.corpus(), model.vocab_size)
            )
            (found.spelled() if model.spell_numbers else found).save(folder / "tokenizer.json")
        except (ValueError, OSError) as error:
            raise SwarmError(f"cannot make the tokenizer in {folder}: {error}") from error

    def weights_seed(self) -> int:
        """Return the seed of the first weights."""
        return self.recipe.seed

    def model(self, tokenizer: Tokenizer, device: torch.device) -> tuple[Decoder, torch.optim.Optimizer]:
        """Return the µLM before the first step, and its optimizer."""
        model = Decoder(self.recipe.model.config(tokenizer.vocab_size), seed=self.weights_seed()).to(device)
        if self.init is not None:
            model.load_state_dict(load_checkpoint(self.init).model.state_dict())
        optimizer = self.recipe.optimizer
        return model, make_optimizer(model, optimizer.lr, optimizer.weight_decay, optimizer.betas, optimizer.kind)

    def objective(self, folder: Path, worker: Worker) -> Objective:
        """Return what a worker trains."""
        recipe, tokenizer = self.recipe, Tokenizer.load(folder / "tokenizer.json")
        return PairObjective(
            *self.model(tokenizer, worker.device),
            worker,
            tokenizer,
            lambda number: lessons.pair(lessons.example(recipe.world, recipe.task, recipe.seed, number))[1:],
            batch_size=recipe.optimizer.batch_size,
            parts=recipe.optimizer.micro_batches,
            dtype=recipe.place.compute_dtype,
            compile=recipe.place.compile,
        )

    def ship(self, folder: Path, out: Path, device: str) -> Scores:
        """Write the checkpoint; scores belong to the weights that ship, so those are rounded to bfloat16 before."""
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        model = Decoder(self.recipe.model.config(tokenizer.vocab_size))
        progress = trained(folder, model, self.recipe.optimizer.steps)
        model.to(torch.bfloat16).to(torch.float32)
        scores = self.score(model.to(device), tokenizer)
        meta = self.meta(progress, scores, device)
        if self.init is not None:
            parent = self._parent(self.init)
            meta["started_from"] = {"sha256": parent.sha256, "meta": parent.meta}
        try:
            save_checkpoint(out, model.cpu(), tokenizer, meta, dtype=torch.bfloat16)
        except ValueError as error:
            raise SwarmError(str(error)) from error
        return scores

    def score(self, model: Decoder, tokenizer: Tokenizer) -> Scores:
        """Return the scores of the finished policy."""
        recipe = self.recipe
        return score_policy(model, tokenizer, recipe.world, recipe.task, recipe.seed, recipe.score_examples)


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def score_policy(
    model: Decoder, tokenizer: Tokenizer, world: str, task: str, seed: int, examples: int
) -> dict[str, dict[str, Any]]:
    """Score a policy on held-out puzzles, kind by kind.

    Returns:
        kind -> n, `held_out` (false for kinds without a puzzle to hold out), `greedy` (share solved by one greedy
        attempt) and `sampled` (by one attempt at temperature .7).
    """
    engine, taught = Engine(model, tokenizer), lessons.open_lessons(world, task)
    scores: dict[str, dict[str, Any]] = {}
    for kind in taught.tasks[task]:
        cases = [lessons.held_out_example(world, task, kind, seed, i) for i in range(examples)]
        row: dict[str, Any] = {"n": len(cases), "held_out": kind not in taught.practice}
        for name, temperature in (("greedy", 0.0), ("sampled", 0.7)):
            requests = [
                GenerationRequest(lessons.pair(case)[1], derive_seed(seed, "score", i), 64, temperature, stop=(STOP,))
                for i, case in enumerate(cases)
            ]
            answers = [result.text for batch in _batches(requests, 512) for result in engine.generate(batch)]
            solved = sum(taught.judge(case, answer) for case, answer in zip(cases, answers, strict=True))
            row[name] = round(solved / len(cases), 4)
        scores[kind] = row
    return scores
