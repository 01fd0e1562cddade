"""What a base could do before it learned in play: its probe, its rehearsal, and how far a delta leads away from it.

The base's checkpoint says what it was taught: a task of a world's lessons. Their prompts are used, and their judge;
the answers that are rehearsed are the base's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from swarm.errors import SwarmError
from swarm.learn.samples import Sample
from swarm.prompt import STOP
from swarm.train import lessons
from worlds.protocol import Example, Lessons
from worlds.seeds import DerivedRandom

if TYPE_CHECKING:
    from ulm.checkpoint import Checkpoint
    from ulm.delta import Delta

ANSWER_TOKENS = 48
BATCH = 512
KL_TEXTS = 64
REHEARSED = 8192
"""Prompts that are rehearsed; 2,048 were learned by heart, and the probe fell all the same."""

_SEED = 20_231
"""Of the probe, the same for all runs: a base has one first value."""


class Taught(NamedTuple):
    """The lessons that a base was trained on, and how it answers them.

    Attributes:
        world, task: whose lessons.
        inline: whether the world answers while an answer is written.
        longest: tokens of an answer, at most.
    """

    world: str
    task: str
    inline: bool = False
    longest: int = ANSWER_TOKENS

    @classmethod
    def of(cls, meta: dict[str, Any]) -> Taught | None:
        """Return what a checkpoint's `meta` says; None for a base without lessons, or for agents with memory."""
        recipe = meta.get("recipe", {})
        if recipe.get("kind") != "policy":
            return None
        try:
            lessons.open_lessons(recipe["world"], recipe["task"])
        except (SwarmError, KeyError):
            return None
        if recipe.get("inline"):
            return cls(recipe["world"], recipe["task"], True, recipe["max_new_tokens"])
        return cls(recipe["world"], recipe["task"])

    def lessons(self) -> Lessons:
        """Return them."""
        return lessons.open_lessons(self.world, self.task)

    def probe(self, count: int, wanted: Sequence[str] = ()) -> list[Example]:
        """Return held-out examples, their kinds in turn: those that are wanted, or all in which puzzles are held out.

        Raises:
            SwarmError: there is no such kind.
        """
        taught = self.lessons()
        kinds = [kind for kind in taught.tasks[self.task] if kind not in taught.practice]
        if unknown := [kind for kind in wanted if kind not in kinds]:
            raise SwarmError(
                f"learning.test.kinds: {unknown[0]!r} is no kind of {self.task}; there are: {', '.join(kinds)}"
            )
        kinds = list(wanted) or kinds
        return [
            lessons.held_out_example(self.world, self.task, kinds[number % len(kinds)], _SEED, number // len(kinds))
            for number in range(count if kinds else 0)
        ]

    def prompts(self, wanted: Sequence[str] = ()) -> list[str]:
        """Return prompts to rehearse: of the kinds that are wanted in turn, or of all as they were taught."""
        found = []
        for number in range(REHEARSED):
            kind = wanted[number % len(wanted)] if wanted else None
            rng = DerivedRandom(_SEED, "rehearsal", self.task, number)
            found += self.lessons().example(self.task, rng, False, kind)
        return [lessons.pair(example)[1] for example in found]


class Scored(NamedTuple):
    """How a probe went: which answers were right, and the tokens that were read and written."""

    right: tuple[bool, ...]
    tokens: int

    @property
    def share(self) -> float:
        """Share of right answers."""
        return sum(self.right) / max(1, len(self.right))


def score(
    checkpoint: Checkpoint, delta: Delta | None, taught: Taught, count: int, kinds: tuple[str, ...] = ()
) -> Scored:
    """Return how a base with a delta does on its probe, greedily; arguments as of `Taught.probe`."""
    examples = taught.probe(count, kinds)
    said, tokens = answers(checkpoint, delta, [lessons.pair(example)[1] for example in examples], taught)
    judge = taught.lessons().judge
    return Scored(tuple(judge(example, text) for example, text in zip(examples, said, strict=True)), tokens)


@lru_cache(maxsize=2)
def first_score(checkpoint: Checkpoint, taught: Taught, count: int, kinds: tuple[str, ...] = ()) -> Scored:
    """Return how the base does on its probe before it learned anything."""
    return score(checkpoint, None, taught, count, kinds)


@lru_cache(maxsize=2)
def rehearsal(checkpoint: Checkpoint, taught: Taught, kinds: tuple[str, ...] = ()) -> tuple[tuple[Sample, ...], int]:
    """Return prompts that the base was taught with, with its own answers, and the tokens that it cost."""
    from ulm.decode.inline import spans_in

    prompts = taught.prompts(kinds)
    said, tokens = answers(checkpoint, None, prompts, taught)
    samples = (Sample(prompt, text + STOP) for prompt, text in zip(prompts, said, strict=True))
    if taught.inline:
        samples = (s._replace(inlined=spans_in(lessons.asked(taught.world, s.prompt), s.completion)) for s in samples)
    return tuple(samples), tokens


def answers(
    checkpoint: Checkpoint, delta: Delta | None, prompts: Sequence[str], taught: Taught
) -> tuple[list[str], int]:
    """Return greedy answers to prompts of lessons, and the tokens that were read and written."""
    from ulm.decode.engine import Engine, GenerationRequest

    model = checkpoint.model if delta is None else delta.applied(checkpoint.model)
    engine = Engine(model, checkpoint.tokenizer, pack=False)
    asks = [lessons.asked(taught.world, prompt) if taught.inline else None for prompt in prompts]
    requests = [
        GenerationRequest(prompt, 0, taught.longest, 0.0, stop=(STOP,), inline=ask)
        for prompt, ask in zip(prompts, asks, strict=True)
    ]
    found = [result for at in range(0, len(requests), BATCH) for result in engine.generate(requests[at : at + BATCH])]
    return [r.text for r in found], sum(r.prompt_tokens + r.generated_tokens + r.inlined_tokens for r in found)


def distance(
    checkpoint: Checkpoint, delta: Delta, samples: Sequence[Sample], most: int = KL_TEXTS
) -> tuple[float, int]:
    """Return KL(new, base) on the new task, in nats per token of answers there, and over how many tokens.

    At most so many of the samples are read. Shenfeld et al. (arXiv:2509.04259) find that forgetting follows it.
    """
    import torch

    from ulm.model import IGNORE
    from ulm.train.delta import DeltaModel
    from ulm.train.pairs import collate

    texts = list({sample[:2]: sample for sample in samples}.values())
    some = texts[:: max(1, len(texts) // most)][:most]
    if not some:
        return 0.0, 0
    tensors = collate([sample[:2] for sample in some], checkpoint.tokenizer, [sample.inlined for sample in some])
    wanted_BT = tensors["labels"] != IGNORE
    with torch.no_grad():
        new_NV = DeltaModel(checkpoint.model, delta)(tensors["ids"], wanted_BT).float().log_softmax(-1)
        base_NV = checkpoint.model(tensors["ids"], wanted_BT).float().log_softmax(-1)
        return float((new_NV.exp() * (new_NV - base_NV)).sum(-1).mean()), len(new_NV)
