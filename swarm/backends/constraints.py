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
    from ulm.decode.constraint import Constraint

    if structure is None:
        return None
    if structure.choices:
        return Constraint.from_choices(structure.choices, tokenizer)
    if structure.regex is not None:
        return Constraint.from_regex(structure.regex, tokenizer)
    if structure.json_schema is not None:
        return Constraint.from_json_schema(structure.json_schema, tokenizer)
    return Constraint.from_grammar(str(structure.grammar), tokenizer)
