"""The experiments that come with the package, and how a name on the command line becomes a file."""

import re
from pathlib import Path

from swarm.errors import SwarmError, did_you_mean
from swarm.files import path_in


def shipped_folder() -> Path:
    """Return the folder of the shipped experiments: inside an installed package, beside it in a checkout."""
    inside, beside = Path(__file__).parents[1] / "shipped", Path(__file__).parents[2] / "experiments"
    return inside if inside.is_dir() else beside


def is_shipped(file: Path) -> bool:
    """Return whether a file is one of the installed package's own, beside which nothing should be written."""
    folder = shipped_folder()
    return folder.name == "shipped" and file.resolve().parent == folder.resolve()


def maker_of(result: Path, beside: Path) -> Path | None:
    """Return the training file in a folder that writes a checkpoint or an adapter, None where no file says so."""
    says = re.compile(r"^out: *(\S+)", re.MULTILINE)
    files = [file for file in sorted(beside.glob("*.y*ml")) if file.is_file()]
    outs = ((file, says.search(file.read_text(encoding="utf-8", errors="replace"))) for file in files)
    return next((file for file, out in outs if out and path_in(beside, out[1]).resolve() == result.resolve()), None)


def find_file(file: Path) -> Path:
    """Return the file that a user means: an existing path, or else a shipped experiment by its name.

    Args:
        file: a path such as `experiments/puzzle.yaml`, or a name such as `puzzle`.

    Raises:
        SwarmError: a name without a file of that name; the line has the nearest one. A missing path is returned as it
            is: whoever reads it says what is beside it.
    """
    if file.exists() or file.name != str(file) or file.suffix:
        return file
    shipped = {path.stem: path for path in sorted(shipped_folder().glob("*.yaml"))}
    if file.name in shipped:
        return shipped[file.name]
    hint = did_you_mean(file.name, shipped, f"; shipped: {', '.join(shipped)}")
    raise SwarmError(f"{file}: no such file, and no shipped experiment of that name{hint}")
