"""How fast the entity registry is with a million entities: finding, deciding who is meant, writing, opening.

    python tests/benchmarks/bench_registry.py --out runs/registry.db --names ../shared/data/names

Names are drawn from given names (files of one a line, or 32,032 made-up ones) and made-up surnames, so many are shared.
Each entity is an individual of a page of its own; three facts an entity. Filling goes on where it was interrupted.
Prints for exact names, names with one typing error (is the right entity among the candidates?), decisions and durable
writes the median and the 95th percentile, of wall time and of the process's own; beside each write a bare fsync, and a
linear scan over 100,000 names.
"""

import argparse
import os
import random
import statistics
import string
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rapidfuzz import process
from rapidfuzz.distance import OSA

from ulm.memory.registry import EntityRegistry, Origin, Relation
from ulm.memory.registry.names import normalised

sys.path.insert(0, str(Path(__file__).parents[1]))
from fakes.identity import plain_identity

RELATIONS = [
    Relation("works_for", functional=True, inverse="employs"),
    Relation("knows", symmetric=True),
    Relation("trade", functional=True, is_property=True),
]
TRADES = ["smith", "baker", "weaver", "miller", "clerk"]
BATCH = 10_000
ROUNDS = 500


def given_names(folder: Path | None) -> list[str]:
    """Return given names."""
    files = sorted(folder.glob("*.txt")) if folder else []
    found = [line.strip() for file in files if file.name != "SOURCE.txt" for line in file.read_text().splitlines()]
    rng = random.Random(1)
    return [name for name in found if name.isalpha()] or [made_up(rng, 5) for _ in range(32_032)]


def made_up(rng: random.Random, letters: int) -> str:
    """Return a word that can be said."""
    word = "".join(rng.choice("bdfgklmnprstvz" if place % 2 else "aeiou") for place in range(letters))
    return word.capitalize()


def mistyped(name: str, rng: random.Random) -> str:
    """Return a name with one typing error in a letter."""
    places = [place for place, letter in enumerate(name) if letter.isalpha()]
    at, letter = rng.choice(places), rng.choice(string.ascii_lowercase)
    wrong = rng.choice(
        [name[:at] + name[at + 1 :], name[:at] + letter + name[at:], name[:at] + letter + name[at + 1 :]]
    )
    return wrong if wrong.split() and normalised(wrong) != normalised(name) else mistyped(name, rng)


def drawn(asked: argparse.Namespace) -> list[str]:
    """Return the names of all entities."""
    rng = random.Random(asked.seed)
    given, surnames = given_names(asked.names), [made_up(rng, rng.randint(5, 8)) for _ in range(30_000)]
    return [f"{rng.choice(given)} {rng.choice(surnames)}" for _ in range(asked.entities)]


def fill(path: Path, names: list[str]) -> None:
    """Write so many entities, but for those that an interrupted run has written."""
    registry, began_s = EntityRegistry(path), time.perf_counter()
    for relation in RELATIONS:
        registry.declare(relation)
    for start in range(sum(1 for _ in registry.store), len(names), BATCH):
        rng = random.Random(start)
        with registry.writing():
            for number in range(start, min(start + BATCH, len(names))):
                origin = Origin(f"page {number}", "a0", number)
                entity = registry.create(names[number], "person", f"page {number}", origin)
                registry.add_property(entity, "trade", rng.choice(TRADES), origin)
                registry.add_relation(entity, "knows", rng.randint(1, entity), origin)
                registry.add_relation(entity, "works_for", rng.randint(1, entity), origin)
        if start % (10 * BATCH) == 0:
            print(f"  {start + BATCH:,} entities after {time.perf_counter() - began_s:.0f} s", flush=True)
    registry.close()


def timed(what: str, calls: list[Callable[[], object]], beside: Callable[[], object] | None = None) -> list[object]:
    """Print how long calls take, and what happens beside each; return what they return."""
    took, own, other, found = [], [], [], []
    for call in calls:
        began_s, own_s = time.perf_counter(), time.process_time()
        found.append(call())
        took.append(time.perf_counter() - began_s)
        own.append(time.process_time() - own_s)
        if beside is not None:
            began_s = time.perf_counter()
            beside()
            other.append(time.perf_counter() - began_s)
    told = [f"{of_times(took)} ({of_times(own)} of the process)", *([f"fsync {of_times(other)}"] if other else [])]
    print(f"{what:>34}: {'; '.join(told)}", flush=True)
    return found


def of_times(seconds: list[float]) -> str:
    """Return median and 95th percentile."""
    ordered = sorted(1000 * one for one in seconds)
    return f"median {statistics.median(ordered):.3f}, p95 {ordered[int(0.95 * len(ordered))]:.3f} ms"


def main() -> None:
    """Fill a registry and measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--names", type=Path)
    parser.add_argument("--entities", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    names = drawn(asked)
    fill(asked.out, names)
    size = asked.out.stat().st_size
    print(
        f"{asked.entities:,} entities, {3 * asked.entities:,} facts: {size / 1e6:.0f} MB, {size / len(names):.0f} each"
    )
    began_s = time.perf_counter()
    registry = EntityRegistry(asked.out, identity=plain_identity())
    print(f"{'open':>34}: {time.perf_counter() - began_s:.3f} s")
    rng = random.Random(asked.seed + 1)
    chosen = rng.sample(range(1, len(names) + 1), ROUNDS)  # numbers of entities begin with 1
    found = timed("exact name", [lambda e=e: registry.named(names[e - 1]) for e in chosen])  # type: ignore[misc]
    assert all(e in some for e, some in zip(chosen, found, strict=True))  # type: ignore[operator]
    wrong = [mistyped(names[e - 1], rng) for e in chosen]
    found = timed("candidates, one typing error", [lambda n=n: registry.like(n) for n in wrong])  # type: ignore[misc]
    right = sum(e in some for e, some in zip(chosen, found, strict=True))  # type: ignore[operator]
    print(f"{'right one among them':>34}: {right / ROUNDS:.3f} of {ROUNDS}")
    origins = [Origin(f"new page {rng.random()}") for _ in chosen]
    with (asked.out.parent / "fsync").open("wb") as file:
        bare = lambda: (file.write(b"x" * 4096), file.flush(), os.fsync(file.fileno()))  # noqa: E731
        timed(
            "who is meant, and a durable write",
            [
                lambda n=n, o=o: registry.resolve(n, "person", o.source, (), o)
                for n, o in zip(wrong, origins, strict=True)
            ],  # type: ignore[misc]
            bare,
        )
        write = registry.add_property
        timed("durable write of a fact", [lambda e=e: write(e, "trade", "smith") for e in chosen], bare)  # type: ignore[misc]
    scanned = [normalised(name) for name in names[:100_000]]
    timed(
        "linear scan of 100,000 names",
        [lambda n=n: process.extract(normalised(n), scanned, scorer=OSA.distance, limit=5) for n in wrong[:20]],  # type: ignore[misc]
    )


if __name__ == "__main__":
    main()
