"""How fast the entity registry is with a million entities: finding, deciding who is meant, writing, opening.

    python tests/benchmarks/bench_registry.py --out runs/registry.db

Names are drawn from 32,032 given names (shared/data/names, or made up where it is missing) and made-up surnames, so
many are shared. Each entity is an individual of a page of its own; three facts an entity. Prints for exact names,
names with one typing error (is the right entity among the candidates?), decisions and durable writes the median and
the 95th percentile; beside them a bare fsync of as many bytes, and a linear scan over 100,000 names.
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

NAMES = Path(__file__).parents[3] / "shared" / "data" / "names"
RELATIONS = [
    Relation("works_for", functional=True, inverse="employs"),
    Relation("knows", symmetric=True),
    Relation("trade", functional=True, is_property=True),
]
TRADES = ["smith", "baker", "weaver", "miller", "clerk"]
BATCH = 10_000
ROUNDS = 500


def given_names() -> list[str]:
    """Return given names."""
    files = sorted(NAMES.glob("*.txt")) if NAMES.is_dir() else []
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


def fill(path: Path, count: int, rng: random.Random) -> tuple[dict[int, str], float]:
    """Write so many entities; return their names and the seconds that it took."""
    registry = EntityRegistry(path)
    for relation in RELATIONS:
        registry.declare(relation)
    given, names, began_s = given_names(), {}, time.perf_counter()
    surnames = [made_up(rng, rng.randint(5, 8)) for _ in range(30_000)]
    for start in range(0, count, BATCH):
        with registry.writing():
            for number in range(start, min(start + BATCH, count)):
                name, origin = f"{rng.choice(given)} {rng.choice(surnames)}", Origin(f"page {number}", "a0", number)
                entity = registry.create(name, "person", f"page {number}", origin)
                names[entity] = name
                registry.add_property(entity, "trade", rng.choice(TRADES), origin)
                registry.add_relation(entity, "knows", rng.randint(1, entity), origin)
                registry.add_relation(entity, "works_for", rng.randint(1, entity), origin)
        if start % (10 * BATCH) == 0:
            print(f"  {start + BATCH:,} entities in {time.perf_counter() - began_s:.0f} s", flush=True)
    registry.close()
    return names, time.perf_counter() - began_s


def timed(what: str, calls: list[Callable[[], object]]) -> list[object]:
    """Print how long calls take; return what they return."""
    took, found = [], []
    for call in calls:
        began_s = time.perf_counter()
        found.append(call())
        took.append(1000 * (time.perf_counter() - began_s))
    took.sort()
    print(
        f"{what:>34}: median {statistics.median(took):8.3f} ms, p95 {took[int(0.95 * len(took))]:8.3f} ms", flush=True
    )
    return found


def main() -> None:
    """Fill a registry and measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--entities", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    asked.out.unlink(missing_ok=True)
    names, took_s = fill(asked.out, asked.entities, rng)
    size = asked.out.stat().st_size
    print(f"{asked.entities:,} entities, {3 * asked.entities:,} facts: {took_s:.0f} s, {size / 1e6:.0f} MB")
    began_s = time.perf_counter()
    registry = EntityRegistry(asked.out, identity=plain_identity())
    print(f"{'open':>34}: {time.perf_counter() - began_s:.3f} s")
    chosen = rng.sample(sorted(names), ROUNDS)
    found = timed("exact name", [lambda e=e: registry.named(names[e]) for e in chosen])  # type: ignore[misc]
    assert all(e in some for e, some in zip(chosen, found, strict=True))  # type: ignore[operator]
    wrong = [mistyped(names[e], rng) for e in chosen]
    found = timed("candidates, one typing error", [lambda n=n: registry.like(n) for n in wrong])  # type: ignore[misc]
    right = sum(e in some for e, some in zip(chosen, found, strict=True))  # type: ignore[operator]
    print(f"{'right one among them':>34}: {right / ROUNDS:.3f} of {ROUNDS}")
    pages = [Origin(f"new page {number}") for number in range(ROUNDS)]
    timed(
        "who is meant, and a durable write",
        [lambda n=n, o=o: registry.resolve(n, "person", o.source, (), o) for n, o in zip(wrong, pages, strict=True)],  # type: ignore[misc]
    )
    timed("durable write of a fact", [lambda e=e: registry.add_property(e, "trade", "smith") for e in chosen])  # type: ignore[misc]
    with (asked.out.parent / "fsync").open("wb") as file:
        timed("bare fsync of 4 kB", [lambda: (file.write(b"x" * 4096), file.flush(), os.fsync(file.fileno()))] * ROUNDS)
    scanned = {entity: normalised(names[entity]) for entity in sorted(names)[:100_000]}
    timed(
        "linear scan of 100,000 names",
        [lambda n=n: process.extract(normalised(n), scanned, scorer=OSA.distance, limit=5) for n in wrong[:20]],  # type: ignore[misc]
    )


if __name__ == "__main__":
    main()
