"""Who is meant: is the one that a text speaks of one that is known?

- Candidates come from names, by words with at most one typing error; no model is asked, and nothing is drawn.
- Each is compared in a few ways, and a logistic regression (`Judge`) says how likely it is the same. Above one
  threshold it is, below another it is not; between them it is `unsure`, and stays apart.
- Weights come from texts of which it is known who is meant (`Judge.fit`). None come with the package yet.

Axes: N candidates, F ways to compare.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz
from rapidfuzz.distance import JaroWinkler

from ulm.files import write_whole
from ulm.judge import Floats, Judge
from ulm.memory.registry.names import is_misspelt, may_be_one, shortens, words_of

Decision = Literal["same", "new", "unsure"]

FITTED = Path(__file__).with_name("identity.json")
"""Weights that come with this package: fitted on towns of archive-v0 (`tests/benchmarks/fit_identity.py`)."""

DECAY = 1e-4
"""Of the weights of standardised features, for each mention."""

COMPARED = (
    "name is the same",
    "one name is a shorter form of the other",
    "names differ by typing errors",
    "a name of the other's rules it out",
    "likeness of names",
    "share of words that are the same",
    "type agrees (1), is unknown (0), differs (-1)",
    "claims that both have, at most 3",
    "claims that contradict, at most 2",
    "claims that differ and may have changed, at most 2",
    "neighbours that both have, at most 3",
    "same scope",
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
        constant, changing: those of these relations that have one value for ever, and one at a time.
    """

    name: str
    entity_type: str = ""
    scope: str = ""
    claims: frozenset[tuple[str, str]] = frozenset()
    constant: frozenset[str] = frozenset()
    changing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Known:
    """A candidate, as a mention is compared with it.

    Attributes:
        id: its number.
        names: normalised.
        entity_type: "" where nobody said.
        scopes: texts that speak of it.
        claims: what is known of it: relation -> normalised names and texts.
    """

    id: int
    names: tuple[str, ...]
    entity_type: str
    scopes: frozenset[str]
    claims: Mapping[str, frozenset[str]]


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
        agrees = {
            relation: any(may_be_one(value, theirs) for theirs in known.claims[relation])
            for relation, value in mention.claims
            if known.claims.get(relation)
        }
        other = [relation for relation, is_so in agrees.items() if not is_so]
        around = frozenset().union(*known.claims.values()) if known.claims else frozenset()
        row[:] = (
            mention.name in known.names,
            any(shortens(mention.name, name) or shortens(name, mention.name) for name in known.names),
            any(is_misspelt(mention.name, name) for name in known.names),
            not all(may_be_one(mention.name, name) for name in known.names),
            likeness,
            shared if words else 0.0,
            of_type,
            min(sum(agrees.values()), 3),
            min(sum(relation in mention.constant for relation in other), 2),
            min(sum(relation in mention.changing for relation in other), 2),
            min(len(neighbours & around), 3),
            bool(mention.scope) and mention.scope in known.scopes,
        )
    return rows


@dataclass(frozen=True)
class Identity:
    """What decides who is meant: a logistic regression that chooses between candidates and somebody new.

    A mention means at most one of its candidates, so each one's odds count against the others' (conditional logit,
    McFadden 1974).

    Attributes:
        judge: log odds that mention and candidate are the same, against somebody new.
        same: probability from which on they are.
        new: probability below which they are not.
    """

    judge: Judge
    same: float
    new: float

    @classmethod
    def fit(cls, choices: Sequence[tuple[Floats, int | None]], precision: float = 0.99) -> Self:
        """Fit on mentions whose truth is known.

        `same` is the lowest probability, from one half on, from which at least `precision` of the decisions are right;
        below `new`, the highest such below it, at least as many of those who are meant are new. Between them one is
        unsure.

        Args:
            choices: (N, F) as `compared` gives it, and which of the candidates is meant, None for somebody new.
            precision: see above.

        Raises:
            ValueError: no mention means somebody known, or each does.
        """
        if len({chosen is None for _, chosen in choices}) < 2:
            raise ValueError("mentions of somebody known and of somebody new are needed to learn what tells them apart")
        rows = np.concatenate([features for features, _ in choices]).astype(np.float64)
        mean_F, scale_F = rows.mean(0), rows.std(0) + 1e-6
        lines = [np.c_[(features - mean_F) / scale_F, np.ones(len(features))] for features, _ in choices]
        weight = np.zeros(rows.shape[1] + 1)
        penalty = np.r_[np.full(rows.shape[1], DECAY), 1e-9]
        for _ in range(100):
            slope, curve = penalty * weight, np.diag(penalty)
            for line, (_, chosen) in zip(lines, choices, strict=True):
                share = _shares(line @ weight)
                mean = share @ line
                slope += (mean - (0 if chosen is None else line[chosen])) / len(lines)
                curve += ((line * share[:, None]).T @ line - np.outer(mean, mean)) / len(lines)
            change = np.linalg.solve(curve, slope)
            weight -= np.clip(change, -1, 1)
            if np.abs(change).max() < 1e-6:
                break
        judge = Judge(
            mean_F.astype(np.float32), scale_F.astype(np.float32), weight[:-1].astype(np.float32), float(weight[-1])
        )
        shares = [_shares(judge(features)) for features, _ in choices]
        best = np.array([share.max(initial=0.0) for share in shares])
        right = np.array(
            [
                chosen is not None and share.argmax() == chosen
                for share, (_, chosen) in zip(shares, choices, strict=True)
            ]
        )
        is_new = np.array([chosen is None for _, chosen in choices])
        same = min(1.0, max(0.5, _from_on(best, right, precision)))
        return cls(judge, same, min(same, max(0.0, -_from_on(-best, is_new, precision))))

    @classmethod
    def by_name(cls) -> Self:
        """Return the null control that takes all of one name and type for one."""
        zero = np.zeros(len(COMPARED), dtype=np.float32)
        weights = {"name is the same": 40.0, "type agrees (1), is unknown (0), differs (-1)": 40.0}
        weight_F = np.array([weights.get(name, 0.0) for name in COMPARED], dtype=np.float32)
        return cls(Judge(zero, zero + 1, weight_F, -60.0), 0.01, 0.01)

    @classmethod
    def by_text(cls) -> Self:
        """Return the null control that takes nobody for one that another text speaks of."""
        zero = np.zeros(len(COMPARED), dtype=np.float32)
        return cls(Judge(zero, zero + 1, zero, -40.0), 1.0, 1.0)

    @classmethod
    def load(cls, path: Path = FITTED) -> Self:
        """Read what `save` wrote; without a path, the one that comes with this package.

        Raises:
            ValueError: it is something else, or was fitted on other ways to compare.
            OSError: it cannot be read.
        """
        try:
            data = json.loads(path.read_text("utf-8"))
            weights = [[float(row[column]) for row in data["compared"].values()] for column in range(3)]
            bias, same, new = (float(data[name]) for name in ("bias", "same", "new"))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"{path} holds no identity ({error!r:.80}); fit it anew") from error
        if tuple(data["compared"]) != COMPARED:
            raise ValueError(f"{path} was fitted on other ways to compare; fit it anew")
        mean_F, scale_F, weight_F = (np.array(column, dtype=np.float32) for column in weights)
        return cls(Judge(mean_F, scale_F, weight_F, bias), same, new)

    def save(self, path: Path, **about: object) -> None:
        """Write it as JSON, with whatever is to be said about it."""
        judge = self.judge
        columns = zip(judge.mean_F.tolist(), judge.scale_F.tolist(), judge.weight_F.tolist(), strict=True)
        rows = {name: [round(value, 6) for value in row] for name, row in zip(COMPARED, columns, strict=True)}
        told = {"about": about, "same": self.same, "new": self.new, "bias": judge.bias, "compared": rows}
        write_whole(path, json.dumps(told, indent=1) + "\n")

    def probabilities(self, mention: Mention, candidates: Sequence[Known]) -> NDArray[np.float64]:
        """Return how likely each candidate is meant, (N,)."""
        return _shares(self.judge(compared(mention, candidates))) if candidates else np.zeros(0)

    def decide(self, ranked: Sequence[tuple[int, float]]) -> Decision:
        """Return what follows from candidates, the likeliest first."""
        if not ranked or ranked[0][1] < self.new:
            return "new"
        return "same" if ranked[0][1] >= self.same else "unsure"


def _from_on(score_N: NDArray[Any], right_N: NDArray[np.bool_], precision: float) -> float:
    """Return the lowest score from which on so many are right; infinity where not even the best one is."""
    order = np.argsort(-score_N, kind="stable")
    enough = np.flatnonzero(np.cumsum(right_N[order]) / np.arange(1, len(order) + 1) >= precision)
    return float(score_N[order[enough[-1]]]) if len(enough) else float("inf")


def _shares(odds_N: NDArray[Any]) -> NDArray[np.float64]:
    """Return how likely each candidate is meant and no other, and not somebody new, from log odds."""
    largest = max(0.0, float(odds_N.max(initial=0.0)))
    parts = np.exp(odds_N.astype(np.float64) - largest)
    shares: NDArray[np.float64] = parts / (parts.sum() + np.exp(-largest))
    return shares
