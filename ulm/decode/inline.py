"""Inline answers: a text that is being written is answered at a mark, and goes on after the answer.

A model writes `3*7=`, a pure function says `21`, and the model reads that as if it had written it. What is appended is
read a token per step, as what is sampled is, so a text does not depend on those that are written beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Ask = Callable[[str], str | None]
"""The text so far -> what follows it, None (or nothing) where the model goes on by itself."""


@dataclass(slots=True)
class Inline:
    """What one text was answered, and what of it is still to be read.

    Attributes:
        ask: the answers; pure.
        marks: it is asked where the model has written a text that ends with one of these.
        encode: text to ids.
        spans: of the text, first character and the one after the last of each answer.
        tokens: how many were appended.
    """

    ask: Ask
    marks: tuple[str, ...]
    encode: Callable[[str], Sequence[int]]
    spans: list[tuple[int, int]] = field(default_factory=list)
    tokens: int = 0
    _pending: deque[int] = field(default_factory=deque)
    _start: int = 0

    def next_of(self, sampled: int) -> int:
        """Return the token that comes next: of an answer if there is one, else the one that was sampled."""
        return self._pending[0] if self._pending else sampled

    def appended(self, text: str, is_open: bool) -> None:
        """Take in that the next token was appended.

        Args:
            text: all of it so far.
            is_open: whether it goes on; an answer that meets a limit is cut there.
        """
        if self._pending:
            self._pending.popleft()
            self.tokens += 1
            if not self._pending or not is_open:
                self._pending.clear()
                if len(text) > self._start:
                    self.spans.append((self._start, len(text)))
        elif is_open and text.endswith(self.marks):
            self._start = len(text)
            self._pending.extend(self.encode(self.ask(text) or ""))


def spans_in(ask: Ask, text: str, mark: str = "=") -> tuple[tuple[int, int], ...]:
    """Return the parts of a text that `ask` would have appended if it had been written with inline answers."""
    found, at = [], 0
    while at := text.find(mark, at) + 1:
        said = ask(text[:at])
        if said and text.startswith(said, at):
            found.append((at, at + len(said)))
            at += len(said)
    return tuple(found)


def answered(chosen_B: Tensor, inlines: Sequence[Inline | None]) -> Tensor:
    """Return the tokens that come next: what was sampled, but for rows that have yet to read an answer.

    Args:
        chosen_B: what was sampled; there may be more rows than there are texts.
        inlines: of each text, None where nothing answers.
    """
    chosen = chosen_B.tolist()
    for row, inline in enumerate(inlines):
        if inline is not None:
            chosen[row] = inline.next_of(chosen[row])
    return torch.tensor(chosen, device=chosen_B.device)
