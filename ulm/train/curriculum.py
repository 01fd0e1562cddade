"""A curriculum: which level of difficulty rows practise, and how it follows from what is mastered.

- Levels go from easy to hard. A fifth of the documents comes from all of them, so that nothing is forgotten and no
  level is without practice.
- `adaptive` goes a level up where held-out recall at the present one is high, and down where it is low. Controls, for
  curricula rarely help (BabyLM 2023-2025): `uniform`, `linear` over the training, `reversed`, and `shuffled`, which
  plays a sequence of levels in random order.
- Which level a document has follows from its number and from the changes so far, which are part of the state; so a
  resumed training reads the same.

Knows no files; who reads documents from it tells it how far they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ulm.data.document_stream import Source
from ulm.model import Decoder

Order = Literal["adaptive", "uniform", "linear", "reversed", "shuffled"]

REVIEW = 0.2
"""Share of documents from all levels."""

UP, DOWN = 0.8, 0.4
"""Held-out recall above which it goes up, below which it goes down."""

EVERY = 100
"""Steps between two looks at what is mastered."""

PATIENCE = 5
"""Looks at a level without a change after which it says so."""


class Curriculum:
    """A source of documents (`ulm.data.document_stream.Source`) whose level changes.

    Args:
        levels: sources from easy to hard.
        order: how levels follow each other.
        steps: of the training.
        seed: of what is drawn from which level.
        probe: returns held-out recall of a model at a level; `adaptive` alone asks it.
        sequence: levels, one per `EVERY` steps, for `shuffled`.

    Raises:
        ValueError: there are no levels, or what an order needs is missing.

    Attributes:
        level: the present one, from 0.
    """

    def __init__(
        self,
        levels: Sequence[Source],
        order: Order,
        steps: int,
        seed: int,
        probe: Callable[[Decoder, int], float] | None = None,
        sequence: Sequence[int] = (),
    ) -> None:
        if not levels:
            raise ValueError("a curriculum needs levels")
        if order == "adaptive" and probe is None:
            raise ValueError("an adaptive curriculum needs a probe of what is mastered")
        if order == "shuffled" and not sequence:
            raise ValueError("a shuffled curriculum needs the sequence of levels that it shuffles")
        self._levels, self._order, self._steps, self._seed, self._probe = levels, order, steps, seed, probe
        generator = np.random.Generator(np.random.PCG64([seed, 1]))
        self._sequence = [int(level) for level in generator.permutation(np.asarray(sequence, int))]
        self.level = len(levels) - 1 if order == "reversed" else 0
        self._changes: list[tuple[int, int]] = [(0, self.level)]
        self._waited = 0

    def __call__(self, number: int) -> Any:
        """Return the document of a number."""
        generator = np.random.Generator(np.random.PCG64([self._seed, 2, number]))
        level = next(level for start, level in reversed(self._changes) if start <= number)
        if self._order == "uniform" or generator.random() < REVIEW:
            level = int(generator.integers(len(self._levels)))
        return self._levels[level](number)

    def after(self, step: int, drawn: int, model: Decoder) -> str | None:
        """Go to the level of what is drawn from now on; return a line where it is stuck.

        Args:
            step: that was taken.
            drawn: documents that rows have drawn so far.
            model: what is trained, for the probe.
        """
        if (step + 1) % EVERY:
            return None
        before = self.level
        self.level = min(len(self._levels) - 1, max(0, self._next(step, model)))
        if self.level != before:
            self._changes.append((drawn, self.level))
            self._waited = 0
            return None
        self._waited += 1
        if self._order == "adaptive" and self._waited == PATIENCE and self.level < len(self._levels) - 1:
            return (
                f"the curriculum has been at level {self.level + 1} of {len(self._levels)} for {PATIENCE * EVERY} "
                "steps and goes on there"
            )
        return None

    def _next(self, step: int, model: Decoder) -> int:
        count = len(self._levels)
        if self._order == "adaptive" and self._probe is not None:
            mastered = self._probe(model, self.level)
            return self.level + (mastered > UP) - (mastered < DOWN)
        if self._order == "shuffled":
            return self._sequence[((step + 1) // EVERY - 1) % len(self._sequence)]
        done = int(count * (step + 1) / self._steps)
        return {"linear": done, "reversed": count - 1 - done}.get(self._order, self.level)

    def state(self) -> dict[str, Any]:
        """Return where it is, as JSON-able data."""
        return {"level": self.level, "changes": [list(change) for change in self._changes], "waited": self._waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken."""
        self.level, self._waited = state["level"], state["waited"]
        self._changes = [(start, level) for start, level in state["changes"]]
