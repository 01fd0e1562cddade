"""What a pretrained model must still be able to do when it learned a task: ordinary requests, and a plain text.

Neither is learned; the answers that are rehearsed are the base's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

import torch
from torch.nn import functional as F

from swarm.learn.base import Base, Manner
from swarm.learn.samples import Sample
from ulm.delta import Delta
from ulm.model import IGNORE
from ulm.train.delta import DeltaModel
from ulm.train.pairs import collate

MANNER = Manner("Answer in one short sentence.")
"""How chat models are asked ordinary requests."""

REHEARSED = 32
REHEARSED_TOKENS = 16
"""Ordinary requests whose answers are rehearsed, and how much of an answer."""

TEXT = (
    "The lighthouse stood at the end of a long wall of stones. Every evening an old woman climbed its stairs, cleaned "
    "the glass and lit the lamp. Ships passed far out, and she never learned their names, but she kept a list of their "
    "lights: two white and one green, one red alone, three in a row. In winter, when the sea came over the wall, she "
    "stayed in the tower for a week with bread, tea and a book about the stars. When the harbour got electric light, "
    "the town asked her to come down and live in a house with a garden. She thanked them, planted beans, and went on "
    "counting ships from her kitchen window, because a list, she said, is only finished when nobody adds to it."
)
"""A plain text that nobody learns."""

PLAIN = Sample("The", TEXT.removeprefix("The"))


def ordinary_requests() -> list[str]:
    """Return requests of all kinds; they must keep their answers."""
    return resources.files("swarm.learn").joinpath("requests.txt").read_text(encoding="utf-8").splitlines()


@lru_cache(maxsize=2)
def rehearsed(base: Base) -> tuple[tuple[Sample, ...], int]:
    """Return ordinary requests with the base's own answers, and the tokens that it cost."""
    every = ordinary_requests()
    prompts = [base.asked(request) for request in every[:: max(1, len(every) // REHEARSED)][:REHEARSED]]
    found = base.answer(prompts, REHEARSED_TOKENS)
    samples = [
        # An answer that was cut does not end there.
        Sample(base.reads(prompt), result.text if result.finish == "length" else base.writes(result.text))
        for prompt, result in zip(prompts, found, strict=True)
        if result.text
    ]
    return tuple(samples), sum(result.prompt_tokens + result.generated_tokens for result in found)


def likelihood(base: Base, delta: Delta | None, samples: Sequence[Sample]) -> tuple[float, int]:
    """Return the mean log-probability (nats) of a token of these answers, and how many there are."""
    tensors = collate([sample[:2] for sample in samples], base.checkpoint.tokenizer)
    wanted_BT = tensors["labels"] != IGNORE
    reader: Any = base.checkpoint.model if delta is None else DeltaModel(base.checkpoint.model, delta)
    with torch.no_grad():
        logits_NV = reader(tensors["ids"], wanted_BT).float()
        nats = F.cross_entropy(logits_NV, tensors["labels"][wanted_BT])
    return -float(nats), len(logits_NV)


def bits_per_byte(base: Base, delta: Delta | None) -> tuple[float, int]:
    """Return how many bits a byte of the plain text costs, and how many tokens were read."""
    nats, count = likelihood(base, delta, [PLAIN])
    return -nats * count / math.log(2) / len(PLAIN.completion.encode()), count
