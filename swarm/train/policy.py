"""Recipes of kind `policy`: a µLM learns a solver's completions, and is scored on puzzles that no training text holds.

Examples follow from (seed, number) alone, so the cursor of a training is its step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from swarm.errors import SwarmError
from swarm.prompt import STOP
from swarm.seeds import derive_seed
from swarm.train import traces
from swarm.train.loop import trained
from swarm.train.recipe import MemoryRecipe, PolicyRecipe
from swarm.train.training import Scores, Training
from ulm.checkpoint import CheckpointConfig, load_checkpoint, read_checkpoint_config, save_checkpoint
from ulm.decode.engine import Engine, GenerationRequest
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer
from ulm.train.pairs import PairObjective
from ulm.train.step import Objective, Worker, make_optimizer
from worlds.numbers.arithmetic import ExpressionError, parse

__all__ = ["PolicyTraining", "score_policy"]


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
        """Refuse a task without lessons."""
        if self.recipe.task not in traces.TASKS:
            raise SwarmError(f"unknown task {self.recipe.task!r}; available: {', '.join(traces.TASKS)}")

    def corpus(self) -> Iterable[str]:
        """Return the texts that the tokenizer is trained on."""
        return traces.corpus(self.recipe.task)

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
            lambda number: traces.example(recipe.task, recipe.seed, number)[1:],
            batch_size=recipe.optimizer.batch_size,
            parts=recipe.optimizer.micro_batches,
            dtype=recipe.place.compute_dtype,
            compile=recipe.place.compile,
        )

    def ship(self, folder: Path, out: Path, device: str) -> Scores:
        """Write the checkpoint; scores belong to the weights that ship, so those are rounded to bfloat16 before."""
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        model = Decoder(self.recipe.model.config(tokenizer.vocab_size))
        progress = trained(folder, model)
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
        return score_policy(model, tokenizer, self.recipe.task, self.recipe.seed, self.recipe.score_examples)


def _judge(kind: str, prompt: str, completion: str, answer: str) -> bool:
    """Return whether an answer does what its prompt asks."""
    if kind in ("briefing", "pick"):  # the first one named is what most depends on
        first, able = (answer.split() or [""])[0], completion.split()
        return first in able
    if kind in traces.WITHOUT_PUZZLE | traces.MARKED:
        return answer.strip() == completion.strip()
    try:
        expression = parse(answer)
        value = expression.value()
    except ExpressionError:
        return False
    tiles = sorted(int(x) for x in prompt.split("target")[0].split()[1:])
    goal = int(prompt.split("target")[1].split()[0])
    if kind == "free":
        return sorted(expression.literals) == tiles
    if kind == "post":
        return sorted(expression.literals) == tiles and value in traces.posting_values(tuple(tiles), goal)
    used = sorted(expression.literals)
    if kind == "directed":
        borrowed = list(parse(completion).literals)
        return value == goal and used == sorted(borrowed)
    return value == goal and used == tiles


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def score_policy(
    model: Decoder, tokenizer: Tokenizer, task: str, seed: int, examples: int
) -> dict[str, dict[str, Any]]:
    """Score a policy on held-out puzzles, kind by kind.

    Returns:
        kind -> n, `held_out` (false for kinds without a puzzle to hold out), `greedy` (share solved by one greedy
        attempt) and `sampled` (by one attempt at temperature .7).
    """
    engine = Engine(model, tokenizer)
    scores: dict[str, dict[str, Any]] = {}
    for index in range(len(traces.TASKS[task])):
        cases = [traces.held_out_example(task, index, seed, i) for i in range(examples)]
        row: dict[str, Any] = {"n": len(cases), "held_out": cases[0][0] not in traces.WITHOUT_PUZZLE}
        for name, temperature in (("greedy", 0.0), ("sampled", 0.7)):
            requests = [
                GenerationRequest(prompt, derive_seed(seed, "score", i), 64, temperature, stop=(STOP,))
                for i, (_, prompt, _) in enumerate(cases)
            ]
            answers = [result.text for batch in _batches(requests, 512) for result in engine.generate(batch)]
            solved = sum(_judge(k, p, c, a) for (k, p, c), a in zip(cases, answers, strict=True))
            row[name] = round(solved / len(cases), 4)
        scores[cases[0][0]] = row
    return scores
