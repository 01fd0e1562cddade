"""What tests with real Ray share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """One Ray for a module, with two CPUs whatever the machine has; work leaves a Ray that it did not start."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    torch.set_num_threads(1)
    yield
    ray.shutdown()
