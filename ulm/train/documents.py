"""Training a language model on documents: one step, its measurements, and a state from which it goes on bit for bit.

- `LanguageModelTraining` owns model, optimizer, data cursor and what the rows remember; whoever drives it (a Ray Train
  worker, a test) only calls `train_step`, `save` and `restore`.
- Memory and window are carried from step to step within a document and cleared where another begins.
- With data parallelism a worker holds its share of the rows; a saved state holds all of them, so a training may go on
  with another number of workers.
- Knows no Ray and no files but the states.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ulm.data.document_stream import NEW_DOCUMENT, NEW_TEXT, DocumentStream, SegmentBatch, Windows
from ulm.model import IGNORE, Decoder
from ulm.streaming import StreamState, read_document
from ulm.train.pairs import learning_rate
from ulm.train.states import RollingStates

__all__ = ["LanguageModelTraining", "StepReport", "StreamingLoss"]


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step measured, over all workers.

    Attributes:
        loss: mean nats per learned token.
        grad_norm: before clipping.
        tokens: learned tokens.
        written: tokens written to memory; written_bits: the sum of their surprisals.
        readings: positions that read at least one item.
    """

    loss: float
    grad_norm: float
    tokens: int
    written: int
    written_bits: float
    readings: int


class StreamingLoss(nn.Module):
    """The summed loss of stretches of text that are read one after the other, each in the segments of the memory.

    Args:
        model: the µLM.
        apart: every stretch is a text of its own, so nothing has to be carried on; without a memory that is cheaper.
    """

    def __init__(self, model: Decoder, *, apart: bool = False) -> None:
        super().__init__()
        self.model = model
        self.apart = apart and model.ltm is None

    def forward(
        self, ids_NBS: Tensor, labels_NBS: Tensor, starts_NB: Tensor, state: StreamState
    ) -> tuple[Tensor, StreamState, Tensor]:
        """Return the sum of nats, the state after, and (tokens written, their bits, positions that read)."""
        total = torch.zeros((), device=ids_NBS.device)
        measured = torch.zeros(3, device=ids_NBS.device, dtype=torch.float64)
        if self.apart:
            logits = self.model(ids_NBS.flatten(0, 1))
            labels = labels_NBS.flatten()
            return F.cross_entropy(logits.flatten(0, 1).float(), labels, reduction="sum"), state, measured
        for ids_BS, labels_BS, starts_B in zip(ids_NBS, labels_NBS, starts_NB, strict=True):
            fresh = bool((starts_B == NEW_DOCUMENT).all())
            before = None if fresh else state.restarted(starts_B == NEW_DOCUMENT, starts_B == NEW_TEXT)
            reading = read_document(self.model, ids_BS, before, labels_BS)
            state = reading.state
            assert reading.nats_BS is not None  # noqa: S101 - labels were given
            total = total + reading.nats_BS.sum()
            if reading.written_BS is None or reading.surprisal_BS is None or reading.read_BS is None:
                continue
            real_BS = labels_BS != IGNORE
            bits = (reading.surprisal_BS * reading.written_BS).sum()
            measured += torch.stack((reading.written_BS.sum(), bits, (reading.read_BS & real_BS).sum())).double()
        return total, state, measured


class LanguageModelTraining:
    """A training that can be stopped after any step.

    Args:
        model: on its device.
        optimizer: of its parameters.
        stream: the rows of all workers; what it gives at a time is a multiple of the memory's segment.
        segments: of the stream, per row and step; gradients reach back so far.
        peak_lr: learning rate after the warm-up; cosine to 5 % of it.
        warmup: steps.
        steps: of the whole training.
        clip: largest gradient norm.
        micro_batches: groups of rows whose gradients are accumulated.
        autocast: compute type of matrix products, None for the weights' own.
        compile: run the model through torch.compile.
        rank: which share of the rows is this worker's.
        workers: how many there are; with more than one, torch.distributed is initialised.

    Raises:
        ValueError: the rows cannot be shared evenly.
    """

    def __init__(
        self,
        model: Decoder,
        optimizer: torch.optim.Optimizer,
        stream: DocumentStream | Windows,
        *,
        segments: int,
        peak_lr: float,
        warmup: int,
        steps: int,
        clip: float = 1.0,
        micro_batches: int = 1,
        autocast: torch.dtype | None = None,
        compile: bool = False,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        rows = len(stream)
        if rows % (workers * micro_batches):
            raise ValueError(
                f"batch_size {rows} cannot be shared evenly by {workers} workers x {micro_batches} micro-batches"
            )
        self.model = model
        self.optimizer = optimizer
        self.stream = stream
        self.segments, self.steps, self.clip = segments, steps, clip
        self.autocast = autocast
        self._rate: Callable[[int], float] = lambda step: learning_rate(step, peak=peak_lr, warmup=warmup, steps=steps)
        self.rank, self.workers = rank, workers
        share = rows // workers
        self._rows = slice(rank * share, (rank + 1) * share)
        self._groups = [slice(i, i + share // micro_batches) for i in range(0, share, share // micro_batches)]
        loss: nn.Module = StreamingLoss(model, apart=isinstance(stream, Windows))
        if workers > 1:
            loss = DistributedDataParallel(loss)
        self._loss = torch.compile(loss) if compile else loss
        self._states = [StreamState.empty(model, share // micro_batches) for _ in self._groups]
        self.next_step = 0

    def train_step(self) -> StepReport:
        """Take one optimizer step.

        Raises:
            FloatingPointError: the loss or its gradient is not finite; parameters are left as they were.
        """
        batch = self.stream.next_batch(self.segments).to(self.model.device)
        tokens = int((batch.labels_NBS != IGNORE).sum())
        rate = self._rate(self.next_step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(4, dtype=torch.float64, device=self.model.device)
        states = []
        for group_rows, state in zip(self._groups, self._states, strict=True):
            total, after, measured = self._run(batch, group_rows, state)
            # Gradients are averaged over workers: divide by the mean number of tokens of a worker.
            (total * (self.workers / tokens)).backward()  # type: ignore[no-untyped-call]
            sums += torch.cat((total.detach().double()[None], measured))
            states.append(after.detach())
        if self.workers > 1:
            dist.all_reduce(sums)
        nats, written, bits, readings = sums.tolist()
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.clip))
        if not (math.isfinite(nats) and math.isfinite(norm)):
            raise FloatingPointError(f"loss is {nats / tokens}, gradient norm {norm}")
        self.optimizer.step()
        self._states = states
        self.next_step += 1
        return StepReport(nats / tokens, norm, tokens, int(written), bits, int(readings))

    def _run(self, batch: SegmentBatch, rows: slice, state: StreamState) -> tuple[Tensor, StreamState, Tensor]:
        mine = slice(self._rows.start + rows.start, self._rows.start + rows.stop)
        enabled, kind = self.autocast is not None, self.autocast or torch.bfloat16
        with torch.autocast(self.model.device.type, dtype=kind, enabled=enabled):
            found: tuple[Tensor, StreamState, Tensor] = self._loss(
                batch.ids_NBS[:, mine], batch.labels_NBS[:, mine], batch.starts_NB[:, mine], state
            )
        return found

    def save(self, states: RollingStates, progress: dict[str, Any]) -> None:
        """Write the state after the last step; every worker calls this, the first one writes."""
        parts = [state.tensors() for state in self._states]
        rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        if self.workers > 1:
            rows = {name: _gathered(tensor, self.workers) for name, tensor in rows.items()}
        if self.rank == 0:
            progress = {**progress, "cursor": self.stream.state()}
            states.save(self.next_step, self.model, self.optimizer, progress, rows)

    def restore(self, states: RollingStates, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """Go back to the newest whole state and return its progress; None when there is none.

        Raises:
            StateError: it belongs to another model or version, or all are damaged.
            ValueError: it has other rows.
        """
        saved = states.load(self.model, self.optimizer, warn)
        if saved is None:
            return None
        self.stream.restore(saved.progress["cursor"])
        self.next_step = int(saved.progress["step"])
        device = self.model.device
        self._states = [
            StreamState.from_tensors({k: v[self._rows][rows].to(device) for k, v in saved.extra.items()})
            for rows in self._groups
        ]
        return saved.progress


def _gathered(tensor: Tensor, workers: int) -> Tensor:
    """Return the rows of all workers, in order of rank."""
    parts = [torch.empty_like(tensor) for _ in range(workers)]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
