"""Public names that are loaded on first use: all are there, and no others."""

from __future__ import annotations

from importlib import import_module

import pytest


@pytest.mark.parametrize("package", ["swarm", "ulm", "ulm.engram", "ulm.hf", "worlds"])
def test_every_public_name_is_found_where_the_package_says(package: str) -> None:
    module = import_module(package)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing
