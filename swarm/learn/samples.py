"""What a learning step learns from: texts, each with where it comes from and how much it counts.

- A step draws its batches from several kinds of samples by their shares; within a kind all samples are equally likely.
- Whatever is drawn follows from the samples, the settings and a seed. Nothing here knows torch.
"""

import hashlib
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from swarm.config.learning import LearningConfig
from worlds.seeds import DerivedRandom


class Sample(NamedTuple):
    """A text to learn from.

    Attributes:
        prompt: what was read.
        completion: what is learned, the end of its line included.
        weight: advantage of an attempt, for `grpo`; 1 for what is imitated.
        tokens: that were generated when the completion was an attempt; 0 where nobody counted.
        inlined: parts of the completion that the world appended inline: read, and not learned.
    """

    prompt: str
    completion: str
    weight: float = 1.0
    tokens: int = 0
    inlined: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Samples:
    """All that one learning step learns from.

    Attributes:
        kinds: `own` (attempts that were right, or weighed), `hindsight`, `predict`, `rehearse` -> samples, in order.
        counts: how many attempts were looked at, kept, and dropped, and why.
    """

    kinds: Mapping[str, Sequence[Sample]]
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Return a hash of all samples."""
        rows = {kind: [one if one.inlined else one[:4] for one in some] for kind, some in self.kinds.items()}
        text = json.dumps(sorted(map(list, rows.items())))
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()

    def texts(self) -> list[Sample]:
        """Return all of them."""
        return [sample for _, some in sorted(self.kinds.items()) for sample in some]


def all_of(some: Sequence[Samples]) -> Samples:
    """Return the samples of several learners, kind by kind."""
    names = sorted({name for one in some for name in one.kinds})
    return Samples({name: [sample for one in some for sample in one.kinds.get(name, ())] for name in names})


def shares(samples: Samples, settings: LearningConfig) -> dict[str, float]:
    """Return kind -> how many samples of it are drawn: by the settings' shares, spread over the kinds that are there.

    None is met more than `epochs` times on average: small samples are learned by heart, and then little else is.
    """
    wanted = {name: getattr(settings, name) for name in ("hindsight", "predict", "rehearse")}
    wanted["own"] = 1.0 - sum(wanted.values())
    there = {kind: wanted[kind] for kind in sorted(wanted) if samples.kinds.get(kind) and wanted[kind] > 0}
    all_drawn, total = settings.steps * settings.batch, sum(there.values())
    found, left = {}, float(all_drawn)
    for kind in sorted(there, key=lambda kind: len(samples.kinds[kind]) / there[kind]):  # the scarcest first
        found[kind] = min(left * there[kind] / total, settings.epochs * len(samples.kinds[kind]))
        left, total = left - found[kind], total - there[kind]
    return found


def draw(samples: Samples, settings: LearningConfig, seed: int) -> list[list[Sample]]:
    """Return the batches of a learning step, fewer than `steps` where there is little to learn from.

    What is imitated is drawn with replacement, kind by kind; attempts that are weighed come once each, in a shuffled
    order, as often as the steps need them.
    """
    rng = DerivedRandom(seed, "batches")
    parts = dict(sorted(shares(samples, settings).items()))
    kinds, weights = list(parts), list(parts.values())
    weighed = _passes(list(samples.kinds.get("own", ())), rng) if settings.method == "grpo" else None
    batches: list[list[Sample]] = []
    for _ in range(math.ceil(sum(weights) / settings.batch)):
        drawn = rng.choices(kinds, weights, k=settings.batch)
        batches.append(
            [next(weighed) if weighed and kind == "own" else rng.choice(samples.kinds[kind]) for kind in drawn]
        )
    return batches


def _passes(samples: list[Sample], rng: random.Random) -> Iterator[Sample]:
    """Yield samples for ever, each once per pass."""
    while True:
        rng.shuffle(samples)
        yield from samples
