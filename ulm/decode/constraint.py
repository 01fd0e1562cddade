"""Constrained decoding: which tokens may come next so that the whole text fits a pattern, a schema or a grammar.

- llguidance computes the masks, for every tokenizer that writes bytes (ours and those of Llama models).
- Patterns mean what `re.fullmatch(pattern, text, re.ASCII)` means: Python's own parser reads them.
- Every token that can go on is allowed, not only the usual spelling of text that is forced: a model chooses as freely
  as when it was trained. What a mask allows follows from the text of its row alone, never from the batch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import any_to_lark
from numpy.typing import NDArray
from torch import Tensor

from ulm.tokenizer import Tokenizer

_NO_FORCING = '%llguidance {"no_forcing": true}\n'
_SEPARATORS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON is written as `json.dumps` does: a small model would get lost in free white space."""

# The module has no public name; its results have kept their form since Python 3.4.
_python: Any = import_module("re._parser")

_CLASSES = {"DIGIT": "0-9", "WORD": "0-9A-Za-z_", "SPACE": r"\t-\r\x20"}
_REFUSED = {
    "ASSERT": "look-around is not supported",
    "ASSERT_NOT": "look-around is not supported",
    "AT": "anchors are not supported; the whole text always has to match, leave them out",
    "ATOMIC_GROUP": "atomic groups are not supported",
    "GROUPREF": "backreferences are not supported",
    "GROUPREF_EXISTS": "conditional groups are not supported",
    "POSSESSIVE_REPEAT": "possessive quantifiers are not supported",
}


class Constraint:
    """What a text may be, compiled for one tokenizer.

    Args:
        grammar: in llguidance's dialect of Lark.
        tokenizer: one that writes bytes.
        name: what messages call it.

    Raises:
        ValueError: the grammar is not understood, or this tokenizer can write no text of it.
    """

    def __init__(self, grammar: str, tokenizer: Tokenizer, name: str) -> None:
        limits = LLParserLimits(verbose_errors=False)
        self._start = LLMatcher(_table(tokenizer), f"{grammar}\n{_NO_FORCING}", log_level=0, limits=limits)
        if self._start.is_error():
            raise ValueError(f"{name}: {_reason(self._start.get_error())}")
        self._vocab_size = tokenizer.vocab_size
        try:
            self.matcher().allowed()
        except ValueError:
            raise ValueError(f"{name} allows no text that this tokenizer can write; widen it") from None

    @classmethod
    @lru_cache(maxsize=64)
    def from_regex(cls, pattern: str, tokenizer: Tokenizer) -> Constraint:
        """Allow exactly the texts that `re.fullmatch(pattern, text, re.ASCII)` accepts.

        Raises:
            ValueError: the pattern is none, or it has an anchor, a look-around, a backreference, an inline flag, or a
                possessive quantifier or group.
        """
        name = f"constraint pattern {pattern[:40]!r}"
        try:
            parsed = _python.parse(pattern, re.ASCII)
            if parsed.state.flags != re.ASCII:
                raise ValueError("inline flags are not supported")
            rust = _translate(parsed)
        except RecursionError:
            raise ValueError(f"{name}: groups are nested too deep") from None
        except (re.error, OverflowError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from None
        return cls(f"start: /{rust}/", tokenizer, name)

    @classmethod
    def from_choices(cls, choices: Sequence[str], tokenizer: Tokenizer) -> Constraint:
        """Allow exactly the given texts.

        Raises:
            ValueError: there are none.
        """
        if not choices:
            raise ValueError("a constraint needs at least one choice")
        texts = "|".join("".join(_character(ord(c)) for c in choice) for choice in choices)
        return cls._compiled(f"start: /(?:{texts})/", tokenizer, f"constraint of choices {choices[0][:40]!r} ...")

    @classmethod
    def from_json_schema(cls, schema: Mapping[str, Any], tokenizer: Tokenizer) -> Constraint:
        """Allow the values of a JSON Schema, on one line with a space after each comma and colon.

        Raises:
            ValueError: the schema is none, has a keyword that llguidance does not know, or cannot be satisfied.
        """
        grammar = f"start: %json {json.dumps({**schema, 'x-guidance': _SEPARATORS})}"
        return cls._compiled(grammar, tokenizer, "constraint by JSON Schema")

    @classmethod
    def from_grammar(cls, grammar: str, tokenizer: Tokenizer) -> Constraint:
        """Allow the texts of a context-free grammar, in GBNF (from `root`) or in llguidance's Lark (from `start`).

        Raises:
            ValueError: the grammar is none.
        """
        name = f"constraint grammar {grammar[:40]!r}"
        try:
            lark = any_to_lark(grammar)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"{name}: {_reason(str(error))}") from None
        return cls._compiled(lark, tokenizer, name)

    @classmethod
    @lru_cache(maxsize=64)
    def _compiled(cls, grammar: str, tokenizer: Tokenizer, name: str) -> Constraint:
        return cls(grammar, tokenizer, name)

    def matcher(self) -> Matcher:
        """Return what follows one text from its beginning."""
        return Matcher(self._start.deep_copy(), self._vocab_size)


class Matcher:
    """How far one text is in its constraint."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    def allowed(self) -> NDArray[np.bool_]:
        """Return the (V,) mask of the tokens with which the text can go on; end of text where it is complete.

        Raises:
            ValueError: there are none, because the tokenizer lacks bytes that would have to follow.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise ValueError(f"constrained text cannot go on: {_reason(self._matcher.get_error())}")
        return np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)

    def advance(self, token_id: int) -> None:
        """Add a token to the text.

        Raises:
            ValueError: it is not allowed here.
        """
        if not self._matcher.consume_token(token_id):
            raise ValueError(f"token {token_id} is not allowed here")


def mask_logits(logits_BV: Tensor, matchers: Sequence[Matcher | None]) -> Tensor:
    """Return logits that are -inf for what a row's matcher does not allow; rows without one keep theirs to the bit.

    Args:
        logits_BV: may have more columns than the tokenizer has tokens, and more rows than there are matchers.
        matchers: one per row, from the first on.

    Raises:
        ValueError: a text cannot go on.
    """
    forbidden_BV = np.zeros(logits_BV.shape, np.bool_)
    for row, matcher in zip(forbidden_BV, matchers, strict=False):
        if matcher is not None:
            allowed = matcher.allowed()
            row[: len(allowed)] = ~allowed
            row[len(allowed) :] = True
    return logits_BV.masked_fill(torch.from_numpy(forbidden_BV).to(logits_BV.device), float("-inf"))


@lru_cache(maxsize=8)
def _table(tokenizer: Tokenizer) -> LLTokenizer:
    """Return the library's table of a tokenizer (4 ms for 2,300 tokens, .3 s for 49,000), made once."""
    try:
        return LLTokenizer(tokenizer.to_json(), n_vocab=tokenizer.vocab_size, eos_token=tokenizer.eot_id, slices=[])
    except ValueError as error:
        raise ValueError(f"constraints need a tokenizer that writes bytes: {_reason(str(error))}") from None


def _reason(message: str) -> str:
    """Return the line of the library's message that says what is wrong."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["no reason given"]
    return next((line for line in lines if line.startswith("error: ")), lines[0]).removeprefix("error: ")[:200]


def _translate(parsed: Iterable[tuple[Any, Any]]) -> str:
    """Return what Python's parser read, in the syntax of Rust's regular expressions."""
    return "".join(_part(str(operator), value) for operator, value in parsed)


def _part(operator: str, value: Any) -> str:
    match operator:
        case "LITERAL":
            return _character(value)
        case "NOT_LITERAL":
            return f"[^{_character(value)}]"
        case "ANY":
            return r"[^\n]"
        case "IN":
            return f"[{''.join(_item(str(kind), item) for kind, item in value)}]"
        case "BRANCH":
            return f"(?:{'|'.join(map(_translate, value[1]))})"
        case "SUBPATTERN":
            _, flags, unset, body = value
            if flags or unset:
                raise ValueError("inline flags are not supported")
            return f"(?:{_translate(body)})"
        case "MAX_REPEAT" | "MIN_REPEAT":  # lazy or not, the same texts match
            least, most, body = value
            return f"(?:{_translate(body)}){{{least},{'' if most is _python.MAXREPEAT else most}}}"
        case _:
            raise ValueError(_REFUSED.get(operator, f"{operator} is not supported"))


def _item(kind: str, value: Any) -> str:
    """Return one item of a character class."""
    match kind:
        case "NEGATE":
            return "^"
        case "LITERAL":
            return _character(value)
        case "RANGE":
            return f"{_character(value[0])}-{_character(value[1])}"
        case _:
            name = str(value).removeprefix("CATEGORY_")
            return f"[^{_CLASSES[name[4:]]}]" if name.startswith("NOT_") else _CLASSES[name]


def _character(code: int) -> str:
    return f"\\x{{{code:x}}}"
