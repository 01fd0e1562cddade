"""Training a µLM on pairs of prompt and completion: only the completion is learned.

Where the pairs come from is the caller's business: a solver's lessons, an agent's own record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice, pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from ulm.model import IGNORE, Decoder, padded
from ulm.tokenizer import Tokenizer
from ulm.train.step import ExampleObjective, Worker

LENGTH_MULTIPLE = 8


Spans = Sequence[tuple[int, int]]
"""Parts of a text, first character and the one after the last, in order."""


def collate(pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, inlined: Sequence[Spans] = ()) -> dict[str, Tensor]:
    """Return `ids` and next-token `labels` of (prompt, completion) pairs, (B, T), `IGNORE` but for completions.

    Prompt and completion are encoded apart, as they meet in play, where the prompt is read before anything is written.

    Args:
        pairs: the texts.
        tokenizer: of the model.
        inlined: of each completion, what was appended to it (`ulm.decode.inline`); it is read and not learned.
    """
    prompts = tokenizer.encode_batch([prompt for prompt, _ in pairs])
    parts = [parted(pair[1], spans) for pair, spans in zip(pairs, inlined or [()] * len(pairs), strict=True)]
    encoded = iter(tokenizer.encode_batch([part for some in parts for part in some]))
    texts, labels = [], []
    for prompt, some in zip(prompts, parts, strict=True):
        text, learned = list(prompt), [IGNORE] * (len(prompt) - 1)
        for number, ids in enumerate(islice(encoded, len(some))):
            text += ids
            learned += [IGNORE] * len(ids) if number % 2 else ids
        texts.append(text[:-1])
        labels.append(learned)
    ids_BT = padded(texts, tokenizer.pad_id, LENGTH_MULTIPLE)
    return {"ids": ids_BT, "labels": padded(labels, IGNORE, LENGTH_MULTIPLE)}


def parted(text: str, inlined: Spans) -> list[str]:
    """Return a text in parts, by turns written and appended; they are encoded apart, as they were in play."""
    return [text[start:end] for start, end in pairwise([0, *(at for span in inlined for at in span), len(text)])]


def micro_batches(
    pairs: Sequence[tuple[str, str]],
    tokenizer: Tokenizer,
    parts: int,
    inlined: Callable[[str, str], Spans] = lambda prompt, completion: (),
) -> list[dict[str, Tensor]]:
    """Collate pairs into `parts` batches of similar length each, so that little is spent on padding.

    The gradient is that of one batch; only the order of summation differs.
    """
    ordered = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
    size = -(-len(ordered) // parts)
    some = (ordered[i : i + size] for i in range(0, len(ordered), size))
    return [collate(part, tokenizer, [inlined(*pair) for pair in part]) for part in some]


class PairObjective(ExampleObjective):
    """Next-token loss on completions.

    Args:
        model: on the worker's device.
        optimizer: of its parameters.
        worker: takes its share of each batch.
        tokenizer: of the model.
        pair: number -> (prompt, completion); a step takes the next `batch_size` numbers.
        batch_size: pairs per step, over all workers.
        parts: micro-batches of similar length that a worker's share is computed in.
        inlined: (prompt, completion) -> what of the completion was appended to it, and is not learned.
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
        inlined: Callable[[str, str], Spans] = lambda prompt, completion: (),
        dtype: torch.dtype | None = None,
        compile: bool = False,
    ) -> None:
        collate = partial(micro_batches, tokenizer=tokenizer, parts=parts, inlined=inlined)
        super().__init__(model, optimizer, worker, pair, collate, batch_size, dtype)
        if compile:
            self._run = torch.compile(self._run)

    def loss(self, part: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the summed nats of the completions."""
        with self.autocast():
            # Logits only where something is learned: prompts are most of the tokens.
            wanted_BT = part["labels"] != IGNORE
            logits = self._run(part["ids"], wanted_BT)
        return F.cross_entropy(logits.float(), part["labels"][wanted_BT], reduction="sum"), {}
