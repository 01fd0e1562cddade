"""A learning step: a pure function of base, parent, samples, settings and seed -> a delta.

- One thread, a fresh optimizer, a fixed order: the same arguments give the same bytes on the same machine.
- It runs in a process of its own, a Ray task or a child of the local pool, never in a host.
- `grpo` is Dr. GRPO (Liu et al., arXiv:2503.20783): advantages are centred, not divided by their deviation, a token
  counts the same in long and short answers, and ratios are clipped (Schulman et al., arXiv:1707.06347). The old
  probabilities are computed here, by the same arithmetic as the new ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from swarm.config.learning import LearningConfig
from swarm.learn.samples import Sample, Samples, draw
from swarm.seeds import derive_seed
from ulm.checkpoint import Checkpoint
from ulm.delta import Delta
from ulm.model import IGNORE
from ulm.train.delta import DeltaModel, delta_optimizer
from ulm.train.pairs import collate, parted
from ulm.train.step import learning_rate

CLIP_GRADIENT = 1.0
CLIP_RATIO = 0.2
"""How far the ratio of new to old probabilities counts."""

BATCH = 256
"""Texts that are read at once where nothing is learned."""

PARTS = 2
"""Micro-batches of similar length; a fixed number, for their order of summation decides bits."""


@dataclass(frozen=True)
class Learned:
    """What a learning step came to.

    Attributes:
        delta: the new delta; None where there was nothing to learn from, or a loss was not finite.
        note: why there is none, or what was left out.
        trained_tokens: learned, over all steps.
        loss: mean nats per learned token of the first and the last tenth of the steps; () where there were none.
    """

    delta: Delta | None
    note: str = ""
    trained_tokens: int = 0
    loss: tuple[()] | tuple[float, float] = ()


def take_step(
    checkpoint: Checkpoint,
    parent: Delta | None,
    samples: Samples,
    settings: LearningConfig,
    seed: int,
    *,
    base_sha256: str = "",
    size: float = 1.0,
) -> Learned:
    """Return what was learned.

    Args:
        checkpoint: the frozen base.
        parent: what was learned before; None, or `begin: base`, begins with an empty delta.
        samples: what is learned.
        settings: how.
        seed: of all randomness.
        base_sha256: of the base's weights, for the delta to name.
        size: multiplies the learning rate.

    Raises:
        DeltaError: the parent belongs to another base.
    """
    samples, dropped = as_generated(checkpoint, samples, settings)
    batches = draw(samples, settings, seed)
    if not settings.steps:
        return Learned(None, "frozen: learning.steps is 0")
    if not batches:
        return Learned(None, "nothing to learn from: no attempt was right")
    model = DeltaModel(checkpoint.model, _start(checkpoint, parent, samples, settings, seed, base_sha256))
    optimizer = delta_optimizer(model)
    loss_of = _Loss(model, checkpoint, settings)
    if settings.method == "grpo":
        loss_of.remember(list(dict.fromkeys(samples.kinds.get("own", ()))))
    losses: list[float] = []
    tokens = 0
    for step, batch in enumerate(batches):
        rate = learning_rate(step, peak=settings.lr, warmup=-(-len(batches) // 10), steps=len(batches))
        for group in optimizer.param_groups:
            group["lr"] = rate * size * group.get("lr_factor", 1.0)
        optimizer.zero_grad(set_to_none=True)
        mean, count = loss_of.backward(batch)
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_GRADIENT))
        if not (math.isfinite(mean) and math.isfinite(norm)):
            return Learned(None, f"rejected: loss {mean}, gradient norm {norm} at step {step}", tokens)
        optimizer.step()
        losses.append(mean)
        tokens += count
    tenth = -(-len(losses) // 10)
    note = f"{dropped} attempts left out, which encode to other tokens than were generated" if dropped else ""
    return Learned(model.delta(), note, tokens, (sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth))


def as_generated(checkpoint: Checkpoint, samples: Samples, settings: LearningConfig) -> tuple[Samples, int]:
    """Return the samples without attempts to be weighed whose text encodes to other tokens than were generated.

    Their probabilities would be those of another text. The second value is how many those were.
    """
    own = samples.kinds.get("own", ())
    if settings.method != "grpo" or not own:
        return samples, 0
    encode = checkpoint.tokenizer.encode_batch
    lengths = [sum(map(len, encode(parted(sample.completion, sample.inlined)[::2]))) for sample in own]
    kept = [sample for sample, n in zip(own, lengths, strict=True) if sample.tokens in (0, n)]
    return Samples({**samples.kinds, "own": kept}, samples.counts), len(own) - len(kept)


def _start(
    checkpoint: Checkpoint,
    parent: Delta | None,
    samples: Samples,
    settings: LearningConfig,
    seed: int,
    base_sha256: str,
) -> Delta:
    """Return where learning starts: the parent, with rows for tokens that are new; or a new delta."""
    ids = _touched(samples.texts(), checkpoint, settings.delta.rows)
    if parent is None or settings.begin == "base":
        found = settings.delta
        return Delta.new(checkpoint.model, found.rank, derive_seed(seed, "delta"), ids, base_sha256, found.layers)
    parent.refuse_other(checkpoint.model, base_sha256)
    return parent.with_rows(ids)


def _touched(samples: Sequence[Sample], checkpoint: Checkpoint, most: int) -> list[int]:
    """Return the tokens of the texts, the most frequent first."""
    if not most:
        return []
    counts: dict[int, int] = {}
    for ids in checkpoint.tokenizer.encode_batch(list(dict.fromkeys(t for sample in samples for t in sample[:2]))):
        for token in ids:
            counts[token] = counts.get(token, 0) + 1
    return sorted(counts, key=lambda token: (-counts[token], token))[:most]


class _Loss:
    """The loss of a batch: cross-entropy of what is imitated, clipped policy gradient of what is weighed."""

    def __init__(self, model: DeltaModel, checkpoint: Checkpoint, settings: LearningConfig) -> None:
        self.model, self.tokenizer, self.settings = model, checkpoint.tokenizer, settings
        self._old: dict[tuple[str, str], Tensor] = {}

    @torch.no_grad()
    def remember(self, samples: Sequence[Sample]) -> None:
        """Keep how likely each token of these attempts was to the policy that made them."""
        for at in range(0, len(samples), BATCH):
            part = samples[at : at + BATCH]
            tensors = self._collated(part)
            wanted_BT = tensors["labels"] != IGNORE
            logs = (-self._nats(tensors, wanted_BT)).split(wanted_BT.sum(1).tolist())  # type: ignore[no-untyped-call]
            self._old |= {sample[:2]: found.clone() for sample, found in zip(part, logs, strict=True)}

    def backward(self, batch: Sequence[Sample]) -> tuple[float, int]:
        """Add the gradient of a batch; return its mean loss per learned token, and how many those are."""
        ordered = sorted(batch, key=lambda sample: len(sample.prompt) + len(sample.completion))
        size = -(-len(ordered) // PARTS)
        parts = [ordered[at : at + size] for at in range(0, len(ordered), size)]
        made = [self._collated(part) for part in parts]
        count = sum(int((tensors["labels"] != IGNORE).sum()) for tensors in made)
        total = 0.0
        for part, tensors in zip(parts, made, strict=True):
            loss = self._sum(part, tensors) / count
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total, count

    def _collated(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        return collate([sample[:2] for sample in samples], self.tokenizer, [sample.inlined for sample in samples])

    def _sum(self, part: Sequence[Sample], tensors: dict[str, Tensor]) -> Tensor:
        wanted_BT = tensors["labels"] != IGNORE
        nats_N = self._nats(tensors, wanted_BT)
        if not self._old:
            return nats_N.sum()
        row_N = torch.nonzero(wanted_BT)[:, 0]
        weight_N = torch.tensor([sample.weight for sample in part])[row_N]
        old = [self._old.get(sample[:2]) for sample in part]  # None for what is imitated
        imitated_N = torch.tensor([found is None for found in old])[row_N]
        lengths = wanted_BT.sum(1).tolist()
        old_N = torch.cat([torch.zeros(n) if found is None else found for n, found in zip(lengths, old, strict=True)])
        ratio_N = (-nats_N - old_N).exp()
        gained_N = torch.minimum(ratio_N * weight_N, ratio_N.clamp(1 - CLIP_RATIO, 1 + CLIP_RATIO) * weight_N)
        return torch.where(imitated_N, nats_N, -gained_N).sum()

    def _nats(self, tensors: dict[str, Tensor], wanted_BT: Tensor) -> Tensor:
        logits_NV = self.model(tensors["ids"], wanted_BT).float()
        return F.cross_entropy(logits_NV, tensors["labels"][wanted_BT], reduction="none")
