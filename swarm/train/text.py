"""Recipes of kind `text`: a µLM learns running text, corpus after corpus, as on a ladder.

- Windows of a corpus come in an order that follows from the seed; which of them come next is part of a saved state.
- At the end of a stage worker 0 scores what its corpus and those before hold out, and reports it; nothing of that is
  ever trained on, whichever stage a text stands in.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from swarm.actors.ray_train import METRICS
from swarm.errors import SwarmError
from swarm.files import LineTail
from swarm.process.progress import progress
from swarm.seeds import derive_seed
from swarm.stats import ratio_interval
from swarm.train.policy import UlmTraining
from swarm.train.progress import read_record
from swarm.train.recipe import TextRecipe
from swarm.train.training import Scores, work_folder_of
from ulm.data.corpus import Corpus, describe_source, prepare_corpus
from ulm.data.document_stream import DocumentStream, Source, Stages, windows
from ulm.data.documents import CorpusSource
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer
from ulm.train.documents import DocumentObjective
from ulm.train.evaluation import score_documents
from ulm.train.step import Objective, Worker

DATA = "data"
SCORED_TOKENS = 100_000
"""Tokens of a corpus' held-out part that are scored at most, beside the first document."""

SCORED_AT_ONCE = 1024
"""Tokens of all rows that are scored at a time; their logits take memory."""


class LadderObjective(DocumentObjective):
    """Next-token loss on windows, and a score of held-out texts whenever a stage has ended.

    Attributes:
        at_ends: by the step after a stage's last one, what is to be called with the model and returns a record.
    """

    at_ends: Mapping[int, Callable[[Decoder], dict[str, Any]]]

    def batch(self, step: int) -> tuple[list[tuple[int, Tensor, Tensor, Tensor]], int]:
        """Return this worker's rows of a step, and how many tokens they teach; before, score a stage that has ended."""
        if step in self.at_ends and self.worker.rank == 0:
            self.worker.report(self.at_ends[step](self.model))
        return super().batch(step)


class TextTraining(UlmTraining):
    """A µLM on running text."""

    recipe: TextRecipe

    def check_source(self) -> None:
        """Leave it to the reader of the texts."""

    def texts(self) -> Iterable[str]:
        """Return nothing: the tokenizer is trained while the corpora are prepared."""
        return ()

    def sources(self) -> list[CorpusSource]:
        """Return where the texts of each stage come from."""
        return [stage.source(self.beside) for stage in self.recipe.stages]

    def inputs(self) -> dict[str, Any]:
        """Return the hashes of the local files, and of the checkpoint that the training starts from."""
        try:
            return {**super().inputs(), "texts": [describe_source(source) for source in self.sources()]}
        except ValueError as error:
            raise SwarmError(str(error)) from error

    def prepare(self, folder: Path, echo: Callable[[str], None] = lambda line: None) -> None:
        """Write the corpora as tokens, and the tokenizer."""
        recipe = self.recipe
        try:
            with progress("preparing the texts", unit="documents", say=echo) as work:
                corpus = prepare_corpus(
                    self.sources(),
                    folder / DATA,
                    tokenizer=recipe.model.vocab_size if self.init is None else str(self.init),
                    val_share=recipe.val_share,
                    seed=derive_seed(recipe.seed, "held out"),
                    echo=echo,
                    on_documents=lambda done, total: work.update(done, total=total),
                )
        except ValueError as error:
            raise SwarmError(str(error)) from error
        self._stream(corpus)  # refuses what is too short
        corpus.tokenizer.save(folder / "tokenizer.json")

    def objective(self, folder: Path, worker: Worker) -> Objective:
        """Return what a worker trains."""
        recipe, corpus = self.recipe, Corpus.open(folder / DATA)
        objective = LadderObjective(
            *self.model(corpus.tokenizer, worker.device, derive_seed(recipe.seed, "weights")),
            worker,
            self._stream(corpus),
            segments=1,
            parts=recipe.optimizer.micro_batches,
            dtype=recipe.place.compute_dtype,
            compile=recipe.place.compile,
        )
        titles = [list(corpus.places("val"))[number] for number in recipe.in_order()]
        objective.at_ends = {
            end: partial(_stage_record, corpus=corpus, recipe=recipe, titles=titles[:count])
            for count, end in enumerate(recipe.ends()[:-1], 1)
        }
        return objective

    def _stream(self, corpus: Corpus) -> Stages:
        """Return what the rows read, stage after stage.

        Raises:
            SwarmError: a corpus is shorter than a window.
        """
        recipe, places = self.recipe, list(corpus.places("train").items())
        rows, streams, before = recipe.optimizer.batch_size, [], range(0)
        for number in recipe.in_order():
            title, own = places[number]
            mixed = recipe.mixed_rows(recipe.stages[number]) if before else 0
            parts = [_windows(corpus, recipe, title, own)] * (rows - mixed)
            parts += mixed * [_windows(corpus, recipe, f"{title}, mixed in", before)] if mixed else []
            streams.append(DocumentStream(parts, recipe.span, pad_id=0))
            # Corpora follow each other, so those of the stages before are one stretch, whichever the order.
            before = range(min(before.start, own.start), max(before.stop, own.stop)) if before else own
        return Stages(streams, [end - start for start, end in pairwise((0, *recipe.ends()))])

    def score(self, model: Decoder, tokenizer: Tokenizer) -> Scores:
        """Score what each corpus holds out.

        Returns:
            corpus -> `n` documents, their `bytes`, `bits_per_byte` with its interval over documents (`low`, `high`),
            and `at_its_end`, the bits per byte when its stage had ended; the last stage has none.
        """
        folder = work_folder_of(self.recipe)
        corpus = Corpus.open(folder / DATA)
        titles = list(corpus.places("val"))
        scores: Scores = {title: held_out_bits(model, corpus, title, self.recipe) for title in titles}
        for record in map(read_record, LineTail(folder / METRICS).poll()):
            if "held_out" in record:
                title = record["stage"]
                scores[title]["at_its_end"] = record["held_out"][title]["bits_per_byte"]
        return scores

    def meta(self, progress: dict[str, Any], scores: Scores, device: str) -> dict[str, Any]:
        """Return what the result says of its training, and what was read and left out of each corpus."""
        manifest = Corpus.open(work_folder_of(self.recipe) / DATA).manifest
        texts = {name: manifest[name] for name in ("splits", "cleaning")}
        return {**super().meta(progress, scores, device), "texts": texts}


def _windows(corpus: Corpus, recipe: TextRecipe, purpose: str, place: range) -> Source:
    """Return windows of a stretch of the training part in an order of their own."""

    def read(start: int, end: int) -> NDArray[np.int64]:
        return corpus.tokens("train", place.start + start, place.start + end)

    try:
        return windows(read, len(place), recipe.span, recipe.span, derive_seed(recipe.seed, "windows", purpose))
    except ValueError as error:
        raise SwarmError(f"{purpose}: {error}; give it more text, or lower `span`") from error


def held_out_bits(model: Decoder, corpus: Corpus, title: str, recipe: TextRecipe) -> dict[str, Any]:
    """Return the bits per byte of documents that a corpus holds out; of many, some that follow from the seed."""
    theirs = np.flatnonzero(corpus.sources("val")[title])
    order = np.random.Generator(np.random.PCG64(derive_seed(recipe.seed, "scored", title))).permutation(theirs)
    tokens, _, size = corpus.sizes("val")
    some = order[: recipe.score_examples]
    some = some[: max(1, int((tokens[some].cumsum() <= SCORED_TOKENS).sum()))]
    documents = [corpus.document("val", int(index)) for index in some]
    nats = score_documents(model, documents, batch_tokens=SCORED_AT_ONCE).nats
    interval = ratio_interval(nats[None] / math.log(2), size[some])
    estimate, low, high = (round(float(value), 4) for value in interval)
    return {"n": len(some), "bytes": int(size[some].sum()), "bits_per_byte": estimate, "low": low, "high": high}


def _stage_record(model: Decoder, corpus: Corpus, recipe: TextRecipe, titles: list[str]) -> dict[str, Any]:
    """Return what is reported when a stage has ended: the last of the titles."""
    found = {title: held_out_bits(model, corpus, title, recipe) for title in titles}
    told = ", ".join(f"{title} {score['bits_per_byte']:.3f} (n {score['n']})" for title, score in found.items())
    return {"notice": f"{titles[-1]} ended; bits per byte held out: {told}", "stage": titles[-1], "held_out": found}
