"""A writer that is killed loses nothing that it was told is written, and leaves a file that others can read."""

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
registry = EntityRegistry(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 100_000):
    with registry.writing():
        entity = registry.get_or_create(f"thing {number}", origin=Origin("page"))
        registry.add_property(entity, "number", str(number), Origin("page"))
    print(number, flush=True)
"""


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_no_committed_write_is_lost(tmp_path: Path, kills: int) -> None:
    path, rng, told = tmp_path / "r.db", random.Random(kills), -1
    for _ in range(kills):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(told + 1)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(rng.random() * 0.1)
        child.kill()
        lines = [first, *child.stdout.read().split(b"\n")]
        child.wait()
        told = max([told, *(int(line) for line in lines if line.strip())])
        registry = EntityRegistry.load(path)
        assert registry.num_entities in (told + 1, told + 2), "one may be written whose writer could not say so"
        for entity in (told, rng.randrange(told + 1)):
            (found,) = registry.named(f"thing {entity}")
            assert registry.lookup(found, "number") == [str(entity)]
        told = registry.num_entities - 1
        registry.close()
