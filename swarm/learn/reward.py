"""Recipes of kind `reward`: a µLM learns from a world's reward alone; no lessons, no solver.

- Training goes in rounds. At the beginning of each, every worker makes its share of the attempts; all workers then
  have the attempts of all, in the order of the puzzles, so how many there are decides no data.
- What was gathered so far is part of a saved state, and an example follows from it, the seed and its number: a resumed
  training ends bit-equal.
"""

import copy
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swarm.errors import SwarmError
from swarm.learn.imitated import Imitated, Judged, choose
from swarm.learn.rollouts import Place, Rollouts
from swarm.learn.samples import Sample
from swarm.train.policy import UlmTraining
from swarm.train.recipe import RewardRecipe
from swarm.train.training import Scores
from ulm.decode.engine import Engine
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer
from ulm.train.pairs import PairObjective
from ulm.train.step import Objective, Worker
from worlds.seeds import DerivedRandom

SAMPLED = 16
"""Attempts at each held-out puzzle beside the greedy one."""

POOL = "pool"


class RewardObjective(PairObjective):
    """Imitation of what was right, gathered round by round.

    Args:
        model: on the worker's device.
        optimizer: of its parameters.
        worker: makes its share of attempts and takes its share of each batch.
        tokenizer: of the model.
        rollouts: makes attempts.
    """

    def __init__(
        self,
        model: Decoder,
        optimizer: torch.optim.Optimizer,
        worker: Worker,
        tokenizer: Tokenizer,
        rollouts: Rollouts,
    ) -> None:
        recipe = self.recipe = rollouts.recipe
        super().__init__(
            model,
            optimizer,
            worker,
            tokenizer,
            self._drawn,
            batch_size=recipe.optimizer.batch_size,
            parts=recipe.optimizer.micro_batches,
            dtype=recipe.place.compute_dtype,
            compile=recipe.place.compile,
        )
        self._policy, self.tokenizer, self.rollouts = model, tokenizer, rollouts
        self.imitated = Imitated(recipe.per_task)
        self.posed: dict[str, None] = {}
        self.counts: Counter[str] = Counter()
        self.rounds = 0
        self._kinds: dict[str, list[Sample]] = {}

    def batch(self, step: int) -> tuple[list[dict[str, Tensor]], int]:
        """Return this worker's micro-batches of a step, after the attempts of a round that begins with it."""
        if step // self.recipe.every >= self.rounds:
            self.gather(self.rounds)
            self.rounds += 1
            self._kinds = {}
        if not self._kinds:
            self._kinds = {"own": self.imitated.own(), "hindsight": self.imitated.hindsight()}
        return super().batch(step)

    def _drawn(self, number: int) -> tuple[str, str]:
        shares = {"own": 1 - self.recipe.hindsight, "hindsight": self.recipe.hindsight}
        return choose(self._kinds, shares, DerivedRandom(self.recipe.seed, "example", number))[:2]

    def gather(self, number: int) -> None:
        """Make the attempts of a round."""
        recipe, rollouts = self.recipe, self.rollouts
        places = [Place("puzzle", number * recipe.puzzles + index) for index in range(recipe.puzzles)]
        seen = [rollouts.observed(place) for place in places]
        for observation in seen:
            if observation not in self.posed and not rollouts.is_barred(observation):
                self.posed[observation] = None
                self.imitated.pose(observation)
        self._take(
            "explored", [one for place in self._mine(places) for one in rollouts.explored(place, recipe.explore)]
        )
        if recipe.attempts and (number or recipe.init is not None):  # random weights would only write noise
            open_places = [
                place
                for place, observation in zip(places, seen, strict=True)
                if observation in self.posed and not self.imitated.knows(observation)
            ]
            engine = Engine(copy.deepcopy(self._policy), self.tokenizer)
            found = rollouts.tried(engine, self._mine(open_places), recipe.attempts, recipe.temperature)
            self._take("own", [one for some in found for one in some])
        if not self.imitated.right and not self.imitated.relabelled:
            raise SwarmError(
                f"round {number} has nothing to learn from: none of {self.counts['explored'] + self.counts['own']:,} "
                "attempts was right; raise `explore`, `attempts` or `puzzles`"
            )

    def _mine(self, places: Sequence[Place]) -> Sequence[Place]:
        """Return this worker's share of some puzzles."""
        rank, size = self.worker.rank, self.worker.size
        return places[rank * len(places) // size : (rank + 1) * len(places) // size]

    def _take(self, kind: str, mine: Sequence[Judged]) -> None:
        """Keep the attempts of all workers, in the order of the puzzles."""
        for part in self.worker.gathered_bytes(_packed(mine)):
            for attempt in (Judged(*row) for row in _unpacked(part)):
                self.counts[kind] += 1
                self.counts[f"{kind}_right"] += attempt.right
                self.counts["barred"] += self.imitated.take(attempt, self.posed, self.rollouts.is_barred)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the rounds so far, their counts, and all that was gathered."""
        pool = {"imitated": self.imitated.state(), "posed": list(self.posed)}
        tensor = torch.from_numpy(np.frombuffer(_packed(pool), dtype=np.uint8).copy())
        return {"rounds": self.rounds, "attempts": dict(self.counts)}, {POOL: tensor}

    def restore(self, progress: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Go back to a `state`.

        Raises:
            ValueError: what was gathered is lost.
        """
        if POOL not in tensors:
            raise ValueError(
                "what the training gathered is lost, and weights alone cannot go on in the middle of a round; remove "
                "its states to start over"
            )
        pool = _unpacked(tensors[POOL].numpy().tobytes())
        self.rounds, self.counts = int(progress["rounds"]), Counter(progress["attempts"])
        self.imitated.restore(pool["imitated"])
        self.posed, self._kinds = dict.fromkeys(pool["posed"]), {}

    def metrics(self, sums: dict[str, float], tokens: int) -> dict[str, Any]:
        """Return how many rounds and attempts there were, and to how many of the posed puzzles an answer is known."""
        known = {"puzzles": len(self.posed), "known": len(self.imitated.right)}
        return {**super().metrics(sums, tokens), "rounds": self.rounds, **known, **self.counts}


class RewardTraining(UlmTraining):
    """A µLM and the world that judges it."""

    recipe: RewardRecipe

    def check_source(self) -> None:
        """Refuse a world that one agent cannot play alone."""
        self._rollouts().observed(Place("puzzle", 0))

    def _rollouts(self) -> Rollouts:
        return Rollouts(self.recipe, self.beside)

    def texts(self) -> Iterable[str]:
        """Return texts of random attempts."""
        return self._rollouts().texts()

    def objective(self, folder: Path, worker: Worker) -> Objective:
        """Return what a worker trains."""
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        model, optimizer = self.model(tokenizer, worker.device, self.recipe.seed)
        return RewardObjective(model, optimizer, worker, tokenizer, self._rollouts())

    def meta(self, progress: dict[str, Any], scores: Scores, device: str) -> dict[str, Any]:
        """Return what the result says of its training, its attempts included."""
        return {
            **super().meta(progress, scores, device),
            "rounds": progress["rounds"],
            "attempts": progress["attempts"],
        }

    def score(self, model: Decoder, tokenizer: Tokenizer) -> Scores:
        """Score the finished policy on held-out puzzles, by the world's reward.

        Returns:
            `puzzle` -> n, `greedy` (share solved by one greedy attempt) and `sampled_16` (in 16 at temperature 1).
        """
        engine, rollouts = Engine(model, tokenizer), self._rollouts()
        shares = {}
        for name, count, temperature in (("greedy", 1, 0.0), (f"sampled_{SAMPLED}", SAMPLED, 1.0)):
            solved = rollouts.solved(engine, count, temperature)
            shares[name] = round(sum(solved) / len(solved), 4)
        return {"puzzle": {"n": self.recipe.score_examples, **shares}}


def _packed(data: Any) -> bytes:
    return zlib.compress(json.dumps(data, separators=(",", ":")).encode("utf-8", "surrogatepass"), 1)


def _unpacked(data: bytes) -> Any:
    return json.loads(zlib.decompress(data).decode("utf-8", "surrogatepass"))
