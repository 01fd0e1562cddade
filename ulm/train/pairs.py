"""One training step and what surrounds it: batches, schedule, optimizer.

Owns `train_step`, which trains policies on pairs of prompt and completion, and what other trainers share with it. Knows
no Ray, no worlds, and not where texts come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ulm.model import IGNORE, Decoder, round_up
from ulm.tokenizer import Tokenizer
from ulm.train.muon import Muon

__all__ = [
    "Batch",
    "StepStats",
    "collate",
    "learning_rate",
    "make_optimizer",
    "micro_batches",
    "train_step",
]

LENGTH_MULTIPLE = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids and next-token labels, both (B, T) int64; label -100 is not learned."""

    ids_BT: Tensor
    labels_BT: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        return Batch(self.ids_BT.to(device), self.labels_BT.to(device))


@dataclass(frozen=True, slots=True)
class StepStats:
    """What one step measured: mean loss per learned token (nats), gradient norm before clipping, learned tokens.

    With data parallelism all three are those of the whole batch, equal on every worker.
    """

    loss: float
    grad_norm: float
    tokens: int


def collate(pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> Batch:
    """Tokenise (prompt, completion) pairs into one padded batch that learns the completions only.

    Prompt and completion are encoded apart, as they meet in play, where the prompt is read before anything is written.
    """
    prompts = tokenizer.encode_batch([prompt for prompt, _ in pairs])
    completions = tokenizer.encode_batch([completion for _, completion in pairs])
    longest = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True)) - 1
    width = round_up(longest, LENGTH_MULTIPLE)
    ids = torch.full((len(pairs), width), tokenizer.pad_id, dtype=torch.long)
    labels = torch.full((len(pairs), width), IGNORE, dtype=torch.long)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        text = torch.tensor(prompt + completion)
        ids[row, : len(text) - 1] = text[:-1]
        labels[row, len(prompt) - 1 : len(text) - 1] = text[len(prompt) :]
    return Batch(ids, labels)


def micro_batches(pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, parts: int) -> list[Batch]:
    """Collate pairs into `parts` batches of similar length each, so that little is spent on padding.

    The gradient is that of one batch; only the order of summation differs.
    """
    ordered = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
    size = -(-len(ordered) // parts)
    return [collate(ordered[i : i + size], tokenizer) for i in range(0, len(ordered), size)]


def learning_rate(step: int, *, peak: float, warmup: int, steps: int, floor: float = 0.05) -> float:
    """Return the rate of a step: linear warm-up, then cosine to `floor` x `peak` (Loshchilov, arXiv:1608.03983)."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def make_optimizer(
    model: Decoder,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    kind: Literal["adamw", "muon"] = "adamw",
) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov, arXiv:1711.05101) or `Muon`, which decay matrices and leave norms and embeddings alone.

    Raises:
        ValueError: unknown kind.
    """
    if kind not in ("adamw", "muon"):
        raise ValueError(f"unknown optimizer {kind!r}; available: adamw, muon")
    decayed = [p for n, p in model.named_parameters() if p.dim() > 1 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if not (p.dim() > 1 and "embed" not in n)]
    if kind == "muon":
        cuts = model.fused_rows()
        return Muon([(p, cuts.get(p, ())) for p in decayed], others, lr, weight_decay, betas=betas)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    lr: float,
    *,
    clip: float = 1.0,
    autocast: torch.dtype | None = None,
) -> StepStats:
    """Take one optimizer step over the accumulated gradient of `batches`.

    Args:
        model: maps (B, T) ids and a (B, T) mask of N positions to (N, V) logits; wrapped in DistributedDataParallel,
            every worker brings equally many micro-batches, and a token counts the same whichever worker holds it.
        optimizer: updates its parameters.
        batches: micro-batches on the model's device; together they form one batch.
        lr: learning rate of this step.
        clip: largest gradient norm.
        autocast: compute type of matrix products, None for the weights' own.

    Raises:
        FloatingPointError: the loss or its gradient is not finite; parameters are left as they were.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    workers = torch.distributed.get_world_size(model.process_group) if _is_parallel(model) else 1
    tokens = int(_over_workers(model, sum(int((batch.labels_BT != IGNORE).sum()) for batch in batches)))
    # Gradients are averaged over workers, whose shares hold unequal numbers of tokens: divide by the mean number.
    tokens_per_worker = tokens / workers
    total = 0.0
    for batch in batches:
        device = batch.ids_BT.device.type
        with torch.autocast(device, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
            # Logits only where something is learned: prompts are most of the tokens.
            wanted_BT = batch.labels_BT != IGNORE
            logits = model(batch.ids_BT, wanted_BT)
        loss = F.cross_entropy(logits.float(), batch.labels_BT[wanted_BT], reduction="sum")
        loss = loss / tokens_per_worker
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    total = _over_workers(model, total) / workers
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip))
    if not (math.isfinite(total) and math.isfinite(norm)):
        raise FloatingPointError(
            f"loss is {total}, gradient norm {norm}; lower the learning rate or resume from the last good state"
        )
    optimizer.step()
    return StepStats(total, norm, tokens)


def _is_parallel(model: nn.Module) -> TypeGuard[DistributedDataParallel]:
    return isinstance(model, DistributedDataParallel)


def _over_workers(model: nn.Module, value: float) -> float:
    """Return the sum of a number over all data-parallel workers; the number itself without them."""
    if not _is_parallel(model):
        return value
    total = torch.tensor(value, dtype=torch.float64, device=next(model.parameters()).device)
    torch.distributed.all_reduce(total, group=model.process_group)
    return float(total)
