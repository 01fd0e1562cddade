"""Training any causal language model of transformers on answers: the prompt is read, only the answer is learned.

Rows end together (padding is on the left), so the output layer works on the last few positions alone; or, for a large
vocabulary, only where a token is learned. Axes: B rows, T tokens, N learned tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ulm.model import IGNORE
from ulm.tokenizer import encode_after
from ulm.train.step import ExampleObjective, Worker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class AnswerCollator:
    """Turns records with `prompt` and `answer` into a batch in which only answers are learned.

    A record may say with `learn` which of the answer's tokens are: those of these characters, such as marks in a form.

    Args:
        tokenizer: of the model.
        end: whether the end of text is part of every answer; a record with `end: False` goes on.
        max_length: longest row in tokens; longer ones are refused.

    Raises:
        ValueError: a record is too long, or its answer has no tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, end: bool = True, max_length: int = 512) -> None:
        self.tokenizer = tokenizer
        self.end = [tokenizer.eos_token_id] if end and tokenizer.eos_token_id is not None else []
        self.max_length = max_length
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    def ids(self, record: dict[str, Any]) -> tuple[list[int], list[int]]:
        """Return the tokens of prompt and answer, split as they are when the answer follows the prompt."""
        encode = partial(self.tokenizer.encode, add_special_tokens=False)
        prompt, answer = encode_after(encode, record["prompt"], record["answer"])
        if not prompt or not answer:
            raise ValueError(f"prompt and answer must not be empty: {record['prompt'][:60]!r}")
        answer = answer + (self.end if record.get("end", True) else [])
        if len(prompt) + len(answer) > self.max_length:
            raise ValueError(
                f"{len(prompt) + len(answer)} tokens, at most {self.max_length}: {record['prompt'][:60]!r}"
            )
        return prompt, answer

    def _learned(self, record: dict[str, Any], answer: list[int]) -> list[int]:
        characters = set(record.get("learn") or "")
        if not characters:
            return answer
        texts = [self.tokenizer.decode([token]) for token in answer]
        return [token if set(text) <= characters else IGNORE for token, text in zip(answer, texts, strict=True)]

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return input_ids, attention_mask, position_ids and labels, padded on the left, (B, T)."""
        rows = [self.ids(record) for record in records]
        lines = [torch.tensor(prompt + answer) for prompt, answer in rows]
        labels = [
            torch.tensor([IGNORE] * len(prompt) + self._learned(record, answer))
            for record, (prompt, answer) in zip(records, rows, strict=True)
        ]
        pad = partial(pad_sequence, batch_first=True, padding_side="left")
        mask_BT = pad([torch.ones_like(line) for line in lines])
        return {
            "input_ids": pad(lines, padding_value=self.pad_id),
            "attention_mask": mask_BT,
            "position_ids": (mask_BT.cumsum(1) - 1).clamp(min=0),
            "labels": pad(labels, padding_value=IGNORE),
        }


class AnswerObjective(ExampleObjective):
    """Next-token loss on answers.

    Args:
        model: on the worker's device; what needs no gradient stays as it is.
        optimizer: of the rest.
        worker: takes its share of each batch.
        collator: of the model's tokenizer.
        row: number -> record with `prompt` and `answer`; a step takes the next `batch_size` numbers.
        batch_size: rows per step, over all workers.
        parts: micro-batches of a worker's share.
        dtype: compute type of matrix products, None for the weights' own.
        sparse: compute logits only where a token is learned: a large vocabulary costs much elsewhere. Models that do
            more to the last hidden state than to multiply it with their output embeddings, such as to cap or to scale
            their logits, are trained as without it; the first batch shows which kind a model is.

    Raises:
        ValueError: the batch cannot be shared evenly.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        worker: Worker,
        collator: AnswerCollator,
        row: Callable[[int], dict[str, Any]],
        *,
        batch_size: int,
        parts: int = 1,
        dtype: torch.dtype | None = None,
        sparse: bool = False,
    ) -> None:
        def collate(rows: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
            size = -(-len(rows) // parts)
            return [collator(rows[start : start + size]) for start in range(0, len(rows), size)]

        super().__init__(model.train(), optimizer, worker, row, collate, batch_size, dtype)
        self._sparse: bool | None = None if sparse else False

    def loss(self, part: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the summed nats of the answers."""
        if self._sparse is not False and (found := self._sparse_loss(part)) is not None:
            return found, {}
        labels_BT = part["labels"]
        learned_T = (labels_BT != IGNORE).any(0)
        asked = len(learned_T) - int(learned_T.long().argmax())  # positions from the first that is learned to the end
        rest = {name: value for name, value in part.items() if name != "labels"}
        with self.autocast():
            logits_BTV = self._run(**rest, logits_to_keep=asked + 1, use_cache=False).logits
            logits_NV = logits_BTV[:, -asked - 1 : -1].flatten(0, 1).float()
            labels_N = labels_BT[:, -asked:].flatten()
            return F.cross_entropy(logits_NV, labels_N, ignore_index=IGNORE, reduction="sum"), {}

    def _sparse_loss(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Return the loss from the hidden states of what is learned; None where they are not all of the logits."""
        labels_BT = batch["labels"][:, 1:]
        rest = {name: value for name, value in batch.items() if name != "labels"}
        # An index, not a count: it makes a copy, and products of views of many rows are slow on CPUs.
        last = torch.tensor([labels_BT.shape[1]], device=labels_BT.device)
        with self.autocast():
            output = self._run(**rest, logits_to_keep=last, output_hidden_states=True, use_cache=False)
        model: Any = self.model
        head: nn.Module = model.get_output_embeddings()
        dtype = next(head.parameters()).dtype
        hidden_BTC = output.hidden_states[-1].to(dtype)
        if self._sparse is None:
            with torch.no_grad():
                self._sparse = _alike(head(hidden_BTC[:, -1]), output.logits[:, -1])
            if not self._sparse:
                return None
        learned_BT = labels_BT != IGNORE
        logits_NV = head(hidden_BTC[:, :-1][learned_BT]).float()
        return F.cross_entropy(logits_NV, labels_BT[learned_BT], reduction="sum")


def _alike(one_BV: Tensor, other_BV: Tensor) -> bool:
    """Return whether the largest logit of each row is the same in both, but for how half precision rounds."""
    where_B1 = one_BV.abs().argmax(-1, keepdim=True)
    one_B1, other_B1 = one_BV.gather(-1, where_B1).float(), other_BV.gather(-1, where_B1).float()
    return torch.allclose(one_B1, other_B1, rtol=0.02, atol=1e-3)
