"""Are entities that are one, or of one kind, near each other by their vectors? And how long does a search take?

    python tests/benchmarks/entity_similar.py --out runs/similar [--entities 100000] [--seeds 1 2 3]

Nothing is trained. Each part is written to `--out` and not measured again.

- towns: each text of archive-v0 has entities of its own. Is another text's entity of the same thing the nearest, or
  among the ten nearest? Also of things that have a namesake, and of those that no other text calls by the same name.
- stories: words behind an article in real stories (shared/data/tinystories), with the words beside them. Every second
  mention of some of them gets a made-up name: is that the nearest? And synonyms, chosen before anything was measured.
- speed: a search among so many entities, and one that takes in a change first: median, 95th percentile, and the latter
  in CPU time, for machines that do something else, too; of the first one wall and CPU time.

Null controls: names alone, and neighbours that are another entity's.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarm.stats import rate_interval
from ulm.files import write_whole
from ulm.memory.registry import EntityRegistry, Origin, Relation
from ulm.memory.registry.vectors import WEIGHTS, WIDTH, EntityVectors
from worlds.archive.schema import RELATIONS
from worlds.archive.town import Town

sys.path.insert(0, str(Path(__file__).parent))
from bench_registry import fill, made_up

STORIES = Path(__file__).parents[3] / "shared" / "data" / "tinystories" / "tinystories_train_head.txt"
ARMS: Mapping[str, tuple[tuple[float, ...], int, bool]] = {
    "all": (WEIGHTS, WIDTH, False),
    "all, 64 wide": (WEIGHTS, 64, False),
    "neighbours alone": ((0.0, 0.0, 1.0), WIDTH, False),
    "null: names alone": ((1.0, 0.0, 0.0), WIDTH, False),
    "null: another's neighbours": (WEIGHTS, WIDTH, True),
}
"""Weights of names, type and neighbours; width; whether neighbours are shuffled."""

SYNONYMS = """mom mommy|mom mother|dad daddy|dad father|cat kitty|dog puppy|bunny rabbit|stone rock|home house|kid child
road street|forest woods|boat ship|gift present|store shop|path road|bike bicycle|mommy mother|daddy father|town village
lady woman|bug insect|sea ocean|hill mountain|jar pot|cake cookie|soup stew|frog toad|coat jacket|hat cap"""

KNOWN, SPLIT = 10, 60
"""Mentions that a noun has at least, and nouns of which every second mention is renamed."""


@dataclass(slots=True)
class Things:
    """Entities with what is said of them.

    Attributes:
        named: (name, type) of each. claims: (subject, relation, other one or text).
        same: of each, those that are the same.
        groups: what share of them is asked about: name -> those.
    """

    named: list[tuple[str, str]] = field(default_factory=list)
    claims: list[tuple[int, str, int | str]] = field(default_factory=list)
    same: dict[int, set[int]] = field(default_factory=dict)
    groups: dict[str, list[int]] = field(default_factory=dict)


def town_of(seed: int) -> Things:
    """Return what the documents of a town say, each text with entities of its own."""
    town, found, thing_of = Town(random.Random(seed), 40, True), Things(), list[int]()
    for document in town.documents():
        page, start = document.page, len(found.named)
        found.named += [(name, town.things[t].type) for name, t in zip(page.mentions, page.things, strict=True)]
        thing_of += page.things
        for one in page.claims:
            other = one.object + start if isinstance(one.object, int) else one.object
            found.claims.append((one.subject + start, one.relation, other))
    together = defaultdict(set)
    for number, thing in enumerate(thing_of):
        together[thing].add(number)
    found.same = {number: together[thing] - {number} for number, thing in enumerate(thing_of)}
    asked = [number for number, others in found.same.items() if others]
    name = [name for name, _ in found.named]
    found.groups = {
        "all": asked,
        "with a namesake": [n for n in asked if town.is_namesake(town.things[thing_of[n]])],
        "called otherwise": [n for n in asked if name[n] not in {name[other] for other in found.same[n]}],
    }
    return found


def stories_of(seed: int, file: Path) -> Things:
    """Return nouns of stories, some of them under two names."""
    rng, found, number = random.Random(seed), Things(), dict[str, int]()
    beside = re.findall(r"(?=\b(\w+) (?:the|a|an|his|her|their) (\w+)[ ,.]+(\w+))", file.read_text("utf-8").lower())
    counts = Counter(noun for _, noun, _ in beside)
    usual = [noun for noun, count in counts.items() if count >= 2 * KNOWN]
    renamed = {noun: made_up(rng, 7).lower() for noun in rng.sample(usual, SPLIT)}
    seen, told = Counter[str](), dict[tuple[int, str, str], None]()
    for before, noun, after in beside:
        if counts[noun] >= KNOWN:
            seen[noun] += 1
            name = renamed[noun] if noun in renamed and seen[noun] % 2 else noun
            one = number.setdefault(name, len(number))
            told |= {(one, "before", before): None, (one, "after", after): None}
    found.named, found.claims = [(name, "thing") for name in number], list(told)
    pairs = [pair.split() for line in SYNONYMS.splitlines() for pair in line.split("|")]
    renames = [[noun, name] for noun, name in renamed.items()]
    for some, what in ((pairs, "synonyms"), (renames, "renamed")):
        there = [[number[one] for one in pair] for pair in some if all(one in number for one in pair)]
        found.groups[what] = sorted({one for pair in there for one in pair})
        for one, other in there:
            found.same.setdefault(one, set()).add(other)
            found.same.setdefault(other, set()).add(one)
    return found


def registry_of(things: Things, rng: random.Random | None) -> tuple[EntityRegistry, list[int]]:
    """Return a registry of things and the number of each; with a generator everybody gets another's neighbours."""
    registry, place = EntityRegistry(), list(range(len(things.named)))
    if rng is not None:
        for type_ in sorted({type_ for _, type_ in things.named}):
            own = [n for n, (_, other) in enumerate(things.named) if other == type_]
            for one, other in zip(own, rng.sample(own, len(own)), strict=True):
                place[one] = other
    for name, one in RELATIONS.items():
        registry.declare(Relation.of(name, one.flags))
    with registry.writing():
        numbers = [registry.create(name, type_, origin=Origin("text")) for name, type_ in things.named]
        for subject, relation, other in things.claims:
            if isinstance(other, int):
                registry.add_relation(numbers[place[subject]], relation, numbers[place[other]], Origin("text"))
            else:
                registry.add_property(numbers[place[subject]], relation, other, Origin("text"))
    return registry, numbers


def measured(things: Things, seed: int) -> dict[str, dict[str, list[list[bool]]]]:
    """Return for each arm and group, whether the nearest is the same one, and whether one of the ten nearest is."""
    table: dict[str, dict[str, list[list[bool]]]] = {}
    for arm, (weights, width, is_shuffled) in ARMS.items():
        registry, numbers = registry_of(things, random.Random(seed) if is_shuffled else None)
        vectors, row = EntityVectors(registry, width, weights), table.setdefault(arm, {})
        for group, asked in things.groups.items():
            row[group] = [[], []]
            for one in asked:
                near = vectors.nearest(vectors.of(numbers[one]), things.named[one][1], 11, -1.0)
                hits = [n in {numbers[o] for o in things.same[one]} for n, _ in near if n != numbers[one]][:10]
                row[group][0].append(hits[:1] == [True])
                row[group][1].append(any(hits))
    return table


def speed(path: Path, entities: int, width: int, searches: int = 200) -> dict[str, list[float]]:
    """Return seconds of the first search, and of others ms: median, 95th percentile, and the latter of CPU time."""
    if not path.exists():
        fill(path.with_suffix(".part"), entities, random.Random(1))
        path.with_suffix(".part").rename(path)
    copy = EntityRegistry(path, read_only=True)
    copy.save(path.with_suffix(".copy"))
    registry, rng = EntityRegistry(path.with_suffix(".copy"), vector_width=width), random.Random(2)
    began_s, cpu_s = time.perf_counter(), time.process_time()
    registry.embedding(1)
    found = {"first search, s": [time.perf_counter() - began_s, time.process_time() - cpu_s]}

    def timed(before: Callable[[int], object]) -> list[float]:
        wall, cpu = list[float](), list[float]()
        for _ in range(searches):
            one = rng.randint(1, entities)
            before(one)
            began = time.perf_counter(), time.process_time()
            registry.find_similar_entities(one, "person")
            wall.append(1000 * (time.perf_counter() - began[0]))
            cpu.append(1000 * (time.process_time() - began[1]))
        return [statistics.median(wall), sorted(wall)[int(0.95 * len(wall))], sorted(cpu)[int(0.95 * len(cpu))]]

    found["search, ms"] = timed(lambda one: None)
    found["after a change, ms"] = timed(lambda one: registry.add_relation(one, "knows", rng.randint(1, entities)))
    registry.close()
    path.with_suffix(".copy").unlink()
    return found


def share(values: Sequence[bool]) -> str:
    """Return a share with its interval."""
    one = rate_interval(values)
    return f"{one.estimate:.3f} [{one.low:.3f}, {one.high:.3f}]"


def once(path: Path, measure: Callable[[], Any]) -> Any:
    """Return what was measured, now or before."""
    if not path.exists():
        write_whole(path, json.dumps(measure()))
    return json.loads(path.read_text("utf-8"))


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--stories", type=Path, default=STORIES, help="a text of stories")
    parser.add_argument("--entities", type=int, default=100_000, help="for speed; 0 leaves that out")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[int], Things]] = {"towns": town_of}
    if args.stories.is_file():
        parts["stories"] = lambda seed: stories_of(seed, args.stories)
    else:
        print(f"stories: left out, there is no {args.stories}")
    for part, make in parts.items():
        found = [
            once(args.out / f"{part}-{seed}.json", lambda make=make, seed=seed: measured(make(seed), seed))
            for seed in args.seeds
        ]
        for arm in ARMS:
            for group in found[0][arm]:
                first, ten = ([hit for one in found for hit in one[arm][group][at]] for at in (0, 1))
                print(f"{part:<8} {arm:<28} {group:<17} nearest {share(first)}  of ten {share(ten)}  n={len(ten)}")
    for width in (64, WIDTH) if args.entities else ():
        out, db = args.out / f"speed-{args.entities}-{width}.json", args.out / f"{args.entities}.db"
        what = once(out, lambda db=db, width=width: speed(db, args.entities, width))
        for name, values in what.items():
            print(f"{args.entities:,} entities, {width} wide, {name:<20}", " ".join(f"{value:.2f}" for value in values))


if __name__ == "__main__":
    main()
