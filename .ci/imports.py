"""Print which package imports which, with the number of importing modules: `make imports`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import grimp


def package(module: str) -> str:
    """Return the package a module counts to: its first two names, or `swarm (base)` for a module of the top folder."""
    names = module.split(".")
    if len(names) == 1 or Path(*names[:2]).is_dir():
        return ".".join(names[:2])
    return f"{names[0]} (base)"


def main() -> None:
    """Count and print."""
    graph = grimp.build_graph("swarm", "ulm", "worlds", cache_dir=None)
    arrows: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        found = {package(other) for other in graph.find_modules_directly_imported_by(module)}
        arrows.update((package(module), other) for other in found if other != package(module))
    rooms = sorted({name for pair in arrows for name in pair})
    for room in rooms:
        used = [f"{other} {count}" for (importer, other), count in sorted(arrows.items()) if importer == room]
        print(f"{room:<22} -> {', '.join(used) or '-'}")
    print(f"{len(graph.modules)} modules, {len(rooms)} packages, {len(arrows)} arrows, {sum(arrows.values())} imports")


if __name__ == "__main__":
    main()
