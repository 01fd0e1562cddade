"""What a constraint lets through: a text that is written token by token."""

from __future__ import annotations

from ulm.decode.constraint import Constraint
from ulm.tokenizer import Tokenizer


def accepts(constraint: Constraint, tokenizer: Tokenizer, text: str) -> bool:
    """Return whether every token of a text is allowed at its place, and the end after it."""
    matcher = constraint.matcher()
    for token in tokenizer.encode(text):
        if not matcher.allowed()[token]:
            return False
        matcher.advance(token)
    return bool(matcher.allowed()[tokenizer.eot_id])
