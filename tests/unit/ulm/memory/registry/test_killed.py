"""Writers that are killed lose nothing that they were told is written, and make nothing twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ulm.memory.registry import EntityRegistry

WRITER = """
import sys
from pathlib import Path
from ulm.memory.registry import EntityRegistry, Origin
registry, origin = EntityRegistry(Path(sys.argv[1])), Origin(sys.argv[3])
for number in range(int(sys.argv[2]), 100_000):
    with registry.writing():
        entity = registry.get_or_create(f"thing {number}", origin=origin)
        registry.add_property(entity, "number", str(number), origin)
    print(number, flush=True)
"""


@pytest.mark.process
@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_of_two_writers_that_are_killed_nothing_is_lost_and_nothing_made_twice(tmp_path: Path, rounds: int) -> None:
    path, rng, start = tmp_path / "r.db", random.Random(rounds), 0
    told: dict[str, int] = {}
    for turn in range(rounds):
        command = [sys.executable, "-c", WRITER, str(path), str(start)]
        children = {f"{turn} {n}": subprocess.Popen([*command, f"{turn} {n}"], stdout=subprocess.PIPE) for n in (1, 2)}
        lines = {name: [child.stdout.readline()] for name, child in children.items() if child.stdout}
        for child in rng.sample(list(children.values()), 2):
            time.sleep(rng.random() * 0.1)
            child.kill()
        for name, child in children.items():
            lines[name] += child.communicate()[0].split(b"\n")
            told[name] = max(int(line) for line in lines[name] if line.strip())
        registry = EntityRegistry.load(path)
        new = [registry.get_entity(entity) for entity in registry.store if entity > start]
        assert [one.properties["number"] for one in new] == [(str(start + n),) for n in range(len(new))]
        for entity in rng.sample(range(1, start + 1), min(start, 20)):
            assert registry.lookup(entity, "number") == [str(entity - 1)]
        for name in children:  # a writer may have written one more, which it could not say
            wrote = [int(one.properties["number"][0]) for one in new if name in one.sources]
            assert wrote == list(range(start, max(wrote) + 1))
            assert told[name] <= max(wrote) <= told[name] + 1
        start += len(new)
        registry.close()
