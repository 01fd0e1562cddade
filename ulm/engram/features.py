"""The content tier of an Engram: paraphrases of stored keys, found by what the model itself makes of a text.

- Features of a text are hidden states of the bare model: averaged over its tokens at an early, a middle and the last
  block, and of the last token at a late one. On banking77 (SmolLM2-135M, 10,003 stored questions, 3,080 asked) these
  beat any single layer and word statistics (experiments/LOG.md).
- Keys are embedded when they are first needed, not when they are written.
- `ulm.engram.content` has projection, judge and threshold, `ulm.engram.content_index` the search.

Axes: N texts, T tokens, F features.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ulm.engram.content import Judge, Projection, calibrated
from ulm.engram.content_index import COMPARED, ContentIndex, words_of
from ulm.memory.exact import ExactMemory
from ulm.memory.fact_store import Fact

MEAN_DEPTHS = (0.13, 0.4, 1.0)
LAST_DEPTH = 0.8
BATCH = 64
PRACTICE = 3000
"""At most so many texts are compared with others to learn what tells meanings apart."""

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
        threshold: log odds that the best fact must exceed; nan before `calibrate`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._projection: Projection | None = None
        self._scale_F: Floats | None = None
        self._judge: Judge | None = None
        self._index = ContentIndex(0)
        self._facts: dict[int, Fact] = {}
        self._by_key: dict[tuple[int, ...], int] = {}
        self._stored: dict[int, Floats] = {}
        self._next_number = 0
        self.threshold = float("nan")

    @property
    def fitted(self) -> bool:
        """Whether paraphrases can be looked for."""
        return self._judge is not None

    def fit(
        self,
        features_NF: Floats,
        texts: Sequence[str],
        groups: Sequence[object],
        topics: Sequence[object] | None = None,
    ) -> None:
        """Learn from texts which of them mean the same; `calibrate` must follow.

        A third of the groups are hidden, and of the others every second text is stored; the rest ask. So what is
        learned holds for texts that no stored one means, too.

        Args:
            features_NF: of the texts.
            texts: prompts.
            groups: of each text; those of a group mean the same.
            topics: of each text; those of a topic ask the same, about whatever. None takes the groups.

        Raises:
            ValueError: there are fewer than two groups or topics, or none has two texts.
        """
        quarter = features_NF.shape[1] // 4  # four kinds of features, each of its own size
        scale_F = np.repeat([np.linalg.norm(part, axis=1).mean() for part in np.split(features_NF, 4, axis=1)], quarter)
        self._scale_F = (1.0 / np.maximum(scale_F, 1e-12)).astype(np.float32)
        self._projection = Projection.fit(features_NF * self._scale_F, groups if topics is None else topics)
        self._judge = _practised(self.project(features_NF), texts, groups)
        self._index = ContentIndex(self._projection.map_FE.shape[1])
        self._facts, self._by_key, self._stored = {}, {}, {}
        self.threshold = float("nan")

    def project(self, features_NF: Floats) -> Floats:
        """Return unit vectors of texts.

        Raises:
            ValueError: nothing was fitted.
        """
        if self._projection is None or self._scale_F is None:
            raise ValueError("the content tier has learned nothing yet; call fit_content with paraphrases first")
        return self._projection(features_NF * self._scale_F)

    def calibrate(self, features_NF: Floats, texts: Sequence[str], abstain: float) -> None:
        """Set the threshold at which a share of texts that no fact answers is left unanswered."""
        scores = [score for _, score in self._best(features_NF, texts)]
        self.threshold = calibrated(np.array(scores, dtype=np.float32), abstain)

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
        self._index.add(number, vector, words_of(fact.key))

    def search(self, features_NF: Floats, texts: Sequence[str]) -> list[tuple[Fact | None, float]]:
        """Return per text the fact that it means, None for none, and the log odds of the likeliest."""
        return [
            (self._facts[number] if score > self.threshold else None, score)
            for number, score in self._best(features_NF, texts)
        ]

    def _best(self, features_NF: Floats, texts: Sequence[str]) -> list[tuple[int, float]]:
        """Return per text the likeliest fact and its log odds; minus infinity where there are no facts."""
        vectors_NE = self.project(features_NF)
        if self._judge is None:
            raise AssertionError("a projection without a judge")
        found = []
        for vector, text in zip(vectors_NE, texts, strict=True):
            facts, compared = self._index.compare(vector, words_of(text))
            if not len(facts):
                found.append((-1, -math.inf))
                continue
            scores = self._judge(compared)
            found.append((int(facts[scores.argmax()]), float(scores.max())))
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Return everything by name, for a file; nothing before `fit`."""
        if self._projection is None or self._scale_F is None or self._judge is None:
            return {}
        kept = [(fact.revision, self._index.vector(number)) for number, fact in self._facts.items()]
        size = self._projection.map_FE.shape[1]
        judge = np.stack((self._judge.mean_F, self._judge.scale_F, self._judge.weight_F))
        return {
            "content.mean": torch.from_numpy(self._projection.mean_F),
            "content.map": torch.from_numpy(self._projection.map_FE),
            "content.scale": torch.from_numpy(self._scale_F),
            "content.judge": torch.from_numpy(judge),
            "content.levels": torch.tensor([self._judge.bias, self.threshold], dtype=torch.float64),
            "content.revisions": torch.tensor([revision for revision, _ in kept], dtype=torch.long),
            "content.vectors": torch.from_numpy(np.stack([v for _, v in kept]) if kept else np.zeros((0, size), "f4")),
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Become what `tensors` gave.

        Raises:
            ValueError: something is missing or has another shape.
        """
        if not tensors:
            return
        found = {name.removeprefix("content."): tensor for name, tensor in tensors.items()}
        names = {"mean", "map", "scale", "judge", "levels", "revisions", "vectors"}
        if set(found) != names or found["judge"].shape != (3, len(COMPARED)):
            raise ValueError("the content tier in this file is of another version; fit it again")
        self._projection = Projection(found["mean"].numpy(), found["map"].numpy())
        self._scale_F = found["scale"].numpy()
        bias, self.threshold = found["levels"].tolist()
        mean_F, scale_F, weight_F = found["judge"].numpy()
        self._judge = Judge(mean_F, scale_F, weight_F, bias)
        self._index = ContentIndex(found["map"].shape[1])
        self._facts, self._by_key = {}, {}
        self._stored = dict(zip(found["revisions"].tolist(), found["vectors"].numpy(), strict=True))


def _practised(vectors_NE: Floats, texts: Sequence[str], groups: Sequence[object]) -> Judge:
    """Return a judge that has seen stored texts, and texts that mean one of them or none."""
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(repr(group), []).append(i)
    names = sorted(members)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(names))
    hidden = {names[i] for i in order[2::3]}
    index = ContentIndex(vectors_NE.shape[1])
    asking: list[int] = []
    for name in names:
        stored = [] if name in hidden else members[name][::2]
        asking += members[name] if name in hidden else members[name][1::2]
        for i in stored:
            index.add(i, vectors_NE[i], words_of(texts[i]))
    step = max(1, len(asking) // PRACTICE)
    compared, same = [], []
    for i in sorted(asking)[::step]:
        facts, features = index.compare(vectors_NE[i], words_of(texts[i]))
        compared.append(features)
        same += [repr(groups[int(fact)]) == repr(groups[i]) for fact in facts]
    return Judge.fit(np.concatenate(compared), np.array(same))
