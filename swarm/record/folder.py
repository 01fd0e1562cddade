"""The small files of a run folder: the experiment as it was given, and the manifest of where it was started."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from swarm.errors import SwarmError
from swarm.files import write_whole

_EXPERIMENT, _MANIFEST = "experiment.yaml", "manifest.json"


def write_folder(run_dir: Path, experiment: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Write both files whole and durable, before the journal gets its header.

    Raises:
        SwarmError: no permission or no space.
    """
    try:
        write_whole(run_dir / _EXPERIMENT, yaml.safe_dump(dict(experiment), sort_keys=False))
        write_whole(run_dir / _MANIFEST, json.dumps(manifest, indent=1))
    except OSError as error:
        raise SwarmError(f"cannot write in {run_dir}: {error.strerror or error}") from error


def read_experiment(run_dir: Path) -> Any:
    """Return what the run's experiment file says, physical settings included; not checked yet.

    Raises:
        SwarmError: it is missing or no YAML.
    """
    path = run_dir / _EXPERIMENT
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SwarmError(f"{path} is missing or damaged ({' '.join(str(error).split()):.200})") from error


def read_manifest(run_dir: Path) -> dict[str, Any]:
    """Return the manifest; `base_dir` and `source` are in it.

    Raises:
        SwarmError: it is missing or damaged.
    """
    path = run_dir / _MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return {**manifest, "base_dir": str(manifest["base_dir"]), "source": str(manifest["source"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SwarmError(f"{path} is missing or damaged ({error!r:.200}); it says where the models are") from error


def base_dir_of(run_dir: Path) -> Path:
    """Return the folder that relative paths of the run's experiment start from.

    Raises:
        SwarmError: the manifest is missing or damaged.
    """
    return Path(read_manifest(run_dir)["base_dir"])
