"""Null controls that take the place of what was learned, before the exam: a random delta of the same size.

Whoever gains from it gains from moving weights, not from what was learned.
"""

import torch
from torch import Tensor

from ulm.delta import Delta


def random_like(delta: Delta, seed: int) -> Delta:
    """Return a random delta of the same shapes; what it adds to each weight, and its rows, have the same norms."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for name in sorted(delta.factors):
        new_a_RK, new_b_NR = (torch.randn(factor.shape, generator=generator) for factor in delta.factors[name])
        factors[name] = new_a_RK, new_b_NR * (_norm(*delta.factors[name]) / _norm(new_a_RK, new_b_NR))
    rows_EC = torch.randn(delta.rows_EC.shape, generator=generator)
    scale = float(delta.rows_EC.double().norm()) / max(float(rows_EC.double().norm()), 1e-12)
    return Delta(factors, delta.ids_E, rows_EC * scale, delta.base)


def _norm(a_RK: Tensor, b_NR: Tensor) -> float:
    """Return the Frobenius norm of B A."""
    return float((b_NR.double() @ a_RK.double()).norm())
