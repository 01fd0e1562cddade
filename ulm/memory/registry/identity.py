"""Who is meant: is the one that a text speaks of one that is known?

- Candidates come from names, by words with at most one typing error; no model is asked, and nothing is drawn.
- Each is compared in a few ways, and a logistic regression (`Judge`) says how likely it is the same. Above one
  threshold it is, below another it is not; between them it is `unsure`, and stays apart.
- Weights come from texts of which it is known who is meant (`Judge.fit`). None come with the package yet.

Axes: N candidates, F ways to compare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz
from rapidfuzz.distance import JaroWinkler

from ulm.judge import Floats, Judge
from ulm.memory.registry.names import words_of

Decision = Literal["same", "new", "unsure"]

COMPARED = (
    "name is the same",
    "likeness of names",
    "share of words that are the same",
    "type agrees (1), is unknown (0), differs (-1)",
    "claims that both have, at most 3",
    "claims that contradict, at most 2",
    "neighbours that both have, at most 3",
    "same scope",
    "how rare the name is",
)
"""In what ways a mention and a candidate are compared."""


@dataclass(frozen=True, slots=True)
class Mention:
    """How a text speaks of somebody.

    Attributes:
        name: normalised.
        entity_type: "" where the text does not say.
        scope: text or session.
        claims: what the text says of it: (relation, normalised name of a neighbour, or text).
        functional: those of these relations that have one value at a time.
    """

    name: str
    entity_type: str = ""
    scope: str = ""
    claims: frozenset[tuple[str, str]] = frozenset()
    functional: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Known:
    """A candidate, as a mention is compared with it.

    Attributes:
        id: its number.
        names: normalised.
        entity_type: "" where nobody said.
        scopes: texts that speak of it.
        claims: what is known of it: relation -> normalised names and texts.
        share: entities that have the mention's name, this one among them, or nearly so.
    """

    id: int
    names: tuple[str, ...]
    entity_type: str
    scopes: frozenset[str]
    claims: Mapping[str, frozenset[str]]
    share: int = 1


@dataclass(frozen=True, slots=True)
class Resolution:
    """Who is meant.

    Attributes:
        entity: the number by which the text knows it; one of several that stand for the same where it is known.
        decision: `same` as a known one; `new`; or `unsure`, which is kept apart as a new one.
        ranked: candidates with their probabilities, the likeliest first.
    """

    entity: int
    decision: Decision
    ranked: tuple[tuple[int, float], ...]


def compared(mention: Mention, candidates: Sequence[Known]) -> Floats:
    """Return how candidates compare with a mention, (N, F)."""
    rows = np.zeros((len(candidates), len(COMPARED)), dtype=np.float32)
    words, neighbours = set(words_of(mention.name)), {value for _, value in mention.claims}
    for row, known in zip(rows, candidates, strict=True):
        likeness = max(JaroWinkler.similarity(mention.name, name) for name in known.names)
        shared = max(fuzz.token_set_ratio(mention.name, name) for name in known.names) / 100
        of_type = 0 if not (mention.entity_type and known.entity_type) else 1
        of_type *= 1 if mention.entity_type == known.entity_type else -1
        both = sum(value in known.claims.get(relation, ()) for relation, value in mention.claims)
        against = sum(
            bool(known.claims.get(relation)) and value not in known.claims[relation]
            for relation, value in mention.claims
            if relation in mention.functional
        )
        around = frozenset().union(*known.claims.values()) if known.claims else frozenset()
        row[:] = (
            mention.name in known.names,
            likeness,
            shared if words else 0.0,
            of_type,
            min(both, 3),
            min(against, 2),
            min(len(neighbours & around), 3),
            bool(mention.scope) and mention.scope in known.scopes,
            1 / math.log2(1 + known.share),
        )
    return rows


@dataclass(frozen=True, slots=True)
class Identity:
    """What decides who is meant.

    Attributes:
        judge: log odds that mention and candidate are the same.
        same: probability from which on they are.
        new: probability below which they are not.
    """

    judge: Judge
    same: float
    new: float

    def probabilities(self, mention: Mention, candidates: Sequence[Known]) -> NDArray[np.float64]:
        """Return how likely each candidate is meant, (N,)."""
        if not candidates:
            return np.zeros(0)
        odds = self.judge(compared(mention, candidates)).astype(np.float64)
        return 1 / (1 + np.exp(-odds))

    def decide(self, ranked: Sequence[tuple[int, float]]) -> Decision:
        """Return what follows from candidates, the likeliest first."""
        if not ranked or ranked[0][1] < self.new:
            return "new"
        return "same" if ranked[0][1] >= self.same else "unsure"
