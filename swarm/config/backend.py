"""Which engine a model runs on, and the settings of each engine.

Owns what settings an engine knows and which of them decide results. It starts no engine (`swarm.backends`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from swarm.config.section import PHYSICAL, Section

__all__ = ["MODEL_KINDS", "WHAT_MODEL", "BackendConfig", "ModelKind"]


MODEL_KINDS = ("ulm", "transformers", "vllm", "openai")
"""Engines of text generation: what agents and coordinators that are models run on."""

ModelKind = Literal["ulm", "transformers", "vllm", "openai"]

WHAT_MODEL = {
    "ulm": "the folder of a checkpoint, or a Llama model such as smollm2-135m",
    "transformers": "a short name such as smollm2-135m, a folder, a GGUF file, or a name of the hub",
    "vllm": "a short name such as smollm2-135m, a folder, a GGUF file, or a name of the hub",
    "openai": "the name by which the endpoint knows it",
}
"""What `model` names, by engine."""


class BackendConfig(Section):
    """Settings of the engine that a model runs on; those that an engine has no use for must stay as they are.

    Attributes:
        prompt: `plain` continues the text that our µLMs are trained on; `chat` explains the task in the model's own
            chat format. None means plain for `ulm` and chat for the others.
        adapter: folder of a PEFT LoRA adapter for `transformers` and `vllm`, relative to the YAML file.
        max_length: tokens of prompt and answer together; None takes the model's own limit. Not for `ulm`, whose window
            slides.
        url: `openai`: base address of the endpoint, such as http://localhost:8000/v1.
        key_env: `openai`: name of the environment variable that holds the key; None sends none. The key itself is
            never written down.
        tokenizer: `openai`: folder or name of the model's tokenizer, with which prompts are counted before they are
            sent; without one they are taken for a third as many tokens as they have bytes.
        timeout_s, retries: `openai`: of one request; after a failure it is sent again, ever later, as long as
            `faults.call_timeout_s` lasts.
        connections: `openai`: requests in flight at once.
        num_gpus: `vllm`: GPUs that its engine takes; 0 for the build for CPUs.
        dtype, eager: `vllm`: as its engine has them.
        tensor_parallel_size, gpu_memory_utilization: `vllm` on GPUs: as its engine has them.
        kv_cache_gb: `vllm` on CPUs: memory of its KV cache.
        threads: `vllm` on CPUs: cores it computes on; None takes all.
    """

    prompt: Literal["plain", "chat"] | None = None
    adapter: str | None = None
    max_length: int | None = Field(None, ge=16)
    url: Annotated[str | None, PHYSICAL] = None
    key_env: Annotated[str | None, PHYSICAL] = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    tokenizer: str | None = None
    timeout_s: Annotated[float, PHYSICAL] = Field(60.0, gt=0)
    retries: Annotated[int, PHYSICAL] = Field(4, ge=0, le=20)
    connections: Annotated[int, PHYSICAL] = Field(32, ge=1, le=1024)
    num_gpus: Annotated[float, PHYSICAL] = Field(0.0, ge=0)
    tensor_parallel_size: Annotated[int, PHYSICAL] = Field(1, ge=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    eager: Annotated[bool, PHYSICAL] = False
    gpu_memory_utilization: Annotated[float, PHYSICAL] = Field(0.9, gt=0, le=1)
    kv_cache_gb: Annotated[int, PHYSICAL] = Field(1, ge=1)
    threads: Annotated[int | None, PHYSICAL] = Field(None, ge=1)

    def chats(self, kind: str | None) -> bool:
        """Return whether an engine with these settings is asked in the model's chat format."""
        return self.prompt == "chat" if self.prompt else kind not in ("ulm", None)

    def refuse_unused(self, kind: str, where: str) -> None:
        """Check that the engine has a use for everything that is set.

        Raises:
            ValueError: naming the settings that it would ignore, or one that it lacks.
        """
        used = {"prompt"} | _USED.get(kind, set())
        if kind == "vllm":
            used |= _VLLM_GPU if self.num_gpus else _VLLM_CPU
        if unused := sorted(name for name in self.model_fields_set - used if getattr(self, name) != _unset(name)):
            of = f"{kind!r} on {'GPUs' if self.num_gpus else 'a CPU'}" if kind == "vllm" else repr(kind)
            raise ValueError(f"{where}.backend.{unused[0]} has no meaning for engine {of}; leave it out")
        if kind == "vllm" and self.num_gpus:
            if self.num_gpus > 1 and self.num_gpus % 1:
                raise ValueError(f"{where}.backend.num_gpus {self.num_gpus:g}: a part of a GPU, or whole ones")
            if self.tensor_parallel_size > self.num_gpus:
                raise ValueError(
                    f"{where}.backend.tensor_parallel_size {self.tensor_parallel_size} needs as many GPUs; "
                    f"num_gpus is {self.num_gpus:g}"
                )
        if kind == "openai":
            if self.url is None:
                raise ValueError(f"{where} on 'openai' needs `backend.url`, such as http://localhost:8000/v1")
            if not self.url.startswith(("http://", "https://")) or set("@?#") & set(self.url):
                raise ValueError(f"{where}.backend.url must be an http(s) address without a user name or key in it")

    def refuse_short(self, max_new_tokens: int, where: str) -> None:
        """Check that there is room for a prompt beside the answer.

        Raises:
            ValueError: there is none.
        """
        if self.max_length is not None and self.max_length <= max_new_tokens:
            raise ValueError(f"{where}.backend.max_length {self.max_length} leaves no room beside max_new_tokens")

    def refuse_late(self, limit_s: float, where: str) -> None:
        """Check that a request may take as long as it is given before its call is cut.

        Raises:
            ValueError: it may not.
        """
        if self.timeout_s > max(limit_s, _unset("timeout_s")):
            raise ValueError(
                f"{where}.backend.timeout_s {self.timeout_s:g} is never reached: a call is cut after "
                f"faults.call_timeout_s {limit_s:g}; raise that too"
            )


_VLLM_GPU = {"tensor_parallel_size", "gpu_memory_utilization"}
_VLLM_CPU = {"kv_cache_gb", "threads"}
_USED = {
    "transformers": {"adapter", "max_length"},
    "vllm": {"adapter", "max_length", "num_gpus", "dtype", "eager"},
    "openai": {"max_length", "url", "key_env", "tokenizer", "timeout_s", "retries", "connections"},
}


def _unset(name: str) -> Any:
    return BackendConfig.model_fields[name].default
