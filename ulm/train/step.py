"""One training step of anything: batch, rate, gradient over micro-batches and workers, optimizer.

- An `Objective` is what is trained: model, optimizer, batches and loss. Its data follow from the step alone or from a
  cursor that is part of its state, so a resumed training ends bit-equal.
- A `Worker` is one of the processes that share each batch. Without Ray, `Worker(0, 1, device, report)` is all of them.
- `train_step` knows neither files nor schedules; whoever drives it owns those.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ulm.model import IGNORE, Decoder
from ulm.train.muon import Muon


@dataclass(frozen=True, slots=True)
class Worker:
    """One of the processes that train together.

    Attributes:
        rank: its number, from 0.
        size: how many there are; with more than one, torch.distributed is initialised.
        device: where it computes.
        report: receives records of progress: metrics with their `step`, or a `notice`. Only those of rank 0 are kept.
    """

    rank: int
    size: int
    device: torch.device
    report: Callable[[dict[str, Any]], None]

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module whose gradients are averaged over the workers."""
        return DistributedDataParallel(module) if self.size > 1 else module

    def share(self, rows: int) -> slice:
        """Return this worker's part of the rows of a batch.

        Raises:
            ValueError: they cannot be shared evenly.
        """
        if rows % self.size:
            raise ValueError(f"batch_size {rows} cannot be shared evenly by {self.size} workers")
        each = rows // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def total(self, values: Sequence[float]) -> list[float]:
        """Return sums over all workers."""
        if self.size == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(found)
        return [float(value) for value in found]

    def gathered(self, tensor: Tensor) -> Tensor:
        """Return the rows of all workers, in order of rank."""
        if self.size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def gathered_bytes(self, data: bytes) -> list[bytes]:
        """Return what each worker brings, in order of rank; lengths may differ."""
        if self.size == 1:
            return [data]
        lengths = self.gathered(torch.tensor([len(data)], device=self.device)).tolist()
        row = torch.zeros(1, max(lengths), dtype=torch.uint8, device=self.device)
        row[0, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        rows = self.gathered(row).cpu().numpy()
        return [rows[rank, :length].tobytes() for rank, length in enumerate(lengths)]


class Objective:
    """What is trained, as this worker sees it.

    Attributes:
        model: the bare model on its device; parameters without gradient are left out of states.
        optimizer: of its parameters; a group's `lr_factor`, 1 where there is none, multiplies the rate.
        worker: this process.
        dtype: compute type of matrix products, None for the weights' own.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, worker: Worker, dtype: torch.dtype | None = None
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.worker = worker
        self.dtype = dtype

    def autocast(self) -> torch.autocast:
        """Return a context in which matrix products are computed in `dtype`."""
        return torch.autocast(self.worker.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None)

    def batch(self, step: int) -> tuple[Sequence[Any], int]:
        """Return this worker's micro-batches of a step, and how many tokens they teach."""
        raise NotImplementedError

    def loss(self, part: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the summed loss of a micro-batch, in nats, and further sums that are measured beside it."""
        raise NotImplementedError

    def commit(self) -> None:
        """Keep what `loss` carries over to the next step; the optimizer has taken this one."""

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what a resumed training needs beside weights and moments, as JSON and tensors; all workers call it."""
        return {}, {}

    def restore(self, progress: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Go back to a `state`; there are no tensors where they are lost.

        Raises:
            ValueError: it belongs to other data, or cannot go on without the tensors that are lost.
        """

    def metrics(self, sums: dict[str, float], tokens: int) -> dict[str, Any]:
        """Return what a line of metrics says of sums that were measured over so many tokens."""
        return {name: value / tokens for name, value in sums.items()}


class ExampleObjective(Objective):
    """What learns numbered examples: a step takes the next ones, each worker its share.

    Args:
        model: on the worker's device.
        optimizer: of its parameters.
        worker: takes its share of each batch.
        example: returns the example of a number.
        collate: returns the micro-batches of examples; `labels` are among the tensors of each.
        batch_size: examples per step, over all workers.
        dtype: compute type of matrix products, None for the weights' own.

    Raises:
        ValueError: the batch cannot be shared evenly.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        worker: Worker,
        example: Callable[[int], Any],
        collate: Callable[[list[Any]], list[dict[str, Tensor]]],
        batch_size: int,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(model, optimizer, worker, dtype)
        self._example, self._collate = example, collate
        self._batch_size, self._share = batch_size, worker.share(batch_size)
        self._run: Callable[..., Any] = worker.wrap(model)

    def batch(self, step: int) -> tuple[list[dict[str, Tensor]], int]:
        """Return this worker's micro-batches of a step, and how many tokens they teach."""
        first = step * self._batch_size
        examples = [self._example(number) for number in range(first + self._share.start, first + self._share.stop)]
        batches = self._collate(examples)
        tokens = sum(int((batch["labels"] != IGNORE).sum()) for batch in batches)
        return [{name: x.to(self.worker.device) for name, x in batch.items()} for batch in batches], tokens


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step measured, over all workers.

    Attributes:
        loss: mean nats per learned token.
        grad_norm: before clipping.
        tokens: learned tokens.
        sums: what the objective measured beside its loss.
    """

    loss: float
    grad_norm: float
    tokens: int
    sums: dict[str, float]


def train_step(objective: Objective, step: int, rate: float, clip: float = 1.0) -> StepReport:
    """Take one optimizer step over the accumulated gradient of a batch.

    Every worker brings equally many micro-batches, and a token counts the same whichever worker holds it.

    Args:
        objective: what is trained.
        step: number of the batch.
        rate: learning rate.
        clip: largest gradient norm; sparse gradients are left as they are.

    Raises:
        FloatingPointError: the loss or its gradient is not finite; parameters are left as they were.
    """
    worker, optimizer = objective.worker, objective.optimizer
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_factor", 1.0)
    optimizer.zero_grad(set_to_none=True)
    parts, own = objective.batch(step)
    tokens = int(worker.total([own])[0])
    sums: dict[str, float] = {}
    for part in parts:
        loss, measured = objective.loss(part)
        # Gradients are averaged over workers, whose shares hold unequal numbers of tokens: divide by the mean number.
        (loss / (tokens / worker.size)).backward()  # type: ignore[no-untyped-call]
        values = torch.stack([loss.detach().float(), *measured.values()]).tolist()
        for name, value in zip(("loss", *measured), values, strict=True):
            sums[name] = sums.get(name, 0.0) + value
    sums = dict(zip(sums, worker.total(list(sums.values())), strict=True))
    mean = sums.pop("loss") / tokens
    dense = [p for p in objective.model.parameters() if p.grad is not None and not p.grad.is_sparse]
    norm = float(nn.utils.clip_grad_norm_(dense, clip))
    if not (math.isfinite(mean) and math.isfinite(norm)):
        raise FloatingPointError(f"loss is {mean}, gradient norm {norm}")
    optimizer.step()
    objective.commit()
    return StepReport(mean, norm, tokens, sums)


def learning_rate(
    step: int,
    *,
    peak: float,
    warmup: int,
    steps: int,
    schedule: Literal["cosine", "linear"] = "cosine",
    floor: float = 0.05,
) -> float:
    """Return the rate of a step, after a linear warm-up.

    Args:
        step: from 0.
        peak: highest rate.
        warmup: steps until then.
        steps: of the whole training.
        schedule: `cosine` falls to `floor` x `peak` (Loshchilov, arXiv:1608.03983); `linear` starts and ends at 0, as
            transformers' schedule of that name.
        floor: of the cosine.
    """
    if schedule == "linear":
        return peak * (step / warmup if step < warmup else max(0.0, (steps - step) / max(1, steps - warmup)))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def make_optimizer(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    kind: Literal["adamw", "muon"] = "adamw",
) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov, arXiv:1711.05101) or `Muon`, which decay matrices and leave norms and embeddings alone.

    Parameters that need no gradient are left out.

    Raises:
        ValueError: Muon for another model than a µLM.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.dim() > 1 and "embed" not in name]
    others = [p for name, p in named if not (p.dim() > 1 and "embed" not in name)]
    if kind == "muon":
        if not isinstance(model, Decoder):
            raise ValueError("optimizer muon trains µLMs only; take adamw")
        cuts = model.fused_rows()
        return Muon([(p, cuts.get(p, ())) for p in decayed], others, lr, weight_decay, betas=betas)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=betas, fused=True)
