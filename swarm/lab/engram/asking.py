"""Asking a model: what it says after a prompt, freely and greedily, and whether that is right.

Owns both. It refuses to know which model it is and why it is asked.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from swarm.lab.engram.arms import Base
from swarm.lab.facts.exact_match import ExactMatch
from ulm.tokenizer import encode_after

BATCH = 32


def is_right(generated: str, answer: str) -> bool:
    """Return whether a generated text begins with the answer, and the answer's last word ends there."""
    rest = generated[len(answer) :]
    return generated.startswith(answer) and not (rest and rest[0].isalnum())


def marked(said: Sequence[str], records: Sequence[ExactMatch]) -> list[dict[str, Any]]:
    """Return the key (with its category), the category and whether it is right of each answer."""
    return [
        {"key": f"{r.category} {r.key}", "category": r.category, "right": is_right(text, r.answer)}
        for text, r in zip(said, records, strict=True)
    ]


@torch.inference_mode()
def replies(base: Base, model: nn.Module, asked: Sequence[ExactMatch], limit: int) -> list[str]:
    """Return what a model says after each prompt, generated greedily.

    Args:
        base: tokenizer and device.
        model: bare or with a memory.
        asked: prompts with the answers that are wanted; these decide how far is generated, nothing else.
        limit: most tokens of an answer.
    """
    rows = []
    for record in asked:
        prompt_ids, answer_ids = encode_after(base.encode, record.prompt, record.answer)
        rows.append((prompt_ids, min(limit, len(answer_ids)) + 2))
    found = [""] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: (rows[i][1], len(rows[i][0])))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        for i, text in zip(
            chosen, written(base, model, [rows[i][0] for i in chosen], rows[chosen[-1]][1]), strict=True
        ):
            found[i] = text
    return found


def written(base: Base, model: Any, rows: Sequence[Sequence[int]], most: int) -> list[str]:
    """Return what a model writes after each row of ids, greedily, at most so many tokens."""
    longest, device = max(len(row) for row in rows), base.model.device
    ids_BT = torch.tensor([[0] * (longest - len(row)) + [*row] for row in rows], device=device)
    mask_BT = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    out = model.generate(
        input_ids=ids_BT,
        attention_mask=mask_BT,
        max_new_tokens=most,
        do_sample=False,
        pad_token_id=base.tokenizer.eos_token_id,
    )
    return [base.tokenizer.decode(row, skip_special_tokens=True) for row in out[:, longest:]]
