"""Recipes of kind `policy`: a µLM learns from a world's lessons, and is scored on puzzles that no training text holds.

`UlmTraining` is what all trainings of a µLM share. Examples of lessons follow from (seed, number) alone, so the cursor
of a training is its step.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from swarm.errors import SwarmError
from swarm.prompt import STOP
from swarm.seeds import derive_seed
from swarm.train import lessons
from swarm.train.loop import trained
from swarm.train.recipe import MemoryRecipe, PolicyRecipe, RewardRecipe, SymmetricRecipe, TextRecipe, WorldRecipe
from swarm.train.training import Scores, Training
from ulm.checkpoint import load_checkpoint, read_checkpoint_config, save_checkpoint
from ulm.decode.engine import Engine, GenerationRequest
from ulm.decode.inline import Ask, spans_in
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer
from ulm.train.pairs import PairObjective, Spans
from ulm.train.step import Objective, Worker, make_optimizer

BATCH = 512
"""Held-out examples that are answered at once."""


class UlmTraining(Training[PolicyRecipe | MemoryRecipe | RewardRecipe | SymmetricRecipe | TextRecipe]):
    """A µLM and the tokenizer that it is trained with."""

    def inputs(self) -> dict[str, Any]:
        """Return the hashes of the checkpoint that the training starts from."""
        self.check_source()
        if self.init is None:
            return {}
        try:
            parent = read_checkpoint_config(self.init)
        except ValueError as error:
            raise SwarmError(f"init: {error}") from error
        model = self.recipe.model
        if parent.model != model.config(parent.model.vocab_size):
            raise SwarmError(
                f"init: {self.recipe.init} is no {model.preset} of window {model.window}; set model.preset and "
                "model.window"
            )
        return {"init_sha256": parent.sha256}

    @abstractmethod
    def check_source(self) -> None:
        """Refuse a world, or a file, that cannot be learned from so."""

    @abstractmethod
    def texts(self) -> Iterable[str]:
        """Return the texts that a new tokenizer is trained on."""

    def new_tokenizer(self) -> Tokenizer:
        """Return a tokenizer trained on `texts`."""
        assert isinstance(self.recipe, WorldRecipe)  # noqa: S101 - others make their own
        return Tokenizer.train(self.texts(), self.recipe.model.vocab_size, pieces=lessons.pieces(self.recipe.world))

    @abstractmethod
    def score(self, model: Decoder, tokenizer: Tokenizer) -> Scores:
        """Score the finished policy on what it has not seen."""

    def prepare(self, folder: Path, echo: Callable[[str], None] = lambda line: None) -> None:
        """Write the tokenizer: that of the checkpoint to start from, or a new one."""
        model = self.recipe.model
        try:
            found = load_checkpoint(self.init).tokenizer if self.init else self.new_tokenizer()
            (found.spelled() if model.spell_numbers else found).save(folder / "tokenizer.json")
        except (ValueError, OSError) as error:
            raise SwarmError(f"cannot make the tokenizer in {folder}: {error}") from error

    def model(self, tokenizer: Tokenizer, device: torch.device, seed: int) -> tuple[Decoder, torch.optim.Optimizer]:
        """Return the µLM before the first step, of a seed for its weights, and its optimizer."""
        model = Decoder(self.recipe.model.config(tokenizer.vocab_size), seed=seed).to(device)
        if self.init is not None:
            model.load_state_dict(load_checkpoint(self.init).model.state_dict())
        optimizer = self.recipe.optimizer
        return model, make_optimizer(model, optimizer.lr, optimizer.weight_decay, optimizer.betas, optimizer.kind)

    def ship(self, folder: Path, out: Path, device: str) -> Scores:
        """Write the checkpoint; scores belong to the weights that ship, so those are rounded to bfloat16 before."""
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        model = Decoder(self.recipe.model.config(tokenizer.vocab_size))
        progress = trained(folder, model, self.recipe.optimizer.steps)
        model.to(torch.bfloat16).to(torch.float32)
        scores = self.score(model.to(device), tokenizer)
        meta = self.meta(progress, scores, device)
        if self.init is not None:
            parent = read_checkpoint_config(self.init)
            meta["started_from"] = {"sha256": parent.sha256, "meta": parent.meta}
        try:
            save_checkpoint(out, model.cpu(), tokenizer, meta, dtype=torch.bfloat16)
        except ValueError as error:
            raise SwarmError(str(error)) from error
        return scores


class PolicyTraining(UlmTraining):
    """A µLM that learns a world's lessons."""

    recipe: PolicyRecipe | MemoryRecipe

    def check_source(self) -> None:
        """Refuse a task without lessons, or with whole episodes."""
        lessons.example(self.recipe.world, self.recipe.task, self.recipe.seed, 0)

    def texts(self) -> Iterable[str]:
        """Return the texts of the lessons that a tokenizer is trained on."""
        return lessons.corpus(self.recipe.world, self.recipe.task)

    def objective(self, folder: Path, worker: Worker) -> Objective:
        """Return what a worker trains."""
        recipe, tokenizer = self.recipe, Tokenizer.load(folder / "tokenizer.json")
        return PairObjective(
            *self.model(tokenizer, worker.device, recipe.seed),
            worker,
            tokenizer,
            lambda number: lessons.pair(lessons.example(recipe.world, recipe.task, recipe.seed, number))[1:],
            batch_size=recipe.optimizer.batch_size,
            parts=recipe.optimizer.micro_batches,
            inlined=self._inlined,
            dtype=recipe.place.compute_dtype,
            compile=recipe.place.compile,
        )

    def _asked(self, prompt: str) -> Ask | None:
        """Return what the world appends to an answer to a prompt; None where it appends nothing."""
        if not isinstance(self.recipe, PolicyRecipe) or not self.recipe.inline:
            return None
        return lessons.asked(self.recipe.world, prompt)

    def _inlined(self, prompt: str, completion: str) -> Spans:
        ask = self._asked(prompt)
        return () if ask is None else spans_in(ask, completion)

    def score(self, model: Decoder, tokenizer: Tokenizer) -> Scores:
        """Score the finished policy on held-out puzzles, kind by kind.

        Returns:
            kind -> n, `held_out` (false for kinds without a puzzle to hold out), `greedy` (share solved by one greedy
            attempt) and `sampled` (by one attempt at temperature .7).
        """
        world, task, seed, count = (getattr(self.recipe, name) for name in ("world", "task", "seed", "score_examples"))
        engine, taught = Engine(model, tokenizer), lessons.open_lessons(world, task)
        longest = self.recipe.max_new_tokens if isinstance(self.recipe, PolicyRecipe) else 64
        scores: Scores = {}
        for kind in taught.tasks[task]:
            cases = [lessons.held_out_example(world, task, kind, seed, i) for i in range(count)]
            scores[kind] = {"n": count, "held_out": kind not in taught.practice}
            prompts = [lessons.pair(case)[1] for case in cases]
            for name, temperature in (("greedy", 0.0), ("sampled", 0.7)):
                requests = [
                    GenerationRequest(
                        prompt,
                        derive_seed(seed, "score", i),
                        longest,
                        temperature,
                        stop=(STOP,),
                        inline=self._asked(prompt),
                    )
                    for i, prompt in enumerate(prompts)
                ]
                batches = [requests[at : at + BATCH] for at in range(0, count, BATCH)]
                answers = [result.text for batch in batches for result in engine.generate(batch)]
                solved = sum(map(taught.judge, cases, answers))
                scores[kind][name] = round(solved / count, 4)
        return scores
