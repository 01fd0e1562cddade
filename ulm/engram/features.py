"""The content tier of an Engram: paraphrases of stored keys, found by what the model itself makes of a text.

- Features of a text are hidden states of the bare model: averaged over its tokens at an early, a middle and the last
  block, and of the last token at a late one. On banking77 (SmolLM2-135M, 10,003 stored questions, 3,080 asked) these
  beat any single layer and word statistics (experiments/LOG.md).
- Keys are embedded when they are first needed, not when they are written.
- `ulm.engram.content` has projection, judge, threshold and search.

Axes: N texts, T tokens, F features.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ulm.engram.content import COMPARED, ContentIndex, Projection, words_of
from ulm.judge import Floats, Judge, calibrated
from ulm.memory.exact import ExactMemory
from ulm.memory.fact_store import Fact
from ulm.memory.ngrams import NOTHING

MEAN_DEPTHS = (0.13, 0.4, 1.0)
LAST_DEPTH = 0.8
BATCH = 64
PRACTICE = 3000
"""At most so many texts are compared with others to learn what tells meanings apart."""

Features = Callable[[Sequence[Sequence[int]]], Floats]
Decode = Callable[[Sequence[int]], str]


@torch.inference_mode()
def text_features(model: nn.Module, texts: Sequence[Sequence[int]]) -> Floats:
    """Return features of texts, (N, F).

    Args:
        model: a causal language model of transformers, without its memory.
        texts: token ids, at least one each.
    """
    device = next(model.parameters()).device
    found: dict[int, Floats] = {}
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        counts_N = torch.tensor([len(texts[i]) for i in rows], device=device)
        ids_NT = nn.utils.rnn.pad_sequence([torch.tensor(texts[i]) for i in rows], batch_first=True).to(device)
        mask_NT = torch.arange(ids_NT.shape[1], device=device) < counts_N[:, None]
        hidden: tuple[Tensor, ...] = model(
            input_ids=ids_NT,
            attention_mask=mask_NT.long(),
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=1,
        ).hidden_states
        depth = len(hidden) - 1
        parts = [
            (hidden[round(share * depth)].float() * mask_NT[..., None]).sum(1) / counts_N[:, None]
            for share in MEAN_DEPTHS
        ]
        parts.append(hidden[round(LAST_DEPTH * depth)][torch.arange(len(rows), device=device), counts_N - 1].float())
        found |= zip(rows, torch.cat(parts, 1).cpu().numpy(), strict=True)
    return np.stack([found[i] for i in range(len(texts))])


class ContentTier:
    """What an adapter knows about paraphrases.

    Attributes:
        threshold: log odds that the best fact must exceed; nan before `calibrate`.
    """

    def __init__(self) -> None:
        self._fitted: tuple[Floats, Projection, Judge] | None = None
        """Factors of features, what they are projected by, and the judge."""
        self._forget()

    def _forget(self) -> None:
        self._index = ContentIndex()
        self._facts: dict[tuple[int, ...], Fact] = {}
        self._stored: dict[int, Floats] = {}
        """By revision of the fact: vectors from a file, of keys that no memory has shown yet."""
        self.threshold = math.nan

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
        sizes_F = np.repeat([np.linalg.norm(part, axis=1).mean() for part in np.split(features_NF, 4, axis=1)], quarter)
        scale_F = (1.0 / np.maximum(sizes_F, 1e-12)).astype(np.float32)
        scaled_NF = features_NF * scale_F
        projection = Projection.fit(scaled_NF, groups if topics is None else topics)
        self._fitted = scale_F, projection, _practised(projection(scaled_NF), texts, groups)
        self._forget()

    def calibrate(self, features_NF: Floats, texts: Sequence[str], abstain: float) -> None:
        """Set the threshold at which a share of texts that no fact answers is left unanswered."""
        scores = [score for _, score in self._best(features_NF, texts)]
        self.threshold = calibrated(np.array(scores, dtype=np.float32), abstain)

    def pending(self, memory: ExactMemory) -> list[Fact]:
        """Forget what the memory has forgotten; return the facts whose keys were not embedded yet."""
        there = {fact.key_ids: fact for fact in memory}
        for gone in self._facts.keys() - there.keys():
            self._index.remove(gone)
        self._facts = {key_ids: there[key_ids] for key_ids in self._facts if key_ids in there}
        waiting = [fact for key_ids, fact in there.items() if key_ids not in self._facts]
        for fact in waiting:
            if (vector := self._stored.pop(fact.revision, None)) is not None:
                self._put(fact, vector)
        return [fact for fact in waiting if fact.key_ids not in self._facts]

    def add(self, facts: Iterable[Fact], features_NF: Floats) -> None:
        """Take in keys with their features."""
        for fact, vector in zip(facts, self._judged(features_NF)[0], strict=True):
            self._put(fact, vector)

    def embed(
        self, memory: ExactMemory, features: Features, known: Mapping[tuple[int, ...], Any] | None = None
    ) -> None:
        """Take in all keys that a memory has; features that are known already need not be computed again."""
        facts, known = self.pending(memory), dict(known or {})
        if new := [fact.key_ids for fact in facts if fact.key_ids not in known]:
            known |= zip(new, features(new), strict=True)
        if facts:
            self.add(facts, np.stack([known[fact.key_ids] for fact in facts]))

    def meant(
        self, prompts: Sequence[Sequence[int]], memory: ExactMemory, features: Features, decode: Decode
    ) -> list[tuple[Fact | None, float]]:
        """Return the fact that each prompt means though it does not end with its key, and the log odds of that."""
        asked = [tuple(p) for p in prompts if p and memory.index.following(np.array([p]), 1)[0, 0] == NOTHING]
        found = {}
        if asked:
            self.embed(memory, features)
            found = dict(zip(asked, self.search(features(asked), [decode(ids) for ids in asked]), strict=True))
        return [found.get(tuple(prompt), (None, -math.inf)) for prompt in prompts]

    def _put(self, fact: Fact, vector: Floats) -> None:
        self._facts[fact.key_ids] = fact
        self._index.add(fact.key_ids, vector, words_of(fact.key))

    def search(self, features_NF: Floats, texts: Sequence[str]) -> list[tuple[Fact | None, float]]:
        """Return per text the fact that it means, None for none, and the log odds of the likeliest."""
        return [(fact if score > self.threshold else None, score) for fact, score in self._best(features_NF, texts)]

    def _best(self, features_NF: Floats, texts: Sequence[str]) -> list[tuple[Fact | None, float]]:
        """Return per text the likeliest fact and its log odds; None and minus infinity where there are no facts."""
        vectors_NE, judge = self._judged(features_NF)
        found: list[tuple[Fact | None, float]] = []
        for vector, text in zip(vectors_NE, texts, strict=True):
            keys, compared = self._index.compare(vector, words_of(text))
            scores = judge(compared)
            found.append((self._facts[keys[scores.argmax()]], float(scores.max())) if keys else (None, -math.inf))
        return found

    def _judged(self, features_NF: Floats) -> tuple[Floats, Judge]:
        """Return unit vectors of texts, and who judges them."""
        if self._fitted is None:
            raise ValueError("the content tier has learned nothing yet; call fit_content with paraphrases first")
        scale_F, projection, judge = self._fitted
        return projection(features_NF * scale_F), judge

    def tensors(self) -> dict[str, Tensor]:
        """Return everything by name, for a file; nothing before `fit`."""
        if self._fitted is None:
            return {}
        scale_F, projection, judge = self._fitted
        vectors = [self._index.vector(key_ids) for key_ids in self._facts]
        found = {
            "mean": projection.mean_F,
            "map": projection.map_FE,
            "scale": scale_F,
            "judge": np.stack((judge.mean_F, judge.scale_F, judge.weight_F)),
            "levels": np.array([judge.bias, self.threshold]),
            "revisions": np.array([fact.revision for fact in self._facts.values()], dtype=np.int64),
            "vectors": np.array(vectors, dtype=np.float32).reshape(len(vectors), projection.map_FE.shape[1]),
        }
        return {f"content.{name}": torch.from_numpy(array) for name, array in found.items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Become what `tensors` gave.

        Raises:
            ValueError: something is missing or has another shape.
        """
        if not tensors:
            return
        found = {name.removeprefix("content."): tensor.numpy() for name, tensor in tensors.items()}
        names = {"mean", "map", "scale", "judge", "levels", "revisions", "vectors"}
        if set(found) != names or found["judge"].shape != (3, len(COMPARED)):
            raise ValueError("the content tier in this file is of another version; fit it again")
        bias, threshold = found["levels"].tolist()
        mean_F, scale_F, weight_F = found["judge"]
        judge = Judge(mean_F, scale_F, weight_F, bias)
        self._fitted = found["scale"], Projection(found["mean"], found["map"]), judge
        self._forget()
        self.threshold = threshold
        self._stored = dict(zip(found["revisions"].tolist(), found["vectors"], strict=True))


def _practised(vectors_NE: Floats, texts: Sequence[str], groups: Sequence[object]) -> Judge:
    """Return a judge that has seen stored texts, and texts that mean one of them or none."""
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(repr(group), []).append(i)
    names = sorted(members)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(names))
    hidden = {names[i] for i in order[2::3]}
    stored = [i for name in names if name not in hidden for i in members[name][::2]]
    asking = sorted(set(range(len(texts))) - set(stored))
    index = ContentIndex()
    for i in stored:
        index.add(i, vectors_NE[i], words_of(texts[i]))
    compared, same = [], []
    for i in asking[:: max(1, len(asking) // PRACTICE)]:
        facts, features = index.compare(vectors_NE[i], words_of(texts[i]))
        compared.append(features)
        same += [repr(groups[fact]) == repr(groups[i]) for fact in facts]
    return Judge.fit(np.concatenate(compared), np.array(same))
