"""A learned table of compositions: a mother's brother is an uncle. It says what follows from relations that are known.

- The table is learned by gradient from chains of relations of which only the end-to-end relation is given; relations in
  between are latent. It is read by argmax, so it is a list of rules that people can read and change.
- A chain is reduced in every order (a chart, as in the Cocke-Younger-Kasami parser), so one pair without a rule does
  not end it. Each order that leads to a relation is a derivation, and the relation with the most of them follows.
- No rule needs the names or the number of those in between.

Axes: N chains, K relations of a chain, R relations.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from ulm.memory.registry.view import RegistryView, Value

_RULE = re.compile(r"(?P<first>\S.*?) o (?P<second>\S.*?) -> (?P<whole>\S.*)")

MOST_WAYS = 1_000
"""Ways of one length that are followed from an entity; of more, those whose first relations the table lists last go."""

Chain = tuple[Sequence[str], str]
"""Relations, one after the other, and the relation from end to end."""


@dataclass(frozen=True)
class Compositions:
    """Rules r1 o r2 -> r3: whom one's r1 has as r2, that one has as r3.

    Attributes:
        rules: (r1, r2) -> r3; a pair that is not in it has no rule.
    """

    rules: Mapping[tuple[str, str], str]

    @classmethod
    def learn(
        cls,
        chains: Iterable[Chain],
        *,
        seed: int = 0,
        steps: int = 300,
        learning_rate: float = 0.1,
        sparsity: float = 0.1,
    ) -> Self:
        """Learn rules from chains of two relations and more.

        Args:
            chains: each as often as it counts.
            seed: of the first logits.
            steps: of Adam, each over all chains.
            learning_rate: of Adam.
            sparsity: price of a rule; without one, pairs that no chain decides get rules, too.

        Raises:
            ValueError: there are no chains, or one of them has a single relation.
        """
        counts = Counter((tuple(path), whole) for path, whole in chains)
        if not counts or any(len(path) < 2 for path, _ in counts):
            raise ValueError("rules are learned from chains of at least two relations, with what they are end to end")
        names = sorted({name for path, whole in counts for name in (*path, whole)})
        batches, R = _batches(counts, names), len(names)
        noise = torch.randn(R, R, R + 1, generator=torch.Generator().manual_seed(seed))
        logits = (0.1 * noise).requires_grad_()  # the last place: no rule
        optimizer = torch.optim.Adam([logits], learning_rate)
        for _ in range(steps):
            table_RRR = logits.softmax(-1)[..., :R]
            loss = sparsity * table_RRR.sum(-1).mean()
            for paths_NK, whole_N, share_N in batches:
                found_NR = derivations(table_RRR, paths_NK)
                right_N = found_NR.gather(1, whole_N[:, None])[:, 0]
                likely_N = (right_N + 1e-9).log() - found_NR.sum(1).clamp(min=1).log()
                loss = loss - (share_N * likely_N).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        best = logits.argmax(-1).tolist()
        return cls(
            {(a, b): names[best[i][j]] for i, a in enumerate(names) for j, b in enumerate(names) if best[i][j] < R}
        )

    @classmethod
    def read(cls, text: str) -> Self:
        """Read rules as `str` writes them.

        Raises:
            ValueError: a line is not a rule, or two rules have the same pair.
        """
        rules: dict[tuple[str, str], str] = {}
        for line in filter(None, map(str.strip, text.splitlines())):
            rule = _RULE.fullmatch(line)
            if rule is None or (rule["first"], rule["second"]) in rules:
                raise ValueError(f"a rule is one line such as 'mother o brother -> uncle', a pair once; got {line!r}")
            rules[rule["first"], rule["second"]] = rule["whole"]
        return cls(rules)

    def __str__(self) -> str:
        """Return the rules for people, one a line, those with the same result together."""
        ordered = sorted(self.rules.items(), key=lambda rule: (rule[1], rule[0]))
        return "\n".join(f"{first} o {second} -> {whole}" for (first, second), whole in ordered)

    @cached_property
    def relations(self) -> tuple[str, ...]:
        """All relations; those in which more rules end come first, and win where derivations are equally many."""
        ends = Counter(self.rules.values())
        return tuple(sorted({*ends, *(name for pair in self.rules for name in pair)}, key=lambda r: (-ends[r], r)))

    @cached_property
    def _table(self) -> Tensor:
        place = {name: number for number, name in enumerate(self.relations)}
        table_RRR = torch.zeros((len(place),) * 3, dtype=torch.float64)
        for (first, second), whole in self.rules.items():
            table_RRR[place[first], place[second], place[whole]] = 1
        return table_RRR

    def reduce(self, *paths: Sequence[str]) -> dict[str, float]:
        """Return what follows from ways between the same two: relation -> share of derivations, the largest first.

        Nothing follows from relations that no rule knows.
        """
        found_R = torch.zeros(len(self.relations), dtype=torch.float64)
        for path in paths:
            if path and all(name in self.relations for name in path):
                places = torch.tensor([[self.relations.index(name) for name in path]])
                found_R += derivations(self._table, places)[0]
        shares = (found_R / found_R.sum().clamp(min=1)).tolist()
        ranked = sorted(range(len(shares)), key=lambda number: -shares[number])
        return {self.relations[number]: shares[number] for number in ranked if shares[number]}

    def hop(self, view: RegistryView, max_hops: int = 4) -> Callable[[int, str], Sequence[Value]]:
        """Return a look-up for `ulm.memory.registry.answered`: what is known, or else what most derivations say.

        Args:
            view: what is known.
            max_hops: relations that a derivation may use.
        """

        def looked_up(entity: int, relation: str) -> Sequence[Value]:
            known = view.lookup(entity, relation)
            if known or relation not in self.relations:
                return known
            found = _following(view, entity, self, max_hops)
            return sorted(other for other, shares in found.items() if shares.get(relation, 0) > 0.5)

        return looked_up


def derived(
    view: RegistryView, one: int, other: int, table: Compositions | None = None, max_hops: int = 16
) -> dict[str, float]:
    """Return how the other one stands to one: relation -> share, the largest first; {} where that is unknown.

    What is known directly counts alone. Otherwise the shortest ways between the two from which anything follows are
    reduced by the table; without one, nothing follows.

    Raises:
        ValueError: there is no such entity.
    """
    for entity in (one, other):
        view.refuse_unknown(entity)
    one, other = view.representative(one), view.representative(other)
    known = [name for name, others in view.get_entity(one).relations.items() if other in others]
    if known or table is None:
        return {name: 1 / len(known) for name in known}
    return _following(view, one, table, max_hops).get(other, {})


def _following(view: RegistryView, start: int, table: Compositions, max_hops: int) -> dict[int, dict[str, float]]:
    """Return whom relations lead to from an entity, and how they stand to it: relation -> share.

    Of each, the shortest ways from which anything follows count. A way may pass an entity twice, but no relation of it.
    """
    start = view.representative(start)
    known: dict[int, list[tuple[str, int]]] = {}
    found: dict[int, dict[str, float]] = {}
    ways: list[tuple[tuple[int, str, int], ...]] = [()]
    for _ in range(max_hops):
        longer = []
        for way in ways:
            at = way[-1][2] if way else start
            if at not in known:
                others = ((relation, other) for relation in table.relations for other in view.lookup(at, relation))
                known[at] = [(relation, other) for relation, other in others if isinstance(other, int) and other != at]
            longer += [(*way, (at, *step)) for step in known[at] if (at, *step) not in way]
        ways = longer[:MOST_WAYS]
        ends: dict[int, dict[tuple[str, ...], None]] = {}
        for way in ways:
            if way[-1][2] != start and way[-1][2] not in found:
                ends.setdefault(way[-1][2], {})[tuple(relation for _, relation, _ in way)] = None
        found |= {other: shares for other, some in ends.items() if (shares := table.reduce(*some))}
    return found


def _batches(counts: Counter[tuple[tuple[str, ...], str]], names: Sequence[str]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return chains of equal length together: relations (N, K), relation end to end (N,), share of all chains (N,)."""
    place = {name: number for number, name in enumerate(names)}
    batches = []
    for length in sorted({len(path) for path, _ in counts}):
        some = [(path, whole, count) for (path, whole), count in counts.items() if len(path) == length]
        paths_NK = torch.tensor([[place[name] for name in path] for path, _, _ in some])
        whole_N = torch.tensor([place[whole] for _, whole, _ in some])
        batches.append((paths_NK, whole_N, torch.tensor([count / counts.total() for _, _, count in some])))
    return batches


def derivations(table_RRR: Tensor, paths_NK: Tensor) -> Tensor:
    """Return how many derivations lead from each chain to each relation, (N, R), over all orders of reduction.

    Args:
        table_RRR: probability that r1 o r2 is r3; what is missing to 1 is that of no rule.
        paths_NK: numbers of relations, int64.
    """
    R, K = len(table_RRR), paths_NK.shape[1]
    cells = {(at, at + 1): F.one_hot(paths_NK[:, at], R).to(table_RRR) for at in range(K)}
    for length in range(2, K + 1):
        for start in range(K - length + 1):
            end = start + length
            parts = [(cells[start, cut], cells[cut, end]) for cut in range(start + 1, end)]
            left_NCR, right_NCR = (torch.stack(side, 1) for side in zip(*parts, strict=True))
            cells[start, end] = torch.einsum("nca,ncb,abr->nr", left_NCR, right_NCR, table_RRR)
    return cells[0, K]
