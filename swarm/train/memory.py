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

    def check_source(self) -> None:
        """Refuse a task without lessons."""
        lessons.open_lessons(self.recipe.world, self.recipe.task)

    def objective(self, folder: Path, worker: Worker) -> Objective:
        """Return what a worker trains."""
        recipe, tokenizer = self.recipe, Tokenizer.load(folder / "tokenizer.json")
        model, optimizer = self.model(tokenizer, worker.device, derive_seed(recipe.seed, "weights"))
        segment, seed = model.config.segment, derive_seed(recipe.seed, "episodes")

        def texts(number: int) -> list[NDArray[np.int64]]:
            """Return the ids of each call; prompt and completion are encoded apart, as they meet in play."""
            calls = [lessons.pair(call) for call in lessons.episode(recipe.world, recipe.task, seed, number)]
            ids = tokenizer.encode_batch([text for _, prompt, completion in calls for text in (prompt, completion)])
            return [np.array(prompt + completion) for prompt, completion in zip(ids[::2], ids[1::2], strict=True)]

        return DocumentObjective(
            model,
            optimizer,
            worker,
            DocumentStream([texts] * recipe.optimizer.batch_size, segment, tokenizer.pad_id),
            segments=recipe.span // segment,
            parts=recipe.optimizer.micro_batches,
            dtype=recipe.place.compute_dtype,
            compile=recipe.place.compile,
        )

    def score(self, model: Decoder, tokenizer: Tokenizer) -> Scores:
        """Score the finished agent on held-out episodes, greedily; prompts are those of one that does all right.

        Returns:
            kind of call -> `n`, `memory_on` and `memory_off`: shares of calls answered as they should be, with the
            memory carried through the episode and with an empty one at every call.
        """
        recipe, engine = self.recipe, Engine(model, tokenizer)
        taught, seed = lessons.open_lessons(recipe.world, recipe.task), derive_seed(recipe.seed, "held-out episodes")
        right: dict[str, dict[str, list[bool]]] = {}
        for number in range(recipe.score_examples):
            for name in ("memory_on", "memory_off"):
                memory = None
                for call in lessons.episode(recipe.world, recipe.task, seed, number, held_out=True):
                    kind, prompt, _ = lessons.pair(call)
                    (result,) = engine.generate([GenerationRequest(prompt, 0, 8, 0.0, stop=(STOP,), memory=memory)])
                    memory = result.memory if name == "memory_on" else None
                    right.setdefault(kind, {}).setdefault(name, []).append(taught.judge(call, result.text))
        return {
            kind: {"n": len(found["memory_on"]), **{name: round(float(np.mean(x)), 4) for name, x in found.items()}}
            for kind, found in sorted(right.items())
        }
