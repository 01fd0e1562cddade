"""Structures as automata, for the engines whose decoding is ours to steer (`ulm`, `transformers`)."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

from swarm.backends.protocol import Structure
from swarm.errors import SwarmError

if TYPE_CHECKING:
    from ulm.decode.constraint import Constraint
    from ulm.tokenizer import Tokenizer

__all__ = ["Constraints"]


class Constraints:
    """The automata of one tokenizer, each built once.

    Args:
        tokenizer: byte-level or character tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._regex = lru_cache(maxsize=64)(self._from_regex)
        self._choices = lru_cache(maxsize=64)(self._from_choices)

    def of(self, structure: Structure) -> Constraint:
        """Return the automaton of a structure.

        Raises:
            SwarmError: it is a grammar, which is no regular language, or a JSON Schema without the package for it.
            ValueError: the pattern is not understood or too large.
        """
        if structure.choices:
            return self._choices(structure.choices)
        if structure.regex is not None:
            return self._regex(structure.regex)
        if structure.json_schema is not None:
            return self._regex(_schema_regex(structure.json_schema))
        raise SwarmError("a grammar needs engine vllm or openai; ulm and transformers take regex, choices, JSON Schema")

    def _from_regex(self, pattern: str) -> Constraint:
        from ulm.decode.constraint import Constraint

        return Constraint.from_regex(pattern, self._tokenizer)

    def _from_choices(self, choices: tuple[str, ...]) -> Constraint:
        from ulm.decode.constraint import Constraint

        return Constraint.from_choices(choices, self._tokenizer)


def _schema_regex(schema: dict[str, object]) -> str:
    try:
        from outlines_core.json_schema import build_regex_from_schema
    except ImportError as error:
        raise SwarmError("JSON Schemas need the package outlines-core: pip install 'ulm-swarm[hf]'") from error
    return str(build_regex_from_schema(json.dumps(schema)))
