"""What one agent learned, all can have: deltas put together, of products and not of factors.

The mean of B A over agents is not the product of the mean of B and the mean of A (FedEx-LoRA, arXiv:2410.09432). So
factors are stacked, which is exact, and cut back to the rank of one delta by a singular value decomposition of the
stack (LoRA soups, arXiv:2410.13025, concatenate likewise).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ulm.delta import Delta


def together(deltas: Sequence[Delta], mode: str, rank: int) -> Delta:
    """Return one delta that stands for several.

    Args:
        deltas: of one base, in a fixed order.
        mode: `mean` or `concat`, the sum, of what each adds to weights; rows of the embedding likewise, over the
            deltas that have them.
        rank: of the result.
    """
    share = 1.0 / len(deltas) if mode == "mean" else 1.0
    names = sorted({name for delta in deltas for name in delta.factors})
    factors = {}
    for name in names:
        pairs = [delta.factors[name] for delta in deltas if name in delta.factors]
        a_RK = torch.cat([a for a, _ in pairs])
        b_NR = torch.cat([b for _, b in pairs], 1) * share
        factors[name] = cut(a_RK, b_NR, rank)
    ids = sorted({int(token) for delta in deltas for token in delta.ids_E})
    rows = {token: torch.zeros(deltas[0].rows_EC.shape[1]) for token in ids}
    having = dict.fromkeys(ids, 0)
    for delta in deltas:
        for token, row_C in zip(delta.ids_E.tolist(), delta.rows_EC, strict=True):
            rows[token] = rows[token] + row_C
            having[token] += 1
    scaled = [rows[token] / (having[token] if mode == "mean" else 1) for token in ids]
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
