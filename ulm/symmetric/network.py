"""A trained network in all directions, and what it makes of texts and propositions that have no counterpart.

Round trips as in CycleGT (Guo et al., arXiv:2006.04702): a text and the network's own propositions of it teach
`verbalize`, propositions and the network's own text teach `parse`. What was not made by the network is what is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ulm.checkpoint import load_checkpoint
from ulm.decode.constraint import Constraint
from ulm.decode.engine import Engine, GenerationRequest
from ulm.symmetric.pairs import STOP, Pair, ask_prompt, parse_prompt, verbalize_prompt
from ulm.symmetric.propositions import (
    Numbering,
    Proposition,
    handles_of,
    is_whole,
    path_pattern,
    pattern,
    read,
    written,
)

BATCH = 64
LONGEST_TEXT = 160
"""Tokens."""


class Network:
    """One decoder that parses, verbalizes and asks; greedy, so it says the same of the same.

    Args:
        engine: with a model that was trained on examples of `Mixture`.
        relations: those that it may write.
    """

    def __init__(self, engine: Engine, relations: Sequence[str]) -> None:
        self.engine = engine
        self.relations = tuple(relations)

    @classmethod
    def load(cls, folder: Path) -> Network:
        """Open what `swarm train` made of a recipe of kind `symmetric`.

        Raises:
            ValueError: it is no checkpoint, or one of another kind.
        """
        found = load_checkpoint(folder)
        if "relations" not in found.meta:
            raise ValueError(f"{folder} has no relations; it was not trained by a recipe of kind symmetric")
        return cls(Engine(found.model, found.tokenizer), found.meta["relations"])

    def parse(self, texts: Sequence[str]) -> list[list[Proposition]]:
        """Return what each text says of its mentions; nothing of a text that has none. Every proposition is sound."""
        requests = [self._constrained(parse_prompt(text), len(handles_of(text)), pattern) for text in texts]
        said = self._written(requests)
        found = []
        for text, one in zip(texts, said, strict=True):
            handles = set(handles_of(text))
            found.append(read(Numbering(text).original(one), handles, self.relations)[0])
        return found

    def verbalize(self, some: Sequence[Sequence[Proposition]]) -> list[str]:
        """Return a text that says each set of propositions; "" for an empty one."""
        requests = [
            GenerationRequest(verbalize_prompt(one), 0, LONGEST_TEXT, 0.0, stop=(STOP,)) if one else None
            for one in some
        ]
        said = self._written(requests)
        return [Numbering(written(one)).original(text) for one, text in zip(some, said, strict=True)]

    def ask(self, questions: Sequence[str]) -> list[str]:
        """Return the look-up that answers each question, up to its `=`, where a registry goes on (`answered`).

        "" for a question that names nobody.
        """
        requests = [self._constrained(ask_prompt(text), len(handles_of(text)), path_pattern) for text in questions]
        return [Numbering(q).original(text) for q, text in zip(questions, self._written(requests), strict=True)]

    def _constrained(
        self, prompt: str, handles: int, form: Callable[[Collection[str], Collection[int]], str]
    ) -> GenerationRequest | None:
        if not handles:
            return None
        allowed = Constraint.from_regex(form(self.relations, range(handles)), self.engine.tokenizer)
        return GenerationRequest(prompt, 0, LONGEST_TEXT, 0.0, stop=(STOP,), constraint=allowed)

    def _written(self, requests: Sequence[GenerationRequest | None]) -> list[str]:
        """Return what is written for each request, "" for none."""
        asked = [(place, request) for place, request in enumerate(requests) if request is not None]
        asked.sort(key=lambda one: len(one[1].prompt))  # rows of similar length end together
        said = [""] * len(requests)
        for start in range(0, len(asked), BATCH):
            some = asked[start : start + BATCH]
            results = self.engine.generate([request for _, request in some])
            for (place, _), result in zip(some, results, strict=True):
                said[place] = result.text.strip()
        return said


def own_claims(network: Network, texts: Sequence[str]) -> list[Pair]:
    """Return pairs of a text and the network's own propositions of it, which teach `verbalize`.

    Where these do not use all mentions, or say something of one alone, the pair is dropped.
    """
    said = network.parse(texts)
    return [
        Pair(text, tuple(one), ("verbalize",)) for text, one in zip(texts, said, strict=True) if is_whole(text, one)
    ]


def own_texts(network: Network, some: Sequence[Sequence[Proposition]]) -> list[Pair]:
    """Return pairs of the network's own text of propositions and these, which teach `parse`; dropped as above."""
    said = network.verbalize(some)
    return [Pair(text, tuple(one), ("parse",)) for text, one in zip(said, some, strict=True) if is_whole(text, one)]
