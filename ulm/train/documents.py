"""Training a language model on documents that are read from step to step, with what their rows remember.

- Memory and window are carried from step to step within a document and cleared where another begins.
- With data parallelism a worker holds its share of the rows; a saved state holds all of them, so a training may go on
  with another number of workers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ulm.data.document_stream import NEW_DOCUMENT, NEW_TEXT, DocumentStream, Stages
from ulm.model import IGNORE, Decoder
from ulm.streaming import StreamState, read_document
from ulm.train.step import Objective, Worker


class StreamingLoss(nn.Module):
    """The summed loss of stretches of text that are read one after the other, each in the segments of the memory.

    Args:
        model: the µLM.
        apart: every stretch is a text of its own, so nothing has to be carried on; without a memory that is cheaper.
        weights_V: of each token as a label; None for 1.
        kinds: of tokens whose nats are told apart.
    """

    def __init__(self, model: Decoder, *, apart: bool = False, weights_V: Tensor | None = None, kinds: int = 0) -> None:
        super().__init__()
        self.model = model
        self.apart = apart and model.ltm is None and weights_V is None and not kinds
        self.weights_V = weights_V
        self.kinds = kinds

    def forward(
        self,
        ids_NBS: Tensor,
        labels_NBS: Tensor,
        starts_NB: Tensor,
        state: StreamState,
        writable_NBS: Tensor | None = None,
        kinds_NBS: Tensor | None = None,
    ) -> tuple[Tensor, StreamState, Tensor]:
        """Return the weighted sum of nats, the state after, and what was measured.

        Args:
            ids_NBS: N segments of B rows.
            labels_NBS: the next tokens, `IGNORE` at padding.
            starts_NB: as in `SegmentBatch`.
            state: before.
            writable_NBS: False at tokens that may not be written to memory.
            kinds_NBS: of each label, from 0 to `kinds` - 1.

        Returns:
            Measured are tokens written, their bits, positions that read; then the nats of each kind and its labels.
        """
        total = torch.zeros((), device=ids_NBS.device)
        measured = torch.zeros(3 + 2 * self.kinds, device=ids_NBS.device)
        if self.apart:
            logits = self.model(ids_NBS.flatten(0, 1))
            labels = labels_NBS.flatten()
            return F.cross_entropy(logits.flatten(0, 1).float(), labels, reduction="sum"), state, measured
        for n, (ids_BS, labels_BS, starts_B) in enumerate(zip(ids_NBS, labels_NBS, starts_NB, strict=True)):
            fresh = bool((starts_B == NEW_DOCUMENT).all())
            before = None if fresh else state.restarted(starts_B == NEW_DOCUMENT, starts_B == NEW_TEXT)
            writable_BS = None if writable_NBS is None else writable_NBS[n]
            reading = read_document(self.model, ids_BS, before, labels_BS, writable_BT=writable_BS)
            state = reading.state
            assert reading.nats_BS is not None  # noqa: S101 - labels were given
            nats_BS, real_BS = reading.nats_BS, labels_BS != IGNORE
            if self.weights_V is not None:
                nats_BS = nats_BS * self.weights_V[labels_BS.clamp(min=0)]
            total = total + nats_BS.sum()
            bits = (reading.surprisal_BS * reading.written_BS).sum()
            measured[:3] += torch.stack((reading.written_BS.sum(), bits, (reading.read_BS & real_BS).sum()))
            if kinds_NBS is not None:
                of_kind_KBS = (kinds_NBS[n] == torch.arange(self.kinds, device=ids_BS.device)[:, None, None]) & real_BS
                sums = (of_kind_KBS * reading.nats_BS.detach()).sum((1, 2)), of_kind_KBS.sum((1, 2))
                measured[3:] += torch.cat(sums)
        return total, state, measured


class DocumentObjective(Objective):
    """Next-token loss on documents.

    Args:
        model: on the worker's device.
        optimizer: of its parameters.
        worker: holds its share of the rows.
        stream: the rows of all workers; what it gives at a time is a multiple of the memory's segment.
        segments: of the stream, per row and step; gradients reach back so far.
        parts: groups of rows whose gradients are accumulated.
        dtype: compute type of matrix products, None for the weights' own.
        compile: run the model through torch.compile.
        weights_V: of each token as a label; None for 1.
        kinds: names of what labels belong to, whose nats are told apart.

    Raises:
        ValueError: the rows cannot be shared evenly.
    """

    model: Decoder

    def __init__(
        self,
        model: Decoder,
        optimizer: torch.optim.Optimizer,
        worker: Worker,
        stream: DocumentStream | Stages,
        *,
        segments: int,
        parts: int = 1,
        dtype: torch.dtype | None = None,
        compile: bool = False,
        weights_V: Tensor | None = None,
        kinds: Sequence[str] = (),
    ) -> None:
        super().__init__(model, optimizer, worker, dtype)
        self.kinds = kinds
        self.stream = stream
        self._segments = segments
        self._rows = worker.share(len(stream))
        first, end = self._rows.start, self._rows.stop
        if (end - first) % parts:
            raise ValueError(f"the {end - first} rows of a worker cannot be shared evenly by {parts} micro-batches")
        size = (end - first) // parts
        self._groups = [slice(start, start + size) for start in range(first, end, size)]
        loss = worker.wrap(StreamingLoss(model, apart=stream.apart, weights_V=weights_V, kinds=len(kinds)))
        self._run = torch.compile(loss) if compile else loss
        self._forget()

    def _forget(self) -> None:
        """Let rows remember nothing."""
        self._states = [StreamState.empty(self.model, rows.stop - rows.start) for rows in self._groups]
        self._after = list(self._states)

    def batch(self, step: int) -> tuple[list[tuple[Any, ...]], int]:
        """Return this worker's groups of rows, each with its number, and how many tokens they teach."""
        batch = self.stream.next_batch(self._segments).to(self.worker.device)
        parts: list[tuple[Any, ...]] = [
            (number, batch.ids_NBS[:, rows], batch.labels_NBS[:, rows], batch.starts_NB[:, rows])
            for number, rows in enumerate(self._groups)
        ]
        return parts, int((batch.labels_NBS[:, self._rows] != IGNORE).sum())

    def loss(self, part: tuple[Any, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the summed nats; measured is what `StreamingLoss` returns."""
        number, ids, labels, starts, *more = part
        with self.autocast():
            total, after, measured = self._run(ids, labels, starts, self._states[number], *more)
        self._after[number] = after.detach()
        by_kind = (f"{what}_{kind}" for what in ("nats", "tokens") for kind in self.kinds)
        return total, dict(zip(("written", "written_bits", "readings", *by_kind), measured, strict=True))

    def commit(self) -> None:
        """Let rows remember what this step read."""
        self._states = list(self._after)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the cursor and what all rows remember."""
        parts = [state.tensors() for state in self._states]
        rows = {name: self.worker.gathered(torch.cat([part[name] for part in parts])) for name in parts[0]}
        return {"cursor": self.stream.state()}, rows

    def restore(self, progress: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Go back to a `state`; without tensors, rows read on with window and memory empty.

        Raises:
            ValueError: it has other rows.
        """
        self.stream.restore(progress["cursor"])
        if not tensors:
            self._forget()
            return
        rows = [
            {name: tensor[group].to(self.worker.device) for name, tensor in tensors.items()} for group in self._groups
        ]
        self._states = [StreamState.from_tensors(of_group) for of_group in rows]
        self._after = list(self._states)

    def metrics(self, sums: dict[str, float], tokens: int) -> dict[str, Any]:
        """Return what memory did: share of tokens written, their mean bits, share of positions that read."""
        if self.model.ltm is None:
            return {"LTM_enabled": False}
        return {
            "LTM_enabled": True,
            "routed_token_ratio": round(sums["written"] / tokens, 5),
            "avg_surprisal_routed": round(sums["written_bits"] / max(1.0, sums["written"]), 4),
            "ltm_hit_rate": round(sums["readings"] / tokens, 5),
        }
