"""Public names of a package that are loaded on first use, so that importing the package costs nothing."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def names_from(package: str, homes: dict[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Args:
        package: its name.
        homes: module below the package -> the names that it has, between spaces.
    """
    modules = {name: f"{package}.{module}" for module, names in homes.items() for name in names.split()}

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return load
