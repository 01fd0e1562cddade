"""Asking a model: what it says after a prompt, freely and greedily, and whether that is right.

Owns both. It refuses to know which model it is and why it is asked.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from swarm.lab.engram.arms import Base
from swarm.lab.facts.exact_match import ExactMatch
from ulm.tokenizer import encode_after

BATCH = 32


def is_right(generated: str, answer: str) -> bool:
    """Return whether a generated text begins with the answer, and the answer's last word ends there."""
    rest = generated[len(answer) :]
    return generated.startswith(answer) and not (rest and rest[0].isalnum())


@torch.inference_mode()
def replies(base: Base, model: nn.Module, asked: Sequence[ExactMatch], limit: int) -> list[str]:
    """Return what a model says after each prompt, generated greedily.

    Args:
        base: tokenizer and device.
        model: bare or with a memory.
        asked: prompts with the answers that are wanted; these decide how far is generated, nothing else.
        limit: most tokens of an answer.
    """
    tokenizer = base.tokenizer
    encode = partial(tokenizer.encode, add_special_tokens=False)
    rows = []
    for record in asked:
        prompt_ids, answer_ids = encode_after(encode, record.prompt, record.answer)
        rows.append((prompt_ids, min(limit, len(answer_ids)) + 2))
    found = [""] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: (rows[i][1], len(rows[i][0])))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        ids_BT, mask_BT = _padded([rows[i][0] for i in chosen], base)
        out = model.generate(  # type: ignore[operator]
            input_ids=ids_BT,
            attention_mask=mask_BT,
            max_new_tokens=max(rows[i][1] for i in chosen),
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
        for i, row in zip(chosen, out[:, ids_BT.shape[1] :], strict=True):
            found[i] = tokenizer.decode(row, skip_special_tokens=True)
    return found


def _padded(rows: Sequence[Sequence[int]], base: Base) -> tuple[Tensor, Tensor]:
    """Return ids and mask, padded on the left, (B, T)."""
    longest = max(len(row) for row in rows)
    ids_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    mask_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    for b, row in enumerate(rows):
        ids_BT[b, longest - len(row) :] = torch.tensor(row)
        mask_BT[b, longest - len(row) :] = 1
    return ids_BT.to(base.model.device), mask_BT.to(base.model.device)
