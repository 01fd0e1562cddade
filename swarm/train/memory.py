"""Recipes of kind `memory`: a µLM reads whole episodes, call by call, its memory carried through each.

It is scored on held-out episodes with the memory on and off.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swarm.prompt import STOP
from swarm.seeds import derive_seed
from swarm.train import lessons
from swarm.train.policy import PolicyTraining
from swarm.train.recipe import MemoryRecipe
from swarm.train.training import Scores
from ulm.data.document_stream import DocumentStream
from ulm.decode.engine import Engine, GenerationRequest
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer
from ulm.train.documents import DocumentObjective
from ulm.train.step import Objective, Worker


class MemoryTraining(PolicyTraining):
    """A µLM with a long-term memory."""

    recipe: MemoryRecipe

    def check_task(self) -> None:
        """Refuse a task without lessons."""
        lessons.open_lessons(self.recipe.world, self.recipe.task)

    def weights_seed(self) -> int:
        """Return the seed of the first weights."""
        return derive_seed(self.recipe.seed, "weights")

    def objective(self, folder: Path, worker: Worker) -> Objective:
        """Return what a worker trains."""
        recipe, tokenizer = self.recipe, Tokenizer.load(folder / "tokenizer.json")
        model, optimizer = self.model(tokenizer, worker.device)
        segment = model.config.segment
        return DocumentObjective(
            model,
            optimizer,
            worker,
            _episodes(recipe, tokenizer, segment),
            segments=recipe.span // segment,
            parts=recipe.optimizer.micro_batches,
            dtype=recipe.place.compute_dtype,
            compile=recipe.place.compile,
        )

    def score(self, model: Decoder, tokenizer: Tokenizer) -> Scores:
        """Return the scores of the finished agent."""
        recipe = self.recipe
        return score_episodes(model, tokenizer, recipe.world, recipe.task, recipe.seed, recipe.score_examples)


def _episodes(recipe: MemoryRecipe, tokenizer: Tokenizer, segment: int) -> DocumentStream:
    seed = derive_seed(recipe.seed, "episodes")

    def texts(number: int) -> list[NDArray[np.int64]]:
        calls = lessons.episode(recipe.world, recipe.task, seed, number)
        return [np.array(ids) for ids in _encode([lessons.pair(call) for call in calls], tokenizer)]

    return DocumentStream([texts] * recipe.optimizer.batch_size, segment, tokenizer.pad_id)


def _encode(calls: list[lessons.Text], tokenizer: Tokenizer) -> list[list[int]]:
    """Return the ids of each call; prompt and completion are encoded apart, as they meet in play."""
    prompts = tokenizer.encode_batch([prompt for _, prompt, _ in calls])
    completions = tokenizer.encode_batch([completion for _, _, completion in calls])
    return [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]


def score_episodes(model: Decoder, tokenizer: Tokenizer, world: str, task: str, seed: int, episodes: int) -> Scores:
    """Score an agent on held-out episodes, greedily, its prompts being those of an agent that does everything right.

    Returns:
        kind of call -> `n`, `memory_on` and `memory_off`: shares of calls answered as they should be, with the memory
        carried through the episode and with an empty one at every call.
    """
    engine, taught = Engine(model, tokenizer), lessons.open_lessons(world, task)
    held_out = derive_seed(seed, "held-out episodes")
    right: dict[str, dict[str, list[bool]]] = {}
    for number in range(episodes):
        for name in ("memory_on", "memory_off"):
            memory = None
            for call in lessons.episode(world, task, held_out, number, held_out=True):
                kind, prompt, _ = lessons.pair(call)
                request = GenerationRequest(prompt, 0, 8, 0.0, stop=(STOP,), memory=memory)
                (result,) = engine.generate([request])
                if name == "memory_on":
                    memory = result.memory
                right.setdefault(kind, {}).setdefault(name, []).append(taught.judge(call, result.text))
    return {
        kind: {"n": len(found["memory_on"]), **{name: round(float(np.mean(x)), 4) for name, x in found.items()}}
        for kind, found in sorted(right.items())
    }
