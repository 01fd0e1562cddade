"""Print which package imports which, how many statements each has, and which files are long: `make sizes`."""

import ast
from collections import Counter
from pathlib import Path

import grimp

LONG_FILE = 450
TOP = ("swarm", "ulm", "worlds")


def package(module: str) -> str:
    """Return the package a module counts to: its first two names, or `swarm (base)` for a module of the top folder."""
    names = module.split(".")
    if len(names) == 1 or Path(*names[:2]).is_dir():
        return ".".join(names[:2])
    return f"{names[0]} (base)"


def num_statements(source: str) -> int:
    """Return how many statements a file has; docstrings, under fields and classes too, are not counted."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]
    return sum(
        not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str))
        for node in found
    )


def main() -> None:
    """Count and print."""
    graph = grimp.build_graph(*TOP, cache_dir=None)
    arrows: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        found = {package(other) for other in graph.find_modules_directly_imported_by(module)}
        arrows.update((package(module), other) for other in found if other != package(module))
    files = {file: file.read_text(encoding="utf-8") for top in TOP for file in sorted(Path(top).rglob("*.py"))}
    sizes: Counter[str] = Counter()
    for file, source in files.items():
        sizes[package(".".join(file.with_suffix("").parts).removesuffix(".__init__"))] += num_statements(source)
    for room in sorted(sizes):
        used = [f"{other} {count}" for (importer, other), count in sorted(arrows.items()) if importer == room]
        print(f"{room:<22} {sizes[room]:>5} statements -> {', '.join(used) or '-'}")
    print(f"{len(graph.modules)} modules, {len(sizes)} packages, {len(arrows)} arrows, {sum(arrows.values())} imports")
    print(f"{sum(sizes.values())} statements without docstrings")
    for file, source in files.items():
        if (lines := source.count("\n")) > LONG_FILE:
            print(f"long: {file} has {lines} lines, over {LONG_FILE}")


if __name__ == "__main__":
    main()
