"""Recipes of kind `symmetric`: a µLM learns to read and to write propositions, and to ask, from a file of pairs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from swarm.errors import SwarmError
from swarm.files import path_in
from swarm.seeds import derive_seed
from swarm.train.policy import UlmTraining
from swarm.train.recipe import SymmetricRecipe
from swarm.train.training import Scores
from ulm.decode.engine import Engine
from ulm.files import sha256
from ulm.model import Decoder
from ulm.symmetric.network import Network
from ulm.symmetric.pairs import PIECES, Mixture, Pair, can_teach, question, read_pairs, relations_of, whole_tokens
from ulm.symmetric.propositions import checked_relation, shared_and_all, without_names
from ulm.tokenizer import Tokenizer
from ulm.train.pairs import PairObjective
from ulm.train.step import Objective, Worker


class SymmetricTraining(UlmTraining):
    """A µLM that parses, verbalizes and asks."""

    recipe: SymmetricRecipe

    def inputs(self) -> dict[str, Any]:
        """Return the hash of the pairs, and that of the checkpoint that the training starts from."""
        return {**super().inputs(), "pairs_sha256": sha256(path_in(self.beside, self.recipe.pairs))}

    def check_source(self) -> None:
        """Refuse files that hold no pairs, and relations that cannot be written."""
        self._mixture()
        self._read(self.recipe.held_out)
        self._relations()

    def _read(self, name: str) -> list[Pair]:
        try:
            return read_pairs(path_in(self.beside, name))
        except ValueError as error:
            raise SwarmError(str(error)) from error

    def _mixture(self) -> Mixture:
        shares, seed = self.recipe.shares.by_direction(), derive_seed(self.recipe.seed, "pairs")
        try:
            return Mixture(self._read(self.recipe.pairs), shares, seed)
        except ValueError as error:
            raise SwarmError(f"{self.recipe.pairs}: {error}") from error

    def _relations(self) -> list[str]:
        try:
            found = relations_of(self._read(self.recipe.pairs))
            return sorted({*found, *map(checked_relation, self.recipe.relations)})
        except ValueError as error:
            raise SwarmError(str(error)) from error

    def texts(self) -> Iterable[str]:
        """Return the texts of the pairs; the same text is taken once."""
        return dict.fromkeys(without_names(pair.text) for pair in self._read(self.recipe.pairs))

    def new_tokenizer(self) -> Tokenizer:
        """Return a tokenizer that writes each relation as one token, with the space before it."""
        whole = whole_tokens(self._relations())
        return Tokenizer.train(self.texts(), self.recipe.model.vocab_size, pieces=PIECES, whole=whole)

    def objective(self, folder: Path, worker: Worker) -> Objective:
        """Return what a worker trains."""
        recipe, tokenizer = self.recipe, Tokenizer.load(folder / "tokenizer.json")
        return PairObjective(
            *self.model(tokenizer, worker.device, recipe.seed),
            worker,
            tokenizer,
            self._mixture(),
            batch_size=recipe.optimizer.batch_size,
            parts=recipe.optimizer.micro_batches,
            dtype=recipe.place.compute_dtype,
            compile=recipe.place.compile,
        )

    def meta(self, progress: dict[str, Any], scores: Scores, device: str) -> dict[str, Any]:
        """Return what the result says of its training, and the relations that it may write."""
        return {**super().meta(progress, scores, device), "relations": self._relations()}

    def score(self, model: Decoder, tokenizer: Tokenizer) -> Scores:
        """Score the finished network on held-out pairs whose texts it has not learned, greedily.

        Returns:
            `parse` -> `f1` (micro, over propositions); `verbalize` -> `read_back_f1`, of the propositions that the
            network reads in its own text; `ask` -> `right`, the share of look-ups that are as expected.
        """
        recipe, network = self.recipe, Network(Engine(model, tokenizer), self._relations())
        learned = {pair.text for pair in self._read(recipe.pairs)}
        pairs = [pair for pair in self._read(recipe.held_out) if pair.text not in learned and pair.propositions]
        pairs = pairs[: recipe.score_examples]
        if not pairs:
            raise SwarmError(f"{recipe.held_out} has no pair that says anything and is not learned; add some")
        said = [pair.propositions for pair in pairs]
        scores: Scores = {}
        if recipe.shares.parse:
            scores["parse"] = {"n": len(pairs), "f1": _f1(network.parse([pair.text for pair in pairs]), said)}
            if recipe.shares.verbalize:
                read_back = network.parse(network.verbalize(said))
                scores["verbalize"] = {"n": len(pairs), "read_back_f1": _f1(read_back, said)}
        if recipe.shares.ask:
            scores["ask"] = self._asked(network, pairs)
        return scores

    def _asked(self, network: Network, pairs: list[Pair]) -> dict[str, Any]:
        rng = np.random.Generator(np.random.PCG64(derive_seed(self.recipe.seed, "held-out questions")))
        asked = [question(pair, rng) for pair in pairs if can_teach("ask", pair)]
        answers = network.ask([text for text, _ in asked])
        right = sum(answer == look_up for answer, (_, look_up) in zip(answers, asked, strict=True))
        return {"n": len(asked), "right": round(right / max(1, len(asked)), 4)}


def _f1(said: list[Any], true: list[Any]) -> float:
    both, sizes = np.sum([shared_and_all(*one) for one in zip(said, true, strict=True)], axis=0)
    return round(float(both / max(1, sizes)), 4)
