"""Whether the models of an experiment fit: into this machine, and adapters to their models, before any is loaded.

Owns how many copies each engine makes of a model, and how large they are. Counts weights alone, so what passes may
still be too much; what is refused cannot work. On a cluster elsewhere nothing is known, and nothing is refused.
"""

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from swarm.backends.vllm import cpu_cache_gb
from swarm.config.engine import ModelEngine, TransformersEngine, UlmEngine, VllmEngine
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError, first_line
from swarm.process import machine


def num_weights(folder: Path) -> int:
    """Return how many numbers the safetensors of a folder hold; only their headers are read.

    A damaged file counts as none: whoever loads it says so.
    """
    return sum(math.prod(shape) for shape in _shapes(folder).values())


def _shapes(folder: Path) -> dict[str, list[int]]:
    """Return the shapes of all tensors in a folder, by name."""
    found: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with contextlib.suppress(OSError, SafetensorError), safe_open(file, "numpy") as tensors:
            found |= {name: list(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return found


def check_adapter(adapter: Path, base: Path, name: str) -> None:
    """Refuse a LoRA adapter that cannot be read, or was made for another model.

    Args:
        adapter: its folder.
        base: folder of the model.
        name: of the model, for the message.

    Raises:
        SwarmError: it is damaged or no LoRA, or a module that it changes is not there, or has another shape.
    """
    try:
        about = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        kind, rank, others = about["peft_type"], about["r"], about.get("rank_pattern") or {}
        with safe_open(adapter / "adapter_model.safetensors", "numpy"):  # its header, and whether all of it is there
            pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise SwarmError(f"adapter {adapter} cannot be read: {type(error).__name__}: {first_line(error)}") from error
    there, ours = _shapes(base), _shapes(adapter)
    ranks = {shape[0] for key, shape in ours.items() if key.endswith(".lora_A.weight")}
    if kind != "LORA" or not ranks or not (others or ranks == {rank}):
        found = f"weights of rank {', '.join(map(str, sorted(ranks)))}" if ranks else "no weights of a LoRA"
        raise SwarmError(
            f"adapter {adapter} does not load: its config says {kind} of rank {rank}, and it holds {found}"
        )
    if not there:
        return  # not in safetensors: whoever loads it finds out
    for key, shape in ours.items():
        if not key.endswith(".lora_A.weight"):
            continue
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        wanted = there.get(f"{module}.weight")
        out = ours.get(key.replace(".lora_A.", ".lora_B."), [0])[0]
        if wanted is None or wanted != [out, shape[-1]]:
            found = "is not there" if wanted is None else f"has the shape {wanted}"
            raise SwarmError(
                f"adapter {adapter} was made for another model than {name}: it changes {module} of shape "
                f"{[out, shape[-1]]}, which {found}"
            )


class Need(NamedTuple):
    """Where a model goes, how many bytes its weights take there, and in which copies."""

    engine: ModelEngine
    place: str
    size: float
    copies: str


def check_sizes(config: ExperimentConfig, folders: Mapping[str, Path]) -> None:
    """Refuse pretrained models that the memory of this machine, or of its GPU, cannot hold.

    Args:
        config: the experiment.
        folders: of pretrained models, by name; others are not counted.

    Raises:
        SwarmError: naming what they need and what there is.
    """
    if config.runtime.address is not None:
        return
    needs = memory_needs(config, folders)
    for place, there in (("this machine", machine.memory_bytes()), ("its GPU", _gpu_bytes())):
        here = [need for need in needs if need.place == place]
        if there is not None and sum(need.size for need in here) > there:
            told = "; ".join(f"{n.engine.model} needs {n.size / 1e9:.1f} GB for weights {n.copies}" for n in here)
            raise SwarmError(
                f"{told}; {place} has {there / 1e9:.1f} GB: take a smaller model"
                f"{', fewer hosts, or engine vllm, which loads it once' if 'host(s)' in told else ''}"
            )


def memory_needs(config: ExperimentConfig, folders: Mapping[str, Path]) -> list[Need]:
    """Return what the models of an experiment need whose folders, by name, are given; each model once."""
    needs: dict[str, Need] = {}
    for engine in (config.agents.engine, config.coordinator.engine):
        if isinstance(engine, ModelEngine) and engine.model in folders:
            # Hosts load a model of transformers once for each adapter; vLLM keeps adapters apart from the model.
            apart = {"prompt"} if isinstance(engine, TransformersEngine) else {"prompt", "adapter"}
            need = _need(engine, num_weights(folders[engine.model]), config)
            needs[engine.model_dump_json(exclude=apart)] = need
    return list(needs.values())


def _need(engine: ModelEngine, count: int, config: ExperimentConfig) -> Need:
    runtime = config.runtime
    if isinstance(engine, VllmEngine):
        width = 4 if engine.dtype == "float32" else 2
        if engine.num_gpus:
            return Need(engine, "its GPU", width * count / engine.tensor_parallel_size, "on each GPU of its engine")
        size = width * count + cpu_cache_gb() * 1e9
        return Need(engine, "this machine", size, f"and {cpu_cache_gb()} GB of KV cache")
    on_gpu = runtime.device == "cuda" or (runtime.device == "auto" and _gpu_bytes() is not None)
    copies = config.num_hosts + runtime.standby if runtime.pool == "ray" else 1
    width = 4 if runtime.dtype == "float32" else 2
    if isinstance(engine, UlmEngine) and not on_gpu:  # read once, shared by all hosts; large ones are packed in each
        from ulm.decode.stepper import PACK_FROM

        shared = 8.0 if runtime.pool == "ray" else 4.0
        packed = copies * width if count >= PACK_FROM else 0
        return Need(engine, "this machine", (shared + packed) * count, "read and shared")
    return Need(engine, "its GPU" if on_gpu else "this machine", float(copies * width * count), f"in {copies} host(s)")


def _gpu_bytes() -> float | None:
    """Return the memory of the first GPU; None where there is none."""
    import torch

    return float(torch.cuda.mem_get_info(0)[1]) if torch.cuda.is_available() else None
