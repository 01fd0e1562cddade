"""Lessons whose tasks are mixes: each kind of example has a function that makes it, and a share."""

import random
from collections.abc import Callable, Mapping
from typing import ClassVar

from worlds.protocol import Example, Lessons

Maker = Callable[[random.Random, bool], Example]
"""(rng, held out) -> one example of its kind."""

Mixes = Mapping[str, Mapping[str, tuple[Maker, float]]]
"""Task -> kind -> (what makes it, its share)."""


class MixedLessons(Lessons):
    """One call per example.

    Attributes:
        mixes: what the examples of each task are.
    """

    mixes: ClassVar[Mixes]

    def __init__(self) -> None:
        self.tasks = {task: tuple(mix) for task, mix in self.mixes.items()}

    def example(self, task: str, rng: random.Random, held_out: bool, kind: str | None = None) -> list[Example]:
        """Return one example."""
        mix = self.mixes[task]
        if kind is None:
            (kind,) = rng.choices(list(mix), [share for _, share in mix.values()])
        return [mix[kind][0](rng, held_out)]
