"""A million facts that no network was trained on, asked of a small one: it writes a look-up, the registry answers.

    python tests/benchmarks/million_facts.py experiments/policies/archive-agent --out runs/million

Persons, places and firms have names that no lesson has; a person has four facts, each one of thousands of values. A
question is about one fact; its answer is what stands behind the `=` that the network wrote. `alone` the network goes on
by itself; `shuffled` the registry says what it knows of the next person, if that is something else. The registry is
filled once and kept.
"""

import argparse
import random
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from swarm.prompt import STOP, agent_prompt
from swarm.stats import format_interval, rate_interval
from ulm.checkpoint import load_checkpoint
from ulm.decode.engine import Engine, GenerationRequest
from ulm.memory.registry import EntityRegistry, Origin, Relation, answered, mentions_of
from ulm.memory.registry.view import Value
from worlds.archive.town import Thing, Town, word

TOLD = {"lives_in": "place", "born_in": "place", "works_for": "firm", "teacher": "person"}
SHARES = {"person": 0.25, "place": 0.02, "firm": 0.02}
"""Entities of each type per fact."""

BATCH = 10_000
ROWS = 64


def names(count: int, words: int, rng: random.Random) -> list[str]:
    """Return so many different names that no lesson has."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(word(rng, True) for _ in range(words))] = None
    return list(found)


def made_up(facts: int, seed: int) -> tuple[dict[str, list[str]], list[dict[str, int]]]:
    """Return names by type, and of each person the place of each value among the names of its type."""
    rng = random.Random(seed)
    called = {kind: names(round(share * facts), 2 if kind == "person" else 3, rng) for kind, share in SHARES.items()}
    told = [{relation: rng.randrange(len(called[kind])) for relation, kind in TOLD.items()} for _ in called["person"]]
    return called, told


def filled(path: Path, called: dict[str, list[str]], told: Sequence[dict[str, int]]) -> EntityRegistry:
    """Return the registry of all facts; persons have the first numbers, in their order."""
    if path.exists():
        return EntityRegistry(path, read_only=True)
    part, origin = path.with_suffix(".part"), Origin("chronicle")
    part.unlink(missing_ok=True)
    registry, began_s = EntityRegistry(part), time.monotonic()
    for relation in TOLD:
        registry.declare(Relation(relation, functional=True))
    first = {"person": 1}
    for kind, some in called.items():
        for start in range(0, len(some), BATCH):
            with registry.writing():
                numbers = [registry.create(name, kind, origin=origin) for name in some[start : start + BATCH]]
            first.setdefault(kind, numbers[0])
    for start in range(0, len(told), BATCH):
        with registry.writing():
            for person, values in enumerate(told[start : start + BATCH], start + 1):
                for relation, value in values.items():
                    registry.add_relation(person, relation, first[TOLD[relation]] + value, origin)
    registry.close()
    part.rename(path)
    print(
        f"{len(TOLD) * len(told):,} facts written in {time.monotonic() - began_s:.0f} s, {path.stat().st_size:,} bytes"
    )
    return EntityRegistry(path, read_only=True)


def of_the_next(registry: EntityRegistry, persons: int, entity: int, relation: str) -> Sequence[Value]:
    """Return what is known of the first person after this one of whom something else is known."""
    own, other = registry.lookup(entity, relation), entity
    while (found := registry.lookup(other := other % persons + 1, relation)) == own:
        pass
    return found


def main() -> None:
    """Fill, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--facts", type=int, default=1_000_000)
    parser.add_argument("--asked", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    checkpoint = load_checkpoint(given.policy)
    engine = Engine(checkpoint.model, checkpoint.tokenizer)
    given.out.mkdir(parents=True, exist_ok=True)
    called, told = made_up(given.facts, given.seed)
    registry = filled(given.out / f"facts-{given.facts}-s{given.seed}.db", called, told)
    town, rng = Town(random.Random(given.seed), 4, False), random.Random(f"asked {given.seed}")
    prompts, wanted, look_ups = [], [], []
    for number, person in enumerate(rng.choices(range(len(told)), k=given.asked)):
        relation = rng.choice(list(TOLD))
        text = town.asked(Thing(person, "person", called["person"][person]), [relation])
        prompts.append(agent_prompt(f"asked q{number % 40} : {text}"))
        wanted.append(called[TOLD[relation]][told[person][relation]])
        look_ups.append(f"answer [0] : {relation} =")
    size = checkpoint.model.num_parameters()
    print(
        f"{size:,} parameters, {len(TOLD) * len(told):,} facts, {len(set(wanted)):,} values among {len(wanted):,} asked"
    )
    hops = {"registry": None, "shuffled": partial(of_the_next, registry, len(told))}
    for name in ("registry", "alone", "shuffled"):
        asks = [
            None if name == "alone" else partial(answered, registry, mentions=mentions_of(prompt), hop=hops[name])
            for prompt in prompts
        ]
        requests = [
            GenerationRequest(prompt, 0, 64, 0.0, stop=(STOP,), inline=ask)
            for prompt, ask in zip(prompts, asks, strict=True)
        ]
        cuts = pairwise([*range(0, len(requests), ROWS), len(requests)])
        texts = [result.text for start, end in cuts for result in engine.generate(requests[start:end])]
        right = [text.rpartition("=")[2].strip() == one for text, one in zip(texts, wanted, strict=True)]
        wrote = sum(text.startswith(one) for text, one in zip(texts, look_ups, strict=True)) / len(texts)
        print(f"{name:>8}: right {format_interval(rate_interval(right))}, look-ups as expected {wrote:.4f}", flush=True)


if __name__ == "__main__":
    main()
