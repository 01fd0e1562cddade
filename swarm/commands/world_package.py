"""Writes the package that `swarm new world` starts: the files of `world_template`, with the names filled in."""

import importlib.util
import keyword
import re
import sys
from pathlib import Path
from string import Template

from swarm.errors import SwarmError
from ulm.files import TakenError, whole_folder

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


def write_world_package(name: str, folder: Path) -> Path:
    """Write a package with the world `NAME-v0`.

    Args:
        name: lower-case words with hyphens.
        folder: where to, a new or an empty folder.

    Returns:
        `folder`.

    Raises:
        SwarmError: the name is bad or taken, the folder holds something or cannot be written.
    """
    package = _package_name(name)
    names = {
        "name": name,
        "package": package,
        "id": f"{name}-v0",
        "class": "".join(word.capitalize() for word in name.split("-")),
    }
    template = Path(__file__).with_name("world_template")
    try:
        with whole_folder(folder) as fresh:
            for source in filter(Path.is_file, template.rglob("*.txt")):
                place = source.relative_to(template).as_posix().removesuffix(".txt")
                target = fresh / place.replace("package/", f"{package}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(Template(source.read_text(encoding="utf-8")).substitute(names), encoding="utf-8")
    except TakenError as error:
        raise SwarmError(f"{error} with --out, or another name") from error
    except OSError as error:
        raise SwarmError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def _package_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise SwarmError(f"{name!r:.60} is no name for a world; use lower-case words and hyphens, like treasure-hunt")
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or package in sys.stdlib_module_names or importlib.util.find_spec(package):
        raise SwarmError(f"there is a Python module {package}, which a package would hide; choose another name")
    from worlds.registry import available

    if f"{name}-v0" in available():
        raise SwarmError(f"there is a world {name}-v0; choose another name")
    return package
