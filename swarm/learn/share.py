"""What one agent learned, all can have: deltas put together, of products and not of factors.

The mean of B A over agents is not the product of the mean of B and the mean of A (FedEx-LoRA, arXiv:2410.09432). So
factors are stacked, which is exact, and cut back to the rank of one delta by a singular value decomposition of the
stack (LoRA soups, arXiv:2410.13025, concatenate likewise).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ulm.delta import Delta


def together(deltas: Sequence[Delta], befores: Sequence[Delta | None], mode: str, rank: int) -> Delta:
    """Return one delta that stands for several.

    Args:
        deltas: of one base, in a fixed order.
        befores: what each was before the round; None for an empty one.
        mode: `mean` of what the deltas add to weights; or `concat`, the mean of what they were before, and to that the
            sum of what all have added since. Rows of the embedding likewise, the mean over the deltas that have them.
        rank: of the result.
    """
    if mode == "mean":
        terms = [(delta, 1 / len(deltas)) for delta in deltas]
    else:
        was = [before for before in befores if before is not None]
        terms = [(delta, 1.0) for delta in deltas] + [(before, 1 / len(deltas) - 1) for before in was]
    names = sorted({name for delta, _ in terms for name in delta.factors})
    factors = {}
    for name in names:
        pairs = [(*delta.factors[name], weight) for delta, weight in terms if name in delta.factors]
        factors[name] = cut(torch.cat([a for a, _, _ in pairs]), torch.cat([w * b for _, b, w in pairs], 1), rank)
    rows: dict[int, Tensor] = {}
    weights: dict[int, float] = {}
    for delta, weight in terms:
        for token, row_C in zip(delta.ids_E.tolist(), delta.rows_EC, strict=True):
            rows[token] = rows.get(token, torch.zeros_like(row_C)) + weight * row_C
            weights[token] = weights.get(token, 0.0) + weight
    ids = sorted(rows)
    scaled = [rows[token] / (weights[token] if mode == "mean" else 1) for token in ids]
    rows_EC = torch.stack(scaled) if ids else deltas[0].rows_EC[:0]
    return Delta(factors, torch.tensor(ids, dtype=torch.int64), rows_EC, deltas[0].base)


def cut(a_RK: Tensor, b_NR: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return factors of the given rank whose product is the nearest to B A; smaller ones are filled up with zeros."""
    left_NR, upper_RR = torch.linalg.qr(b_NR.double())
    right_KR, lower_RR = torch.linalg.qr(a_RK.double().T)
    u_RR, s_R, v_RR = torch.linalg.svd(upper_RR @ lower_RR.T)
    keep = min(rank, len(s_R))
    # Signs of singular vectors are free: the largest entry of each on the left is made positive.
    u_RQ, v_QR = u_RR[:, :keep], v_RR[:keep]
    sign_Q = u_RQ.gather(0, u_RQ.abs().argmax(0, keepdim=True)).sign()[0]
    root_Q = s_R[:keep].sqrt()
    b_NQ = left_NR @ (u_RQ * sign_Q * root_Q)
    a_QK = (v_QR * (sign_Q * root_Q)[:, None]) @ right_KR.T
    missing = rank - keep
    a_QK = torch.cat((a_QK, torch.zeros(missing, a_QK.shape[1], dtype=torch.float64)))
    b_NQ = torch.cat((b_NQ, torch.zeros(b_NQ.shape[0], missing, dtype=torch.float64)), 1)
    return a_QK.float().contiguous(), b_NQ.float().contiguous()
