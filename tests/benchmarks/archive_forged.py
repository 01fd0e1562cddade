"""What is left in archive-v0 when a forged document is forgotten: nothing of its own, and all that others say.

`python tests/benchmarks/archive_forged.py RUN...` reads run folders that `archive.py` has written with one registry
for all. For each episode it asks everything that can be asked over one relation, about everybody, before the forged
document is taken back and after, and of a registry that has never read it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from swarm.config.experiment import ExperimentConfig
from swarm.run.episode import start_of
from ulm.memory.registry import UNKNOWN, EntityRegistry, Identity, answered
from ulm.memory.registry import Relation as Declared
from worlds.archive.schema import RELATIONS
from worlds.archive.town import Town
from worlds.archive.world import ArchiveWorld
from worlds.protocol import Claim

Said = tuple[int, str, list[Claim]]
"""(tick, agent, what it noted)."""


def episodes(run_dir: Path) -> Iterator[tuple[ArchiveWorld, list[Said], str | None]]:
    """Yield each episode that is over: its world, what was noted up to when a source was declared forged, and which."""
    said: dict[int, list[Said]] = {}
    forged: dict[int, str] = {}
    with (run_dir / "journal.jsonl").open(encoding="utf-8") as file:
        config = ExperimentConfig.model_validate(json.loads(next(file))["config"])
        for record in map(json.loads, file):
            found: dict[str, Any] = record["memory"].get("registry", {}) if record["kind"] == "tick" else {}
            number = record.get("episode")
            if found and number not in forged:
                said.setdefault(number, []).extend(
                    (record["tick"], agent, [Claim(*claim)]) for agent, *claim in found["claims"]
                )
                for _, source in found["forged"]:
                    forged[number] = source
            elif record["kind"] == "episode_end":
                options = ArchiveWorld.Options.model_validate(dict(config.world.options))
                world = ArchiveWorld(config.agents.count, options)
                world.reset(*start_of(config, number, 0))
                yield world, together(said.pop(number, [])), forged.get(number)


def together(said: Iterable[Said]) -> list[Said]:
    """Return what was noted, all of an agent in a tick at once, as it was committed."""
    found: dict[tuple[int, str], list[Claim]] = {}
    for tick, agent, claims in said:
        found.setdefault((tick, agent), []).extend(claims)
    return [(tick, agent, claims) for (tick, agent), claims in found.items()]


def told(said: Iterable[Said], without: str | None = None) -> EntityRegistry:
    """Return a registry of what was noted."""
    registry = EntityRegistry(identity=Identity.load())
    for name, one in RELATIONS.items():
        registry.declare(Declared.of(name, one.flags))
    for tick, agent, claims in said:
        registry.note([claim for claim in claims if claim.source != without], agent, tick)
    return registry


def answers(registry: EntityRegistry, town: Town) -> list[str]:
    """Return what is answered to all questions over one relation."""
    found = []
    for thing in town.things:
        who = f"[{thing.name}]" + (f" trade {thing.trade}" if thing.trade else "")
        asked = (name for name, relation in RELATIONS.items() if relation.domain == thing.type)
        found += [(answered(registry, f"{who} : {name} =", {}) or "").strip() for name in asked]
    return found


def main() -> None:
    """Ask, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    count: Counter[str] = Counter()
    for run_dir in parser.parse_args().runs:
        for world, said, source in episodes(run_dir):
            read = source is not None and any(one.source == source for _, _, claims in said for one in claims)
            count["episodes"] += 1
            count["episodes in which the forged document had been read when it was declared so"] += read
            if source is None or not read:
                continue
            registry, never = told(said), answers(told(said, without=source), world.town)
            before = answers(registry, world.town)
            registry.forget(source)
            for was, is_now, never_was in zip(before, answers(registry, world.town), never, strict=True):
                count["questions"] += 1
                count["answered otherwise than if it had never been read"] += is_now != never_was
                if was == never_was != UNKNOWN:
                    count["answers that others support"] += 1
                    count["of them kept"] += is_now == was
                elif was != never_was:
                    count["answers that it alone supports, or prevents"] += 1
                    count["of them left"] += is_now == was
    for name, number in count.items():
        print(f"{number:8,d} {name}")


if __name__ == "__main__":
    main()
