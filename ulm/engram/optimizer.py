"""The optimizer of an Engram, and how one is written down once it is trained.

Tables are trained by a lazy Adam: a step touches the rows that were read and no others, each with the bias correction
of its own number of steps, at a higher learning rate and without decay (Engram, arXiv:2601.07372, trains its tables at
five times the rate); all other weights by AdamW. Axes: R touched rows of a table, D their width.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ulm.engram.model import EngramModel
from ulm.files import settle

BASE_FOLDER = "base"
"""Folder, in that of a trained Engram, of a base model that was trained too, or of its PEFT adapter."""


class EngramAdam(torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter, arXiv:1711.05101) for dense gradients, lazy Adam without decay for sparse ones."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step; sparse gradients are used up."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    self._touch(parameter, parameter.grad.coalesce(), group)
                    parameter.grad = None
        super().step(closure)

    def _touch(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["steps"] = torch.zeros(parameter.shape[0], device=parameter.device)
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        steps, mean, square = state["steps"], state["mean"], state["square"]
        first, second = group["betas"]
        row_R, grad_RD = grad.indices()[0], grad.values()
        step_R1 = steps[row_R].add_(1)[:, None]
        mean_RD = mean[row_R].lerp_(grad_RD, 1 - first)
        square_RD = square[row_R].mul_(second).addcmul_(grad_RD, grad_RD, value=1 - second)
        steps[row_R], mean[row_R], square[row_R] = step_R1[:, 0], mean_RD, square_RD
        scale_RD = (square_RD / (1 - second**step_R1)).sqrt_().add_(group["eps"])
        parameter.index_add_(0, row_R, mean_RD / (1 - first**step_R1) / scale_RD, alpha=-group["lr"])


def engram_optimizer(
    model: EngramModel,
    lr: float,
    *,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    table_lr_factor: float = 5.0,
) -> EngramAdam:
    """Return the optimizer of a model with a learned tier: tables and all the rest in groups of their own.

    Args:
        model: what needs a gradient is trained.
        lr: learning rate.
        weight_decay: of matrices.
        betas: of Adam.
        table_lr_factor: learning rate of tables, in multiples of `lr`; groups carry it as `lr_factor`.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    tables = [p for name, p in named if name.endswith("table.weight")]
    rest = [p for name, p in named if not name.endswith("table.weight")]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
        {"params": tables, "weight_decay": 0.0, "lr": lr * table_lr_factor, "lr_factor": table_lr_factor},
    ]
    return EngramAdam([group for group in groups if group["params"]], lr=lr, betas=betas, foreach=False)


def save_trained(model: EngramModel, folder: Path) -> None:
    """Write the memory and, if it was trained too, the base model or its PEFT adapter."""
    model.save_pretrained(folder)
    base: Any = model.base_model
    if any(p.requires_grad for p in base.parameters()):
        base.save_pretrained(folder / BASE_FOLDER)
        settle(folder / BASE_FOLDER)
