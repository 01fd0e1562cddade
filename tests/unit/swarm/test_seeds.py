import subprocess
import sys

import pytest

from swarm.seeds import derive_seed


def test_place_and_order_matter() -> None:
    seeds = {
        derive_seed(1),
        derive_seed(1, "a"),
        derive_seed(1, "a", 2),
        derive_seed(1, 2, "a"),
        derive_seed(2, "a", 2),
    }
    assert len(seeds) == 5


def test_a_number_and_its_text_are_different_places() -> None:
    assert derive_seed(1, 2) != derive_seed(1, "2")


def test_seed_is_a_fixed_function() -> None:
    assert derive_seed(7, "act", 0, 3, "a1") == 7038612984108527394


@pytest.mark.process
def test_seed_does_not_depend_on_the_hash_seed() -> None:
    code = "from swarm.seeds import derive_seed; print(derive_seed(7, 'act', 0, 'a1'))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": str(i)}, capture_output=True, text=True, check=True
        ).stdout
        for i in range(3)
    }
    assert outputs == {f"{derive_seed(7, 'act', 0, 'a1')}\n"}
