"""Training a µLM on pairs of prompt and completion: only the completion is learned.

Where the pairs come from is the caller's business: a solver's lessons, an agent's own record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ulm.model import IGNORE, Decoder, round_up
from ulm.tokenizer import Tokenizer
from ulm.train.step import Objective, Worker

LENGTH_MULTIPLE = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids and next-token labels, both (B, T) int64; label -100 is not learned."""

    ids_BT: Tensor
    labels_BT: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        return Batch(self.ids_BT.to(device), self.labels_BT.to(device))


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


class PairObjective(Objective):
    """Next-token loss on completions.

    Args:
        model: on the worker's device.
        optimizer: of its parameters.
        worker: takes its share of each batch.
        tokenizer: of the model.
        pair: number -> (prompt, completion); a step takes the next `batch_size` numbers.
        batch_size: pairs per step, over all workers.
        parts: micro-batches of similar length that a worker's share is computed in.
        dtype: compute type of matrix products, None for the weights' own.
        compile: run the model through torch.compile.

    Raises:
        ValueError: the batch cannot be shared evenly.
    """

    def __init__(
        self,
        model: Decoder,
        optimizer: torch.optim.Optimizer,
        worker: Worker,
        tokenizer: Tokenizer,
        pair: Callable[[int], tuple[str, str]],
        *,
        batch_size: int,
        parts: int = 1,
        dtype: torch.dtype | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(model, optimizer, worker, dtype)
        self._share = worker.share(batch_size)
        self._batch_size, self._parts = batch_size, parts
        self._tokenizer, self._pair = tokenizer, pair
        wrapped = worker.wrap(model)
        self._run = torch.compile(wrapped) if compile else wrapped

    def batch(self, step: int) -> tuple[list[Batch], int]:
        """Return this worker's micro-batches of a step, and how many tokens they teach."""
        first = step * self._batch_size
        pairs = [self._pair(number) for number in range(first + self._share.start, first + self._share.stop)]
        batches = micro_batches(pairs, self._tokenizer, self._parts)
        tokens = sum(int((batch.labels_BT != IGNORE).sum()) for batch in batches)
        return [batch.to(self.worker.device) for batch in batches], tokens

    def loss(self, part: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the summed nats of the completions."""
        with self.autocast():
            # Logits only where something is learned: prompts are most of the tokens.
            wanted_BT = part.labels_BT != IGNORE
            logits = self._run(part.ids_BT, wanted_BT)
        return F.cross_entropy(logits.float(), part.labels_BT[wanted_BT], reduction="sum"), {}
