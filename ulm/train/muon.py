"""Muon for the matrices, AdamW for embeddings and norms, as one optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) takes the momentum of a matrix, makes it nearly
orthogonal by a Newton-Schulz iteration, and steps along it; scaled by 0.2 sqrt(max(rows, columns)) as in Liu et al.
(arXiv:2502.16982) its steps are as large as AdamW's, so one learning rate serves both. `torch.optim.Muon` computes in
bfloat16, which CPUs without AMX do at a fifth of their float32 speed, and takes a fused projection for one matrix;
this one keeps the parameters' type, treats fused projections part by part, and equal shapes as one batch.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalise(matrices_NRC: Tensor) -> Tensor:
    """Return each matrix with its singular values moved near 1 (those not tiny: between about .7 and 1.2).

    Args:
        matrices_NRC: N matrices of one shape.
    """
    a, b, c = COEFFICIENTS
    wide = matrices_NRC.mT if matrices_NRC.shape[-2] > matrices_NRC.shape[-1] else matrices_NRC
    x: Tensor = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if wide is not matrices_NRC else x


class Muon(torch.optim.AdamW):
    """AdamW whose groups of matrices take Muon's steps instead.

    Args:
        matrices: (parameter, rows at which it is cut into the matrices that it fuses); all get Muon.
        others: parameters that get AdamW without weight decay: embeddings and norms.
        lr: learning rate of both.
        weight_decay: decoupled, on the matrices.
        momentum: of Muon, Nesterov style.
        betas, eps: of AdamW.
    """

    def __init__(
        self,
        matrices: Iterable[tuple[torch.nn.Parameter, tuple[int, ...]]],
        others: Iterable[torch.nn.Parameter],
        lr: float,
        weight_decay: float = 0.05,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
    ) -> None:
        pairs = list(matrices)
        parameters, cuts = [parameter for parameter, _ in pairs], [cut for _, cut in pairs]
        groups: list[dict[str, Any]] = [
            {"params": parameters, "cuts": cuts, "momentum": momentum, "weight_decay": weight_decay},
            {"params": list(others), "momentum": None, "weight_decay": 0.0},
        ]
        super().__init__([group for group in groups if group["params"]], lr=lr, betas=betas, eps=eps, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient.

        Raises:
            ValueError: a closure was passed; none is supported.
        """
        if closure is not None:
            raise ValueError("Muon takes no closure")
        groups = self.param_groups
        for group in groups:
            if group["momentum"] is not None:
                self._step_matrices(group)
        try:
            self.param_groups = [group for group in groups if group["momentum"] is None]
            super().step()
        finally:
            self.param_groups = groups

    def _step_matrices(self, group: dict[str, Any]) -> None:
        by_shape: defaultdict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter, cut in zip(group["params"], group["cuts"], strict=True):
            if (gradient := parameter.grad) is None:
                continue
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            average = state["momentum"]
            average.lerp_(gradient, 1 - group["momentum"])
            nesterov = gradient.lerp(average, group["momentum"])
            for part, target in zip(nesterov.tensor_split(cut), parameter.tensor_split(cut), strict=True):
                by_shape[part.shape].append((part, target))
        for shape, pairs in by_shape.items():
            updates = orthogonalise(torch.stack([part for part, _ in pairs]))
            size = group["lr"] * 0.2 * math.sqrt(max(shape))
            for (_, target), update in zip(pairs, updates, strict=True):
                target.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-size)
