"""The small files of a run folder: the experiment as it was given, and the manifest of where it was started."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from swarm.errors import SwarmError, first_line
from swarm.files import write_whole
from swarm.text import command

ModelT = TypeVar("ModelT", bound=BaseModel)

_EXPERIMENT, _MANIFEST = "experiment.yaml", "manifest.json"


def write_folder(run_dir: Path, experiment: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Write both files whole and durable, before the journal gets its header.

    Args:
        run_dir: a folder without them, or where a run was killed before it began.
        experiment: all settings.
        manifest: `base_dir`, `source` and whatever else is worth to know.

    Raises:
        SwarmError: one is there that no run wrote; no permission or no space.
    """
    try:
        read_manifest(run_dir)
        is_new = False
    except SwarmError:
        is_new = True
    try:
        _write_manifest(run_dir, manifest, is_new)
        write_whole(run_dir / _EXPERIMENT, yaml.safe_dump(dict(experiment), sort_keys=False), create=is_new)
    except FileExistsError as error:
        raise SwarmError(
            f"{run_dir} holds a file {Path(error.filename2).name} that no run wrote; choose another --out"
        ) from error
    except OSError as error:
        raise SwarmError(f"cannot write in {run_dir}: {error.strerror or error}") from error


def _write_manifest(run_dir: Path, manifest: Mapping[str, Any], create: bool = False) -> None:
    way = os.path.relpath(manifest["base_dir"], run_dir.resolve())
    write_whole(run_dir / _MANIFEST, json.dumps({**manifest, "base_from_here": way}, indent=1), create=create)


def read_experiment(run_dir: Path, model: type[ModelT]) -> ModelT:
    """Return what the run's experiment file says, physical settings included.

    Args:
        run_dir: the run folder.
        model: what checks it.

    Raises:
        SwarmError: it is missing, empty, damaged, or not for this version.
    """
    path = run_dir / _EXPERIMENT
    try:
        return model.model_validate(yaml.safe_load(_read(path)))
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise _damaged(path, ": ".join(filter(None, (".".join(map(str, wrong["loc"])), wrong["msg"])))) from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise _damaged(path, first_line(error)) from error


def read_manifest(run_dir: Path) -> dict[str, Any]:
    """Return the manifest; `base_dir` and `source` are in it.

    Raises:
        SwarmError: it is missing, empty or damaged.
    """
    path = run_dir / _MANIFEST
    try:
        manifest = json.loads(_read(path))
        return {**manifest, "base_dir": str(manifest["base_dir"]), "source": str(manifest["source"])}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {first_line(error)}") from error


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    if not text.strip("\0 \n"):  # what a power cut makes of a file that was not flushed
        raise _damaged(path, "it is empty")
    return text


def _damaged(path: Path, why: str) -> SwarmError:
    return SwarmError(
        f"{path} cannot be read ({why:.150}); restore it, or go on without it: "
        f"{command('run', 'FILE', '--out', path.parent)} with the experiment's own FILE"
    )


def base_dir_of(run_dir: Path) -> Path:
    """Return the folder that relative paths of the run's experiment start from, as recorded where it is not found.

    A project that was moved as a whole, its runs included, is found by the way from here to there.

    Raises:
        SwarmError: the manifest is missing or damaged.
    """
    manifest = read_manifest(run_dir)
    recorded = Path(manifest["base_dir"])
    if not recorded.is_dir() and isinstance(way := manifest.get("base_from_here"), str):
        moved = run_dir.resolve() / way
        if (moved / Path(manifest["source"]).name).is_file():
            return moved.resolve()
    return recorded


def move_base(run_dir: Path, base_dir: Path) -> None:
    """Record that the files of a run's experiment are in another folder now.

    Raises:
        SwarmError: there is no such folder, or the manifest cannot be read or written.
    """
    manifest = read_manifest(run_dir)
    if not base_dir.is_dir():
        raise SwarmError(f"there is no folder {base_dir}; name the one that the experiment's file is in")
    moved = {**manifest, "base_dir": str(base_dir.resolve()), "source": str(base_dir / Path(manifest["source"]).name)}
    try:
        _write_manifest(run_dir, moved)
    except OSError as error:
        raise SwarmError(f"cannot write in {run_dir}: {error.strerror or error}") from error


@contextmanager
def needing_base(run_dir: Path, base_dir: Path) -> Iterator[None]:
    """Say of what goes wrong in the `with` block that the recorded folder is not there, where that is so."""
    try:
        yield
    except SwarmError as error:
        if base_dir.is_dir() or type(error) is not SwarmError:
            raise
        raise SwarmError(
            f"{error}; the folder of this run's experiment, {base_dir}, is gone: if it was moved, "
            f"{command('resume', run_dir)} --base DIR tells the run where it is"
        ) from error
