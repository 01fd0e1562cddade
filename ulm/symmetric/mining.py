"""Rules found in answers: which paths of relations lead from whom a question asks of to what is right.

Paths are counted where nothing is said of what is asked, and kept where they are nearly always right (path ranking,
Lao et al. 2011, with a threshold in place of a regression).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from ulm.memory.registry.view import Value
from ulm.symmetric.timeline import Rule, Timeline

LONGEST = 3
"""Relations in a path, at most."""


class RuleMiner:
    """Counts paths over questions with their answers."""

    def __init__(self) -> None:
        self._right: dict[Rule, set[int]] = defaultdict(set)
        self._tried: Counter[Rule] = Counter()
        self._asked = 0

    def add(self, timeline: Timeline, entity: int, relation: str, right: Value) -> None:
        """Count the paths of one question, unless what it asks is said outright.

        Args:
            timeline: what is known then, without rules.
            entity: of whom something is asked.
            relation: what.
            right: the answer.
        """
        self._asked += 1
        if timeline.values(entity, relation):
            return
        ends: dict[tuple[str, ...], Value] = {}
        for path, end in _paths(timeline, entity, ()):
            ends.setdefault(path, end)
        for path, end in ends.items():
            rule = Rule(relation, path)
            self._tried[rule] += 1
            if end == right:
                self._right[rule].add(self._asked)

    def rules(self, support: int = 10, precision: float = 0.95) -> list[tuple[Rule, int, int]]:
        """Return rules with how often each was right and how often it led anywhere, the most useful first.

        Args:
            support: questions that a rule answers and those before it do not, at least.
            precision: share of right ends, at least.
        """
        found: list[tuple[Rule, int, int]] = []
        done: set[int] = set()
        order = sorted(self._right, key=lambda rule: (-len(self._right[rule]), len(rule.path), rule))
        for rule in order:
            right = self._right[rule]
            if len(right - done) >= support and len(right) >= precision * self._tried[rule]:
                found.append((rule, len(right), self._tried[rule]))
                done |= right
        return found


def _paths(timeline: Timeline, start: Value, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Value]]:
    """Yield paths with their ends, in the order in which `Timeline.follow` tries them."""
    for step in timeline.relations_of(start):
        for end in timeline.steps(start, step):
            yield (*path, step), end
            if len(path) + 1 < LONGEST:
                yield from _paths(timeline, end, (*path, step))
