"""Packages of somebody else, as pip would have installed them."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, name: str, source: str, entry_points: dict[str, dict[str, str]]) -> None:
    """Put a package of one module where Python finds it once the folder is on its path.

    Args:
        folder: what has to be on the path.
        name: of the package and of its module.
        source: of the module.
        entry_points: group -> name -> value.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = (
        "\n".join([f"[{group}]", *(f"{key} = {value}" for key, value in points.items())])
        for group, points in entry_points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups) + "\n")
