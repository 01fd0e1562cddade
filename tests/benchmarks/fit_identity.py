"""Fits what decides who is meant (`ulm.memory.registry.Identity`) on towns of archive-v0, and measures it on others.

The towns that it is measured on have names that no town that it was fitted on has. `python
tests/benchmarks/fit_identity.py` measures; `--write` also writes the weights that come with the package.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ulm.judge import Floats, Judge
from ulm.memory.registry import Claim, EntityRegistry, Identity, Relation
from ulm.memory.registry.identity import COMPARED, FITTED, Known, Mention, compared
from worlds.archive.grammar import claims_of
from worlds.archive.schema import RELATIONS
from worlds.archive.town import Document, Town

ERRORS = 0.03
"""Share of mentions in the towns it is fitted on that have a typing error."""

Choice = tuple[Floats, int | None]
Gold = dict[tuple[str, str, str], int]


def misspelt(name: str, rng: random.Random) -> str:
    """Return a name with two letters of a long word swapped, or one left out; short words stay."""
    words = name.split()
    long = [number for number, word in enumerate(words) if len(word) > 3]
    if long:
        number = rng.choice(long)
        word, place = words[number], rng.randrange(1, len(words[number]) - 1)
        rest = word[place + 1 :] if rng.random() < 0.5 else word[place + 1] + word[place] + word[place + 2 :]
        words[number] = word[:place] + rest
    return " ".join(words)


def with_errors(document: Document, rng: random.Random) -> Document:
    """Return a document of which a few names have a typing error."""
    page = document.page
    names = tuple(misspelt(name, rng) if rng.random() < ERRORS else name for name in page.mentions)
    return replace(document, page=replace(page, mentions=names if len({*names}) == len(names) else page.mentions))


def said_by(document: Document) -> list[Claim]:
    """Return what a document says, as the world tells it."""
    page, names = document.page, dict(enumerate(document.page.mentions))
    return [Claim(*one) for one in claims_of(page.claims, names, f"doc {document.number}", document.year)]


def gold_of(documents: Iterable[Document], town: Town) -> Gold:
    """Return (source, name, type) -> the thing that is meant."""
    return {
        (f"doc {d.number}", name, town.things[thing].type): thing
        for d in documents
        for name, thing in zip(d.page.mentions, d.page.things, strict=True)
    }


class Teacher(Identity):
    """Decides by the truth, and keeps how everybody compared.

    Args:
        gold: who is meant.
    """

    def __init__(self, gold: Gold) -> None:
        zero = np.zeros(len(COMPARED), dtype=np.float32)
        super().__init__(Judge(zero, zero + 1, zero, 0.0), 0.5, 0.5)
        vars(self).update(gold=gold, choices=list[Choice]())

    def probabilities(self, mention: Mention, candidates: Sequence[Known]) -> NDArray[np.float64]:
        """Return 1 for who is meant."""
        thing = self.gold[mention.scope, mention.name, mention.entity_type]
        same = np.array([self._thing(known) == thing for known in candidates], dtype=bool)
        if candidates:
            self.choices.append((compared(mention, candidates), int(same.argmax()) if same.any() else None))
        return same.astype(np.float64)

    def _thing(self, known: Known) -> int | None:
        keys = ((scope, name, known.entity_type) for scope in known.scopes for name in known.names)
        return next((self.gold[key] for key in keys if key in self.gold), None)


def registry_with(identity: Identity, on_new: Callable[[int], None] = lambda number: None) -> EntityRegistry:
    """Return an empty registry that knows the relations of the world."""
    registry = EntityRegistry(identity=identity, on_new_entity=on_new)
    for name, one in RELATIONS.items():
        registry.declare(Relation.of(name, one.flags))
    return registry


def choices_of(town: Town, documents: Sequence[Document]) -> list[Choice]:
    """Return how each mention compares with its candidates, (N, F), and which of them it means."""
    teacher = Teacher(gold_of(documents, town))
    registry = registry_with(teacher)
    for document in documents:
        registry.note(said_by(document))
    return teacher.choices


def b_cubed(found: Sequence[int], gold: Sequence[int]) -> tuple[float, float, float]:
    """Return B-cubed precision, recall and F1 of a partition (Bagga and Baldwin 1998)."""
    both, ours, theirs = defaultdict(int), defaultdict(int), defaultdict(int)
    for one, other in zip(found, gold, strict=True):
        both[one, other] += 1
        ours[one] += 1
        theirs[other] += 1
    N = len(found)
    precision = sum(n * n / ours[one] for (one, _), n in both.items()) / N
    recall = sum(n * n / theirs[other] for (_, other), n in both.items()) / N
    return precision, recall, 2 * precision * recall / (precision + recall)


def keys_of(registry: EntityRegistry | None, town: Town, documents: Sequence[Document], rule: str) -> dict[str, list]:
    """Return what every mention was taken for by a rule, what it is, and whether it has a namesake."""
    gold = gold_of(documents, town)
    meant: dict[tuple[str, str, str], int] = {}
    if registry is not None:
        for document in documents:
            meant |= registry.note(said_by(document))
        meant = {key: registry.representative(entity) for key, entity in meant.items()}
    found: list[object] = []
    truth = list(gold.values())
    for source, name, kind in gold:
        by = {
            "name": name,
            "name and type": (name, kind),
            "text": (source, name),
            "learned": meant.get((source, name, kind)),
        }
        found.append(by[rule])
    numbers = {one: number for number, one in enumerate(dict.fromkeys(found))}
    return {
        "found": [numbers[one] for one in found],
        "gold": truth,
        "namesake": [town.is_namesake(town.things[thing]) for thing in truth],
    }


def measure(identity: Identity, seeds: Iterable[int], persons: int, wordings: str) -> dict[str, dict[str, float]]:
    """Return the figures of each rule over some towns, mentions of all together."""
    table: dict[str, dict[str, float]] = {}
    for rule in ("learned", "name", "name and type", "text"):
        found, gold, namesake, seconds = list[int](), list[int](), list[bool](), 0.0
        for seed in seeds:
            town = Town(random.Random(seed), persons, True, wordings)
            documents = town.documents()
            began_s = time.perf_counter()
            one = keys_of(registry_with(identity) if rule == "learned" else None, town, documents, rule)
            seconds += time.perf_counter() - began_s
            found += [(number + 1) * 10_000 + seed for number in one["found"]]
            gold += [(number + 1) * 10_000 + seed for number in one["gold"]]
            namesake += one["namesake"]
        some = [(f, g) for f, g, is_namesake in zip(found, gold, namesake, strict=True) if is_namesake]
        p, r, f1 = b_cubed(found, gold)
        alike = b_cubed(*zip(*some, strict=True))
        per_entity = len(set(zip(found, gold, strict=True))) / len(set(gold))
        table[rule] = {
            "mentions": len(gold), "precision": p, "recall": r, "F1": f1, "namesakes": len(some),
            "F1 of namesakes": alike[2], "duplicates": per_entity, "ms a mention": 1000 * seconds / len(gold),
        }  # fmt: skip
    return table


def main() -> None:
    """Fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--towns", type=int, default=40, help="towns to fit on, and to measure on")
    parser.add_argument("--persons", type=int, default=40)
    parser.add_argument("--write", action="store_true", help=f"write {FITTED.name}")
    args = parser.parse_args()
    choices: list[Choice] = []
    for seed in range(args.towns):
        rng = random.Random(1_000_000 + seed)
        town = Town(rng, args.persons, False)
        choices += choices_of(town, [with_errors(document, rng) for document in town.documents()])
    identity = Identity.fit(choices)
    known = sum(chosen is not None for _, chosen in choices)
    print(f"fitted on {len(choices):,} mentions with candidates, {known:,} of somebody known")
    for name, weight in zip(COMPARED, identity.judge.weight_F, strict=True):
        print(f"  {weight:+7.2f}  {name}")
    print(f"  same from {identity.same:.4f}, new below {identity.new:.4f}")
    for wordings in ("seen", "held_out"):
        for rule, row in measure(identity, range(args.towns), args.persons, wordings).items():
            print(f"{wordings:<9} {rule:<14}", " ".join(f"{name} {value:.4g}" for name, value in row.items()))
    if args.write:
        identity.save(FITTED, command=f"fit_identity.py --towns {args.towns} --persons {args.persons} --write")


if __name__ == "__main__":
    main()
