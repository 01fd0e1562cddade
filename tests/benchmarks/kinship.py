"""Kinship: what is learned from chains of two and three relations, asked of chains of three to nine (CLUTRR).

`python tests/benchmarks/kinship.py --data FOLDER` reads `bench_1.2,1.3_train.csv` there, learns a table of compositions
from its chains (`ulm.symmetric.compositions`) and a list of sentence patterns from its stories, prints both, and runs
every `bench_*_test.csv` of the folder, in three ways. The table reduces the file's chain; facts of the file's graph go
into an `EntityRegistry`, and `derived` answers; so do facts that the patterns read in the story's text alone. Null
control: the results of the table's rules are permuted. `--choose` runs no test: it prints what settings are worth on a
tenth of the chains of the training file (all stories of a chain are held out together).

CLUTRR (Sinha et al. 2019, arXiv:1908.06177) is CC BY-NC: what is learned from it is not shipped.
"""

from __future__ import annotations

import argparse
import ast
import csv
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from swarm.stats import format_interval, rate_interval
from ulm.memory import EntityRegistry
from ulm.memory.registry import Origin
from ulm.symmetric.compositions import Compositions, derived

TRAINING = "bench_1.2,1.3_train.csv"
_NAME = re.compile(r"\[([^\]]+)\]")

Fact = tuple[str, str, str]
"""Of whom, relation, who that is: (Ann, mother, Bea)."""


class Story(NamedTuple):
    """A row.

    Attributes:
        text: sentences with names in brackets.
        chain: relations, as the graph lists them.
        facts: the same with names.
        asked: names. answer: relation of the second to the first.
    """

    text: str
    chain: tuple[str, ...]
    facts: tuple[Fact, ...]
    asked: tuple[str, str]
    answer: str


def read(path: Path) -> list[Story]:
    """Return the rows of a file."""
    if not path.is_file():
        sys.exit(f"{path} is missing; --data is a folder with CLUTRR's bench_*.csv files")
    with path.open(encoding="utf-8", newline="") as file:
        return [_story(row) for row in csv.DictReader(file)]


def _story(row: dict[str, str]) -> Story:
    names = [one.split(":")[0] for one in row["genders"].split(",")]
    edges = list(zip(ast.literal_eval(row["story_edges"]), ast.literal_eval(row["edge_types"]), strict=True))
    facts = tuple((names[one], relation, names[other]) for (one, other), relation in edges)
    chain = tuple(relation for _, relation in edges)
    return Story(row["story"], chain, facts, ast.literal_eval(row["query"]), row["target"])


class Patterns:
    """Sentences with their two names masked, and the relation of these that stories with a known graph show."""

    def __init__(self, stories: Iterable[Story]) -> None:
        shown: dict[str, Counter[tuple[str, bool]]] = defaultdict(Counter)
        for story in stories:
            graph = {(one, other): relation for one, relation, other in story.facts}
            for pattern, names in _sentences(story.text):
                for ends, turned in ((names, False), (names[::-1], True)):
                    if ends in graph:
                        shown[pattern][graph[ends], turned] += 1
        self.meaning = {pattern: counts.most_common(1)[0][0] for pattern, counts in sorted(shown.items())}

    def facts(self, text: str) -> list[Fact]:
        """Return what a story says; sentences of no known pattern say nothing."""
        found = []
        for pattern, (first, second) in _sentences(text):
            if pattern in self.meaning:
                relation, turned = self.meaning[pattern]
                found.append((second, relation, first) if turned else (first, relation, second))
        return found

    def unknown(self, text: str) -> int:
        """Return how many sentences have no known pattern."""
        return sum(pattern not in self.meaning for pattern, _ in _sentences(text))


def _sentences(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return sentences with names masked, and the names."""
    parts = re.split(r"(?<=\.)\s+", text.strip())
    return [(_NAME.sub("_", part), tuple(_NAME.findall(part))) for part in parts if len(_NAME.findall(part)) == 2]


def best(found: dict[str, float]) -> str | None:
    """Return the relation that most derivations lead to."""
    return next(iter(found), None)


def by_registry(facts: Sequence[Fact], asked: tuple[str, str], table: Compositions) -> str | None:
    """Note facts in a registry and ask it; who has the same name in a story is taken for one."""
    registry, origin, ids = EntityRegistry(), Origin("story"), dict[str, int]()
    with registry.writing():
        for one, relation, other in facts:
            for name in (one, other):
                ids[name] = ids[name] if name in ids else registry.create(name, "person", "story", origin)
            registry.add_relation(ids[one], relation, ids[other], origin)
    answer = best(derived(registry, ids[asked[0]], ids[asked[1]], table)) if {*asked} <= {*ids} else None
    registry.close()
    return answer


def permuted(table: Compositions, seed: int) -> Compositions:
    """Return the null control: the same pairs with each other's results."""
    results = list(table.rules.values())
    random.Random(f"permuted {seed}").shuffle(results)
    return Compositions(dict(zip(table.rules, results, strict=True)))


def learned(stories: Sequence[Story], seed: int, sparsity: float = 0.1) -> Compositions:
    """Return the table of some stories."""
    return Compositions.learn([(story.chain, story.answer) for story in stories], seed=seed, sparsity=sparsity)


def held_out(stories: Sequence[Story], seed: int) -> tuple[list[Story], list[Story]]:
    """Return stories to learn from, and those of a tenth of the chains."""
    chains = sorted({story.chain for story in stories})
    apart = set(random.Random(f"held out {seed}").sample(chains, len(chains) // 10))
    return [one for one in stories if one.chain not in apart], [one for one in stories if one.chain in apart]


def rate(said: Sequence[str | None], stories: Sequence[Story]) -> str:
    """Return the share of right answers with its interval."""
    return format_interval(rate_interval([one == story.answer for one, story in zip(said, stories, strict=True)]))


def choose(stories: Sequence[Story], seeds: Sequence[int]) -> None:
    """Print what settings are worth on held-out chains of the training file."""
    for sparsity in (0.0, 0.01, 0.1, 1.0):
        for seed in seeds:
            some, apart = held_out(stories, seed)
            table = learned(some, seed, sparsity)
            right = rate([best(table.reduce(one.chain)) for one in apart], apart)
            print(f"sparsity {sparsity}, seed {seed}: {len(table.rules)} rules, {right}, n = {len(apart)}", flush=True)
    for seed in seeds:
        some, apart = held_out(stories, seed)
        table, patterns = learned(some, seed), Patterns(some)
        said = [by_registry(patterns.facts(one.text), one.asked, table) for one in apart]
        print(f"from the story, seed {seed}: {rate(said, apart)}, n = {len(apart)}", flush=True)


def test(path: Path, tables: Sequence[tuple[int, Compositions]], patterns: Patterns) -> None:
    """Print one file's figures under every seed; the text is read once."""
    stories = read(path)
    facts = [patterns.facts(story.text) for story in stories]
    exact = sum(sorted(some) == sorted(story.facts) for some, story in zip(facts, stories, strict=True))
    hops = sorted({len(story.chain) for story in stories})
    loops = sum(len({name for one in story.facts for name in one[::2]}) <= len(story.chain) for story in stories)
    print(
        f"\n{path.name}: {hops} hops, n = {len(stories)}; stories with fewer persons than a chain has {loops}, read "
        f"without an error {exact}, sentences of no known pattern {sum(patterns.unknown(one.text) for one in stories)}"
    )
    for seed, table in tables:
        null = permuted(table, seed)
        rows = {
            "chain, as the file lists it": [best(table.reduce(story.chain)) for story in stories],
            "from the graph": [by_registry(one.facts, one.asked, table) for one in stories],
            "from the story": [by_registry(one, story.asked, table) for one, story in zip(facts, stories, strict=True)],
            "null control: chain, permuted": [best(null.reduce(story.chain)) for story in stories],
            "null control: graph, permuted": [by_registry(one.facts, one.asked, null) for one in stories],
        }
        for name, said in rows.items():
            print(f"  seed {seed} {name:<30} {rate(said, stories)}", flush=True)


def main() -> None:
    """Learn, print, test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--choose", action="store_true", help="settings on held-out training chains; no test")
    args = parser.parse_args()
    stories = read(args.data / TRAINING)
    if args.choose:
        choose(stories, args.seeds)
        return
    patterns = Patterns(stories)
    tables = [(seed, learned(stories, seed)) for seed in args.seeds]
    for pattern, (relation, turned) in patterns.meaning.items():
        print(f"{pattern:<40} {'second' if turned else 'first'} has the other as {relation}")
    for number, (seed, table) in enumerate(tables):
        same = number and table == tables[0][1]
        print(f"\nseed {seed}: {len(table.rules)} rules{', the same' if same else f'{chr(10)}{table}'}")
    for path in sorted(args.data.glob("bench_*_test.csv")):
        test(path, tables, patterns)


if __name__ == "__main__":
    main()
