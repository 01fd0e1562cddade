"""A learning step between two exchanges, and its acceptance test; computed in a child process (`swarm.learn.workers`).

The test: of ordinary requests nearly all must keep the base's answer; what the person typed must have become likelier,
or stay certain; the delta may not lead too far from the base on it, and a plain text must stay about as likely under
the delta, though the delta never reads one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from swarm.chat.model import open_chat, sample_of
from swarm.chat.scope import Scope
from swarm.config.learning import DeltaSettings, LearningConfig, TestSettings
from swarm.learn.accept import Outcome, at_most_below, entry, held_delta, tried
from swarm.learn.base import Base
from swarm.learn.ordinary import PLAIN, likelihood, ordinary_requests
from swarm.learn.samples import Sample, Samples
from swarm.learn.step import take_step
from swarm.learn.taught import distance
from swarm.record.records import TestEntry
from ulm.delta import Delta

SETTINGS = LearningConfig(
    every=1,
    delta=DeltaSettings(rank=8, rows=0, layers=10),
    steps=6,
    batch=8,
    epochs=1000.0,  # a person says a thing once, and it is to be learned
    lr=2e-3,
    test=TestSettings(drop=0.05, kl=8.0, tasks=0.0),
)
"""How a model learns from an exchange; measured in experiments/LOG.md, 2026-11-30. Nothing is rehearsed: the scope
keeps other answers, and rehearsed ones held fresh requests back."""

MOST_STEPS = 90
"""Of a step that begins anew at the base, after something was forgotten."""

TESTED = 4
"""Of the answers that are learned, so many are read in the test: the newest."""

SURE = 0.01
"""So much less likely (nats per token) may they become: what is learned by heart can hardly become likelier."""

MAX_RISE = 1.0
"""How far the perplexity of a plain text may rise, as a share, if a delta read one: more, and it is broken."""


@dataclass(frozen=True)
class ChatTask:
    """All that a learning step of a chat depends on.

    Attributes:
        name, base_dir, sha256: of the model.
        memory: folder of what was learned.
        parent: sha256 of the delta before, "" for none.
        pairs: (request, answer) that are learned.
        steps: optimizer steps.
        seed: of all randomness.
    """

    name: str
    base_dir: Path
    sha256: str
    memory: Path
    parent: str
    pairs: tuple[tuple[str, str], ...]
    steps: int
    seed: int

    @property
    def title(self) -> str:
        """What it is, for people."""
        return "learning step"

    @property
    def samples(self) -> Samples:
        """What is learned."""
        model = open_chat(self.name, self.base_dir, self.sha256)
        return Samples({"own": tuple(sample_of(model, *pair) for pair in self.pairs)}, {"own": len(self.pairs)})

    def compute(self) -> Outcome:
        """Take the step and test it, with one thread: the same bits whatever else the machine does."""
        torch.set_num_threads(1)
        model, samples = open_chat(self.name, self.base_dir, self.sha256), self.samples
        parent = held_delta(self.memory, self.parent)
        settings = SETTINGS.model_copy(update={"steps": self.steps})
        return tried(
            lambda size: take_step(
                model.checkpoint, parent, samples, settings, self.seed, base_sha256=self.sha256, size=size
            ),
            lambda delta: self._test(model, parent, delta, samples.kinds["own"][-TESTED:]),
            self.memory,
        )

    def _test(
        self, model: Base, parent: Delta | None, delta: Delta, newest: Sequence[Sample]
    ) -> tuple[list[TestEntry], int]:
        scope, limits = _scope(model), SETTINGS.test
        count = len(scope.ordinary)
        kept = scope.num_kept([request for request, _ in self.pairs]) / count
        before, n = likelihood(model, parent, newest)
        after, _ = likelihood(model, delta, newest)
        kl, _ = distance(model.checkpoint, delta, newest)
        first, length = likelihood(model, None, [PLAIN])
        rise = math.exp(first - likelihood(model, delta, [PLAIN])[0]) - 1
        found = [
            at_most_below("kept", 1.0, kept, limits.drop, count),
            at_most_below("typed", before, after, SURE, n),
            entry("kl", 0.0, kl, limits.kl, n, kl <= limits.kl),
            entry("text", 0.0, rise, MAX_RISE, length, rise <= MAX_RISE),
        ]
        return found, 4 * n + 2 * length


@lru_cache(maxsize=1)
def _scope(model: Base) -> Scope:
    return Scope(model.checkpoint, ordinary_requests())
