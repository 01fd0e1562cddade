"""Training an Engram on questions and answers with transformers' Trainer.

- Only the answer is learned: the prompt is read, and its tokens carry no label. Rows end together (padding is on the
  left), so the output layer works on the last few positions alone.
- Tables are trained by a lazy Adam: a step touches the rows that were read and no others, each with the bias
  correction of its own number of steps, at a higher learning rate and without decay (Engram, arXiv:2601.07372, trains
  its tables at five times the rate); all other weights by AdamW.
- The base model stays as it is unless told otherwise.

Axes: B rows, T tokens, R touched rows of a table, D their width.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, Trainer

from ulm.engram.files import load_tables
from ulm.engram.model import EngramModel
from ulm.model import IGNORE
from ulm.tokenizer import encode_after

__all__ = [
    "BASE_FOLDER",
    "AnswerCollator",
    "AnswerTrainer",
    "EngramAdam",
    "EngramTrainer",
    "SparseAnswerTrainer",
    "last_checkpoint",
]

BASE_FOLDER = "base"
"""Folder, in that of a checkpoint, of a base model that is trained too, or of its PEFT adapter."""


class EngramAdam(torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter, arXiv:1711.05101) for dense gradients, lazy Adam for sparse ones.

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas, eps: as of Adam.
        weight_decay: of parameters with dense gradients; sparse ones never decay.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, foreach=False)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; sparse gradients are used up."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    self._touch(parameter, parameter.grad, group)
                    parameter.grad = None
        super().step()
        return loss

    def _touch(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["steps"] = torch.zeros(parameter.shape[0], device=parameter.device)
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        steps, mean, square = state["steps"], state["mean"], state["square"]
        (first, second), grad = group["betas"], grad.coalesce()
        row_R, grad_RD = grad.indices()[0], grad.values()
        step_R1 = steps[row_R].add_(1)[:, None]
        mean_RD = mean[row_R].lerp_(grad_RD, 1 - first)
        square_RD = square[row_R].mul_(second).addcmul_(grad_RD, grad_RD, value=1 - second)
        steps[row_R], mean[row_R], square[row_R] = step_R1[:, 0], mean_RD, square_RD
        scale_RD = (square_RD / (1 - second**step_R1)).sqrt_().add_(group["eps"])
        parameter.index_add_(0, row_R, mean_RD / (1 - first**step_R1) / scale_RD, alpha=-group["lr"])


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
        longest = max(len(prompt) + len(answer) for prompt, answer in rows)
        learned = [self._learned(record, answer) for record, (_, answer) in zip(records, rows, strict=True)]
        ids_BT = torch.full((len(rows), longest), self.pad_id)
        labels_BT = torch.full((len(rows), longest), IGNORE)
        mask_BT = torch.zeros(len(rows), longest, dtype=torch.long)
        for row, (prompt, answer) in enumerate(rows):
            ids_BT[row, longest - len(prompt) - len(answer) :] = torch.tensor(prompt + answer)
            labels_BT[row, longest - len(answer) :] = torch.tensor(learned[row])
            mask_BT[row, longest - len(prompt) - len(answer) :] = 1
        positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
        return {"input_ids": ids_BT, "attention_mask": mask_BT, "position_ids": positions_BT, "labels": labels_BT}


class AnswerTrainer(Trainer):  # type: ignore[misc]
    """transformers' Trainer for any causal language model on batches of an `AnswerCollator`."""

    loss_is_scaled_for_ga = False

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """Return the mean cross entropy of the answers' tokens, in nats."""
        labels_BT = inputs["labels"]
        learned_T = (labels_BT != IGNORE).any(0)
        asked = len(learned_T) - int(learned_T.long().argmax())  # positions from the first that is learned to the end
        rest = {name: value for name, value in inputs.items() if name != "labels"}
        output = model(**rest, logits_to_keep=asked + 1, use_cache=False)
        logits_NV = output.logits[:, -asked - 1 : -1].flatten(0, 1).float()
        loss = F.cross_entropy(logits_NV, labels_BT[:, -asked:].flatten(), ignore_index=IGNORE)
        return (loss, output) if return_outputs else loss


class SparseAnswerTrainer(AnswerTrainer):
    """`AnswerTrainer` that computes logits only where a token is learned: a large vocabulary costs much elsewhere.

    Models that do more to the last hidden state than to multiply it with their output embeddings, such as to cap or to
    scale their logits, are trained as by `AnswerTrainer`; the first batch shows which kind a model is.
    """

    _plain: bool | None = None

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """Return the mean cross entropy of the answers' tokens, in nats."""
        if self._plain is False:
            return super().compute_loss(model, inputs, return_outputs)
        labels_BT = inputs["labels"][:, 1:]
        rest = {name: value for name, value in inputs.items() if name != "labels"}
        # An index, not a count: it makes a copy, and products of views of many rows are slow on CPUs.
        last = torch.tensor([labels_BT.shape[1]], device=labels_BT.device)
        output = model(**rest, logits_to_keep=last, output_hidden_states=True, use_cache=False)
        learned_BT = labels_BT != IGNORE
        head: nn.Module = self.accelerator.unwrap_model(model).get_output_embeddings()
        dtype = next(head.parameters()).dtype  # accelerate returns float32, whatever the products were
        if self._plain is None:
            with torch.no_grad():
                self._plain = _alike(head(output.hidden_states[-1][:, -1].to(dtype)), output.logits[:, -1])
            if not self._plain:
                return super().compute_loss(model, inputs, return_outputs)
        logits_NV = head(output.hidden_states[-1][:, :-1][learned_BT].to(dtype)).float()
        loss = F.cross_entropy(logits_NV, labels_BT[learned_BT])
        return (loss, output) if return_outputs else loss


def _alike(one_BV: Tensor, other_BV: Tensor) -> bool:
    """Return whether the largest logit of each row is the same in both, but for how half precision rounds."""
    where_B1 = one_BV.abs().argmax(-1, keepdim=True)
    one_B1, other_B1 = one_BV.gather(-1, where_B1).float(), other_BV.gather(-1, where_B1).float()
    return torch.allclose(one_B1, other_B1, rtol=0.02, atol=1e-3)


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint of a Trainer that was written to its end, and remove those that were not."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))  # written last
        except (OSError, ValueError):
            shutil.rmtree(path)
            continue
        return str(path)
    return None


class EngramTrainer(AnswerTrainer):
    """`AnswerTrainer` for an `EngramModel`.

    Args:
        model: with an adapter that has a learned tier.
        table_lr_factor: learning rate of tables, in multiples of the others'.
        freeze_base: leave the base model as it is; otherwise it is trained too.
        kwargs: as of Trainer; `data_collator` is an `AnswerCollator` if none is given.
    """

    def __init__(
        self, model: EngramModel, *args: Any, table_lr_factor: float = 5.0, freeze_base: bool = True, **kwargs: Any
    ) -> None:
        self.table_lr_factor = table_lr_factor
        if not freeze_base:
            model.base_model.requires_grad_(True)
        if kwargs.get("data_collator") is None:
            kwargs["data_collator"] = AnswerCollator(model.vocabulary.tokenizer)
        super().__init__(model, *args, **kwargs)
        self.args.remove_unused_columns = False

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimizer: tables and all the rest in groups of their own."""
        found: torch.optim.Optimizer | None = self.optimizer  # type: ignore[has-type]
        if found is None:
            named = [(name, p) for name, p in (model or self.model).named_parameters() if p.requires_grad]
            tables = [p for name, p in named if name.endswith("table.weight")]
            plain = [p for name, p in named if not name.endswith("table.weight") and p.dim() < 2]
            rest = [p for name, p in named if not name.endswith("table.weight") and p.dim() >= 2]
            args = self.args
            groups = [
                {"params": rest, "weight_decay": args.weight_decay},
                {"params": plain, "weight_decay": 0.0},
                {"params": tables, "weight_decay": 0.0, "lr": args.learning_rate * self.table_lr_factor},
            ]
            self.optimizer = found = EngramAdam(
                [group for group in groups if group["params"]],
                lr=args.learning_rate,
                betas=(args.adam_beta1, args.adam_beta2),
                eps=args.adam_epsilon,
            )
        return found

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        """Clip what torch can clip; a table's gradient is sparse, and Adam does not mind its size."""
        dense = [p for p in model.parameters() if p.grad is not None and not p.grad.is_sparse]
        norm: Tensor = self.accelerator.clip_grad_norm_(dense, self.args.max_grad_norm or math.inf)
        return norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | None = None) -> Tensor | float | None:
        return self._clip_grad_norm(model) if grad_norm is None else grad_norm

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        self.model.save_pretrained(folder)
        if any(p.requires_grad for p in self.model.base_model.parameters()):
            self.model.base_model.save_pretrained(folder / BASE_FOLDER)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Take in the weights of a checkpoint of `_save`: the memory's and, if it is trained too, the base's."""
        folder, name = Path(resume_from_checkpoint), self.model.active_adapter
        load_tables(self.model.adapter, folder if name == "default" else folder / name)
        base = self.model.base_model
        if hasattr(base, "peft_config"):
            from peft import set_peft_model_state_dict

            set_peft_model_state_dict(base, load_file(folder / BASE_FOLDER / "adapter_model.safetensors"))
        elif (folder / BASE_FOLDER).is_dir():
            found = type(base).from_pretrained(folder / BASE_FOLDER, dtype=next(base.parameters()).dtype)
            base.load_state_dict(found.state_dict())
