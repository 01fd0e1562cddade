"""The content tier of an Engram: paraphrases of stored keys, found by what the model itself makes of a text.

- Features of a text are hidden states of the bare model: averaged over its tokens at an early, a middle and the last
  block, and of the last token at a late one. On banking77 (SmolLM2-135M, 10,003 stored questions, 3,080 asked) these
  beat any single layer and word statistics (experiments/LOG.md).
- Keys are embedded when they are first needed, not when they are written.
- `ulm.memory.content` has projection, search and threshold.

Axes: N texts, T tokens, F features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ulm.memory.content import ABSTAIN, ContentIndex, Projection, calibrated
from ulm.memory.exact import ExactMemory
from ulm.memory.fact_store import Fact

__all__ = ["ContentTier", "text_features"]

MEAN_DEPTHS = (0.13, 0.4, 1.0)
LAST_DEPTH = 0.8
BATCH = 64

Floats = NDArray[np.float32]


@torch.inference_mode()
def text_features(model: nn.Module, texts: Sequence[Sequence[int]]) -> Floats:
    """Return features of texts, (N, F).

    Args:
        model: a causal language model of transformers, without its memory.
        texts: token ids, at least one each.
    """
    device = next(model.parameters()).device
    found: list[Any] = [None] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        counts_N = torch.tensor([len(texts[i]) for i in rows], device=device)
        ids_NT = torch.zeros(len(rows), int(counts_N.max()), dtype=torch.long, device=device)
        for n, i in enumerate(rows):
            ids_NT[n, : len(texts[i])] = torch.tensor(texts[i], device=device)
        mask_NT = torch.arange(ids_NT.shape[1], device=device) < counts_N[:, None]
        output = model(
            input_ids=ids_NT,
            attention_mask=mask_NT.long(),
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=1,
        )
        hidden: tuple[Tensor, ...] = output.hidden_states
        depth = len(hidden) - 1
        parts = [
            (hidden[round(share * depth)].float() * mask_NT[..., None]).sum(1) / counts_N[:, None]
            for share in MEAN_DEPTHS
        ]
        parts.append(hidden[round(LAST_DEPTH * depth)][torch.arange(len(rows), device=device), counts_N - 1].float())
        for i, row in zip(rows, torch.cat(parts, 1).cpu().numpy(), strict=True):
            found[i] = row
    features: Floats = np.stack(found)
    return features


class ContentTier(nn.Module):
    """What an adapter knows about paraphrases.

    Attributes:
        threshold: cosine that the nearest key must exceed; nan before `fit`.
        vectors: of the facts with the revisions `known`, for files.
    """

    def __init__(self) -> None:
        super().__init__()
        self._projection: Projection | None = None
        self._scale_F: Floats | None = None
        self._index = ContentIndex(0)
        self._facts: dict[int, Fact] = {}
        self._by_key: dict[tuple[int, ...], int] = {}
        self._stored: dict[int, Floats] = {}
        self._next_number = 0
        self.threshold = float("nan")

    @property
    def fitted(self) -> bool:
        """Whether paraphrases can be looked for."""
        return self._projection is not None

    def fit(self, features_NF: Floats, groups: Sequence[object]) -> None:
        """Learn from texts which of them mean the same; `calibrate` must follow.

        Raises:
            ValueError: there are fewer than two groups, or none has two texts.
        """
        quarter = features_NF.shape[1] // 4  # four kinds of features, each of its own size
        scale_F = np.repeat([np.linalg.norm(part, axis=1).mean() for part in np.split(features_NF, 4, axis=1)], quarter)
        self._scale_F = (1.0 / np.maximum(scale_F, 1e-12)).astype(np.float32)
        self._projection = Projection.fit(features_NF * self._scale_F, groups)
        self._index = ContentIndex(self._projection.map_FE.shape[1])
        self._facts, self._by_key, self._stored = {}, {}, {}

    def project(self, features_NF: Floats) -> Floats:
        """Return unit vectors of texts.

        Raises:
            ValueError: nothing was fitted.
        """
        if self._projection is None or self._scale_F is None:
            raise ValueError("the content tier has learned nothing yet; call fit_content with paraphrases first")
        return self._projection(features_NF * self._scale_F)

    def calibrate(self, features_NF: Floats, abstain: float) -> None:
        """Set the threshold at which a share of texts that no fact answers is left unanswered."""
        self.threshold = calibrated(self._index.nearest(self.project(features_NF))[1], abstain)

    def pending(self, memory: ExactMemory) -> list[Fact]:
        """Forget what the memory has forgotten; return the facts whose keys were not embedded yet."""
        there = {fact.key_ids: fact for fact in memory}
        for key_ids in [key for key in self._by_key if key not in there]:
            gone = self._by_key.pop(key_ids)
            self._index.remove(gone)
            del self._facts[gone]
        waiting = []
        for key_ids, fact in there.items():
            if (number := self._by_key.get(key_ids)) is not None:
                self._facts[number] = fact
            elif (vector := self._stored.pop(fact.revision, None)) is not None:
                self._put(fact, vector)
            else:
                waiting.append(fact)
        return waiting

    def add(self, facts: Iterable[Fact], features_NF: Floats) -> None:
        """Take in keys with their features."""
        for fact, vector in zip(facts, self.project(features_NF), strict=True):
            self._put(fact, vector)

    def _put(self, fact: Fact, vector: Floats) -> None:
        number = self._next_number
        self._next_number += 1
        self._facts[number], self._by_key[fact.key_ids] = fact, number
        self._index.add(number, vector)

    def search(self, features_NF: Floats) -> list[tuple[Fact | None, float]]:
        """Return per text the fact that it means, None for none, and the cosine to the nearest."""
        found_N, cosine_N = self._index.search(self.project(features_NF), self.threshold)
        return [
            (None if number == ABSTAIN else self._facts[int(number)], float(cosine))
            for number, cosine in zip(found_N, cosine_N, strict=True)
        ]

    def tensors(self) -> dict[str, Tensor]:
        """Return everything by name, for a file; nothing before `fit`."""
        if self._projection is None or self._scale_F is None:
            return {}
        kept = [(fact.revision, self._index.vector(number)) for number, fact in self._facts.items()]
        size = self._projection.map_FE.shape[1]
        return {
            "content.mean": torch.from_numpy(self._projection.mean_F),
            "content.map": torch.from_numpy(self._projection.map_FE),
            "content.scale": torch.from_numpy(self._scale_F),
            "content.threshold": torch.tensor(self.threshold, dtype=torch.float64),
            "content.revisions": torch.tensor([revision for revision, _ in kept], dtype=torch.long),
            "content.vectors": torch.from_numpy(np.stack([v for _, v in kept]) if kept else np.zeros((0, size), "f4")),
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Become what `tensors` gave."""
        if not tensors:
            return
        found = {name.removeprefix("content."): tensor for name, tensor in tensors.items()}
        self._projection = Projection(found["mean"].numpy(), found["map"].numpy())
        self._scale_F = found["scale"].numpy()
        self._index = ContentIndex(found["map"].shape[1])
        self.threshold = float(found["threshold"])
        self._facts, self._by_key = {}, {}
        self._stored = dict(zip(found["revisions"].tolist(), found["vectors"].numpy(), strict=True))
