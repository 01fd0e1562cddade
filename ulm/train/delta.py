"""Training a delta beside a frozen base: the model's own forward pass, its weights with the delta in them.

- The weights of a layer are W + B A, made anew in every step. At the size of a µLM that costs little beside the batch,
  and any forward pass of the model can be trained: pairs, whole documents, predictions.
- The optimizer is made anew in every learning step, so a step is a pure function of what it is given.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ulm.delta import Delta
from ulm.model import Decoder


class DeltaModel(nn.Module):
    """A frozen µLM with a delta that learns; called as the µLM is.

    Args:
        model: the base; its parameters get no gradient.
        delta: where learning starts.
    """

    def __init__(self, model: Decoder, delta: Delta) -> None:
        super().__init__()
        delta.refuse_other(model)
        model.requires_grad_(False)
        self._base: Callable[[], Decoder] = lambda: model  # no submodule: its weights are none of this one's state
        self._weights = dict(model.named_parameters())
        self._names = list(delta.factors)
        self._from = delta
        device = model.device
        self.a = nn.ParameterList(nn.Parameter(delta.factors[name][0].to(device).clone()) for name in self._names)
        self.b = nn.ParameterList(nn.Parameter(delta.factors[name][1].to(device).clone()) for name in self._names)
        self.rows = nn.Parameter(delta.rows_EC.to(device).clone())
        self._ids_E = delta.ids_E.to(device)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of the model as the delta has them; those that it leaves alone are not among them."""
        found = {
            name: self._weights[name] + b_NR @ a_RK
            for name, a_RK, b_NR in zip(self._names, self.a, self.b, strict=True)
        }
        if len(self._ids_E):
            found["embed.weight"] = self._weights["embed.weight"].index_add(0, self._ids_E, self.rows)
        return found

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model's forward pass."""
        return functional_call(self._base(), self.weights(), args, kwargs)

    def delta(self) -> Delta:
        """Return what was learned so far."""
        factors = {
            name: (a_RK.detach().to("cpu", torch.float32).clone(), b_NR.detach().to("cpu", torch.float32).clone())
            for name, a_RK, b_NR in zip(self._names, self.a, self.b, strict=True)
        }
        rows_EC = self.rows.detach().to("cpu", torch.float32).clone()
        return Delta(factors, self._from.ids_E, rows_EC, self._from.base)


def delta_optimizer(model: DeltaModel, rows_factor: float = 0.3) -> torch.optim.Optimizer:
    """Return AdamW without weight decay; rows learn at a share of the rate of factors (`lr_factor`)."""
    groups = [
        {"params": [*model.a, *model.b], "weight_decay": 0.0},
        {"params": [model.rows], "weight_decay": 0.0, "lr_factor": rows_factor},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=(0.9, 0.98), fused=True)
