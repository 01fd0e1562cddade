"""The form of an answer as a constraint, for the engines whose decoding is ours to steer (`ulm`, `transformers`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.backends.protocol import Structure

if TYPE_CHECKING:
    from ulm.decode.constraint import Constraint
    from ulm.tokenizer import Tokenizer


def constraint_of(structure: Structure | None, tokenizer: Tokenizer) -> Constraint | None:
    """Return what keeps an answer to its structure; None where any answer will do.

    Raises:
        ValueError: the structure is not understood, or the tokenizer can write no such text.
    """
    if structure is None:
        return None
    from ulm.decode.constraint import Constraint

    form, value = structure.best("choices", "regex", "json_schema", "grammar")
    try:
        found: Constraint = getattr(Constraint, f"from_{form}")(value, tokenizer)
    except ValueError as error:
        raise ValueError(f"the form of the answer cannot be kept: {error}") from error
    return found
