"""Which requests what was learned is meant for: those that are nearer to a taught request than to any other known one.

- A delta that has learned to answer greetings otherwise would touch every answer. So it writes only where it was
  taught to, as in SERAC (Mitchell et al., arXiv:2206.06520), but nothing is trained: the nearest neighbour decides.
- A request is known by what the base makes of it: the hidden state at three fifths of its layers, of the last token
  beside the mean of all, each coordinate scaled by what ordinary requests have there; nearness is the cosine.
- The other known requests are the ordinary ones (`swarm.learn.ordinary`), and those whose answer by the base a person
  called good.

Axes: N requests, T tokens, C width of the model, F = 2 C features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ulm.checkpoint import Checkpoint
from ulm.model import padded
from ulm.train.pairs import LENGTH_MULTIPLE

DEPTH = 0.6
LEAST = 0.4
"""So near must a taught request be at least: other texts, such as whole paragraphs, are near to nothing."""

MARGIN = 0.02
"""So much nearer (cosine) must a taught request be than any other known one."""
BATCH = 64


class Nearest(NamedTuple):
    """The known request that is nearest to another: whether it was taught, and how near it is (cosine)."""

    is_taught: bool
    request: str
    cosine: float


class Scope:
    """Knows for which requests something was learned.

    Args:
        checkpoint: the base.
        ordinary: requests that keep their answers.
    """

    def __init__(self, checkpoint: Checkpoint, ordinary: Sequence[str]) -> None:
        self.checkpoint, self.ordinary = checkpoint, list(ordinary)
        self._known: dict[str, Tensor] = {}

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of features over ordinary requests, (F,) each."""
        raw_NF = self._features(self.ordinary)
        return raw_NF.mean(0), raw_NF.std(0) + 1e-6

    @cached_property
    def _ordinary(self) -> Tensor:
        return self._scaled(self._features(self.ordinary))

    def _scaled(self, raw_NF: Tensor) -> Tensor:
        mean_F, deviation_F = self._scale
        return torch.nn.functional.normalize((raw_NF - mean_F) / deviation_F, dim=-1)

    @torch.inference_mode()
    def _features(self, requests: Sequence[str]) -> Tensor:
        """Return (N, F) features, not scaled yet."""
        tokenizer, model = self.checkpoint.tokenizer, self.checkpoint.model
        layers = max(1, round(DEPTH * model.config.n_layer))
        encoded = [ids or [tokenizer.eot_id] for ids in tokenizer.encode_batch(list(requests))]
        found = []
        for at in range(0, len(encoded), BATCH):
            some = encoded[at : at + BATCH]
            hidden_NTC = model.hidden(padded(some, tokenizer.pad_id, LENGTH_MULTIPLE), layers)
            for ids, hidden_TC in zip(some, hidden_NTC, strict=True):
                # The first position says little of a text, and says it loudest.
                mean_C = hidden_TC[min(1, len(ids) - 1) : len(ids)].mean(0)
                found.append(torch.cat((hidden_TC[len(ids) - 1], mean_C)))
        return torch.stack(found)

    def _of(self, request: str) -> Tensor:
        """Return the (F,) features of a request, read alone: what it is near to depends on it alone."""
        if request not in self._known:
            self._known[request] = self._scaled(self._features([request]))[0]
        return self._known[request]

    def nearest(self, request: str, taught: Sequence[str], kept: Sequence[str] = ()) -> Nearest:
        """Return the nearest known request.

        Args:
            request: which one.
            taught: requests for which something was learned.
            kept: further requests that keep their answers.
        """
        here_F = self._of(request)
        cosine, best = (self._ordinary @ here_F).max(0)
        found = Nearest(False, self.ordinary[int(best)], float(cosine))
        for is_taught, others in ((False, kept), (True, taught)):
            for other in others:
                near = float(self._of(other) @ here_F)
                if near - MARGIN * is_taught > max(found.cosine, LEAST * is_taught):
                    found = Nearest(is_taught, other, near)
        return found

    def num_kept(self, taught: Sequence[str]) -> int:
        """Return how many ordinary requests the base would still answer if each were met for the first time."""
        if not taught:
            return len(self.ordinary)
        taught_NF = torch.stack([self._of(request) for request in taught])
        among_NN = self._ordinary @ self._ordinary.T
        among_NN.fill_diagonal_(-1.0)
        near_N = (self._ordinary @ taught_NF.T).max(1).values - MARGIN
        return int((near_N <= among_NN.max(1).values.clamp(min=LEAST)).sum())
