"""Constrained decoding: which tokens may come next so that the whole text stays in a regular language.

Owns the lifting of an automaton over bytes to the tokens of one tokenizer, state by state as decoding asks,
so that no token is allowed from which the text cannot be completed. It refuses to know models, sampling, and
what the text means.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ulm.decode.automaton import compile_choices, compile_regex, reaching
from ulm.tokenizer import SPECIAL, Tokenizer

__all__ = ["Constraint"]


class Constraint:
    """A regular language, ready to mask the logits of one tokenizer.

    A text begins in state `start`. In each state `allowed` names the tokens from which the text can still be
    completed, so decoding never runs into a dead end; end of text is among them exactly where the text is
    complete, and no other special token ever is.

    Attributes:
        start: the state of the empty text.
    """

    def __init__(self, edges: list[dict[int, int]], final: set[int], tokenizer: Tokenizer) -> None:
        self.start = 0
        self._edges = edges
        self._final = final
        self._eot_id = tokenizer.eot_id
        self._vocab = _Vocabulary.of(tokenizer)
        self._masks: dict[int, torch.Tensor] = {}
        self._alive = self._live_states()
        if self.start not in self._alive:
            raise ValueError("the constraint allows no text that this tokenizer can write; widen the pattern")

    @classmethod
    def from_regex(cls, pattern: str, tokenizer: Tokenizer) -> Constraint:
        r"""Allow exactly the texts that `re.fullmatch(pattern, text, re.ASCII)` accepts.

        Understood: literals, escapes (`\d \w \s \D \W \S \n \t \xhh \uhhhh` and escaped punctuation), `.`,
        classes with ranges and negation, `* + ? {m} {m,} {,n} {m,n}`, `|` and groups.

        Raises:
            ValueError: another construct (named in the message), or more than `MAX_STATES` states.
        """
        return cls(*compile_regex(pattern), tokenizer)

    @classmethod
    def from_choices(cls, choices: Sequence[str], tokenizer: Tokenizer) -> Constraint:
        """Allow exactly the given texts.

        Raises:
            ValueError: there are none, or they need more than `MAX_STATES` states.
        """
        return cls(*compile_choices(choices), tokenizer)

    @property
    def num_states(self) -> int:
        """Number of states of the automaton over bytes."""
        return len(self._edges)

    def allowed(self, state: int) -> torch.Tensor:
        """Return the mask of the tokens allowed in a state.

        Returns:
            (V,) bool on the CPU, V the tokenizer's vocabulary; cached and shared, so do not write to it.
        """
        mask = self._masks.get(state)
        if mask is None:
            mask = torch.zeros(self._vocab.size, dtype=torch.bool)
            ids = [token for token, target in self._lift(state) if target in self._alive]
            mask[torch.tensor(ids, dtype=torch.long)] = True
            mask[self._eot_id] = state in self._final
            self._masks[state] = mask
        return mask

    def advance(self, state: int, token_id: int) -> int:
        """Return the state after a token; end of text leaves a final state as it is.

        Raises:
            ValueError: the token is not allowed in this state.
        """
        if token_id == self._eot_id and state in self._final:
            return state
        piece = self._vocab.pieces[token_id] if 0 <= token_id < self._vocab.size else b""
        target: int | None = state if piece else None
        for byte in piece:
            target = self._edges[target].get(byte) if target is not None else None
        if target is None or target not in self._alive:
            raise ValueError(f"token {token_id} ({piece!r}) is not allowed in state {state}")
        return target

    def is_final(self, state: int) -> bool:
        """Say whether the text is complete in this state; it may still go on."""
        return state in self._final

    def _lift(self, state: int) -> list[tuple[int, int]]:
        """Return every (token id, next state) by walking the vocabulary's trie and the automaton together."""
        found: list[tuple[int, int]] = []
        stack = [(0, state)]
        while stack:
            node, at = stack.pop()
            found += [(token, at) for token in self._vocab.tokens[node]]
            children, edges = self._vocab.children[node], self._edges[at]
            if len(edges) < len(children):
                stack += [(children[byte], target) for byte, target in edges.items() if byte in children]
            else:
                stack += [(child, edges[byte]) for byte, child in children.items() if byte in edges]
        return found

    def _live_states(self) -> set[int]:
        """Return the states from which tokens can complete the text."""
        if self._vocab.has_all_bytes:  # then whatever bytes can complete, tokens can, and the rest was pruned
            return set(range(len(self._edges)))
        return reaching({s: [t for _, t in self._lift(s)] for s in range(len(self._edges))}, self._final)


_VOCABULARIES: weakref.WeakKeyDictionary[Tokenizer, _Vocabulary] = weakref.WeakKeyDictionary()


@dataclass(slots=True)
class _Vocabulary:
    """Bytes of every token (none where it may not be written) and a trie over them; one per tokenizer."""

    pieces: list[bytes]
    children: list[dict[int, int]] = field(default_factory=lambda: [{}])
    tokens: list[list[int]] = field(default_factory=lambda: [[]])

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> _Vocabulary:
        if tokenizer not in _VOCABULARIES:
            vocabulary = cls(_token_bytes(tokenizer))
            for token, piece in enumerate(vocabulary.pieces):
                if piece:
                    vocabulary._add(token, piece)
            _VOCABULARIES[tokenizer] = vocabulary
        return _VOCABULARIES[tokenizer]

    def _add(self, token: int, piece: bytes) -> None:
        node = 0
        for byte in piece:
            if byte not in self.children[node]:
                self.children[node][byte] = len(self.children)
                self.children.append({})
                self.tokens.append([])
            node = self.children[node][byte]
        self.tokens[node].append(token)

    @property
    def size(self) -> int:
        return len(self.pieces)

    @property
    def has_all_bytes(self) -> bool:
        return len(self.children[0]) == 256 and all(self.tokens[node] for node in self.children[0].values())


def _byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def _token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes that each token id writes; none for special tokens.

    Raises:
        ValueError: the decoder is neither byte-level nor a plain concatenation.
    """
    decoder = json.loads(tokenizer.to_json())["decoder"] or {}
    kinds = {d["type"] for d in decoder.get("decoders", [decoder]) if "type" in d}
    if kinds not in ({"ByteLevel"}, {"Fuse"}):
        named = ", ".join(sorted(kinds)) or "none"
        raise ValueError(f"constraints need a byte-level or character tokenizer; this one decodes by: {named}")
    alphabet = _byte_alphabet() if kinds == {"ByteLevel"} else None
    added = tokenizer.inner.get_added_tokens_decoder()
    special = {tokenizer.pad_id, tokenizer.eot_id} | {i for i, token in added.items() if token.special}
    pieces = [b""] * tokenizer.vocab_size
    for text, token in tokenizer.inner.get_vocab(with_added_tokens=True).items():
        if token in special or text in SPECIAL or token >= len(pieces):
            continue
        if alphabet is None or token in added or any(c not in alphabet for c in text):
            pieces[token] = text.encode()
        else:
            pieces[token] = bytes(alphabet[c] for c in text)
    return pieces
