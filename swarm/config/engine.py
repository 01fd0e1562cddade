"""The engines that write what agents and coordinators say, each with exactly its own settings.

`engine:` is a union tagged by `kind`. This file starts no engine (`swarm.backends`).
"""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from swarm.config.section import PHYSICAL, Section, refuse_where

_TEMPLATES_OWN = {
    *("messages", "conversations", "tools", "documents", "chat_template", "add_generation_prompt"),
    *("continue_final_message", "return_assistant_tokens_mask"),
}
"""What is rendered, and how, is not the user's to say."""


class AnyEngine(Section):
    """What all engines have in common."""

    is_remote: ClassVar[bool] = False

    kind: str

    @property
    def chats(self) -> bool:
        """Whether it is asked in the model's chat format."""
        return bool(getattr(self, "prompt", "plain") == "chat")


class _ChatEngine(AnyEngine):
    """An engine that may ask in a model's chat format."""

    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    """What the model's chat template is told beside the messages, such as `{enable_thinking: false}` for Qwen3 and
    `{reasoning_effort: low}` for gpt-oss. Only with `prompt: chat`."""

    @model_validator(mode="after")
    def _template_is_asked(self) -> Self:
        taken = sorted(_TEMPLATES_OWN & set(self.chat_template_kwargs))
        refuse_where(
            (
                self.chat_template_kwargs and not self.chats,
                "`chat_template_kwargs` has no meaning without a chat; set prompt: chat, or leave it out",
            ),
            (taken, f"chat_template_kwargs: {', '.join(taken)} cannot be set here"),
        )
        try:
            json.dumps(self.chat_template_kwargs, allow_nan=False)
        except ValueError:
            raise ValueError("chat_template_kwargs: a number in it is not finite") from None
        return self


class RandomEngine(_ChatEngine):
    """Draws legal actions from the world, the null control of trained agents."""

    kind: Literal["random"] = "random"

    model: str | None = None
    """Model whose tokens are counted, so that random actions cost what this model's would; null counts bytes."""

    tokenizer: str | None = None
    """Folder or name of a tokenizer to count with, where the model itself is behind an endpoint."""

    prompt: Literal["plain", "chat"] = "plain"
    """Count prompts as plain text, or as the model's chat format lays them out."""


class EchoEngine(AnyEngine):
    """Answers with the last line of its own prompt, for measuring the machinery."""

    kind: Literal["echo"] = "echo"


class ModelEngine(_ChatEngine):
    """What all engines of language models have in common."""

    model: str

    def refuse_short(self, max_new_tokens: int) -> None:
        """Check that there is room for a prompt beside the answer.

        Raises:
            ValueError: there is none.
        """


class UlmEngine(ModelEngine):
    """Our own engine: µLMs trained here, and pretrained models of the Llama family."""

    kind: Literal["ulm"] = "ulm"

    model: str
    """Checkpoint folder, relative to the YAML file; or a Llama: `smollm2-135m`, a transformers folder, a GGUF file."""

    prompt: Literal["plain", "chat"] = "plain"
    """`plain` continues the text that our µLMs are trained on; `chat` explains the task in the model's chat format."""


class _PretrainedEngine(ModelEngine):
    """An engine of pretrained models."""

    prompt: Literal["plain", "chat"] = "chat"
    """`chat` explains the task in the model's chat format; `plain` continues the text that our µLMs are trained on."""


class _FilesEngine(_PretrainedEngine):
    """An engine that loads the files of a model."""

    model: str
    """A short name such as `smollm2-135m`, a folder, a GGUF file, or a name of the hub."""

    adapter: str | None = None
    """Folder of a PEFT LoRA adapter, relative to the YAML file."""


class TransformersEngine(_FilesEngine):
    """The package transformers, inside the agent hosts."""

    kind: Literal["transformers"] = "transformers"


class VllmEngine(_FilesEngine):
    """vLLM, in a Ray actor of its own that agents and coordinator share."""

    is_remote = True

    kind: Literal["vllm"] = "vllm"

    max_length: int | None = Field(None, ge=16)
    """Tokens of prompt and answer together, for which memory is set aside; null takes the model's own limit."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of weights and activations; `auto` takes the model's own."""

    eager: Annotated[bool, PHYSICAL] = False
    """Skip compilation: a faster start, slower answers."""

    num_gpus: Annotated[float, PHYSICAL] = Field(0.0, ge=0)
    """GPUs of the engine, or a part of one. 0 uses vLLM's build for CPUs, on all cores with a KV cache of 1 GB, unless
    vLLM's own variables VLLM_CPU_OMP_THREADS_BIND and VLLM_CPU_KVCACHE_SPACE say otherwise."""

    tensor_parallel_size: Annotated[int, PHYSICAL] = Field(1, ge=1)
    """GPUs that the model is split over."""

    gpu_memory_utilization: Annotated[float, PHYSICAL] = Field(0.9, gt=0, le=1)
    """Part of the GPU's memory that the engine may use."""

    def refuse_short(self, max_new_tokens: int) -> None:
        """Check that there is room for a prompt beside the answer.

        Raises:
            ValueError: there is none.
        """
        if self.max_length is not None and self.max_length <= max_new_tokens:
            raise ValueError(f"engine.max_length {self.max_length} leaves no room beside max_new_tokens")

    @model_validator(mode="after")
    def _fits_the_machine(self) -> VllmEngine:
        size = self.tensor_parallel_size
        refuse_where(
            *(
                (
                    not self.num_gpus and getattr(self, name) != type(self).model_fields[name].default,
                    f"`{name}` has no meaning for vllm on a CPU; leave it out",
                )
                for name in ("tensor_parallel_size", "gpu_memory_utilization")
            ),
            (self.num_gpus > 1 and self.num_gpus % 1, f"num_gpus {self.num_gpus:g}: a part of a GPU, or whole ones"),
            (
                self.num_gpus and size > self.num_gpus,
                f"tensor_parallel_size {size} needs as many GPUs; num_gpus is {self.num_gpus:g}",
            ),
        )
        return self


SENT = ("max_tokens", "temperature", "top_p", "seed", "stop", "structured_outputs", "response_format")
"""Fields of a request to an endpoint that can be renamed or left out."""

_OURS = ("model", "prompt", "messages", "stream", "n")
"""Fields that answers could not be read or charged without."""


class OpenAIEngine(_PretrainedEngine):
    """Any endpoint that speaks OpenAI's HTTP protocol: vLLM, llama.cpp, Ollama, OpenAI."""

    is_remote = True

    kind: Literal["openai"] = "openai"

    model: str
    """Name of the model at the endpoint."""

    url: Annotated[str, PHYSICAL]
    """Base address of the endpoint, such as http://localhost:8000/v1."""

    key_env: Annotated[str | None, PHYSICAL] = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the key, which is never written down; null sends no key."""

    tokenizer: str | None = None
    """Folder or name of the model's tokenizer, to count prompts before they are sent; null estimates from bytes."""

    connections: Annotated[int, PHYSICAL] = Field(32, ge=1, le=1024)
    """Requests in flight at once."""

    fields: dict[str, str | None] = Field(default_factory=dict)
    """Fields of a request by other names, or null to leave them out, for endpoints that refuse what is usual, such as
    `{max_tokens: max_completion_tokens, temperature: null}`."""

    extra: dict[str, JsonValue] = Field(default_factory=dict)
    """Fields to add to every request, such as `{reasoning_effort: low}`; one that is sent already is replaced."""

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")) or set("@?#") & set(url):
            raise ValueError(
                "it must be an http(s) address without a user name or key in it, such as http://localhost:8000/v1"
            )
        return url

    @model_validator(mode="after")
    def _fields_can_be_sent(self) -> OpenAIEngine:
        named = [name for name in self.fields.values() if name is not None]
        ours = [name for name in (*named, *self.extra) if name in _OURS]
        unknown = sorted(set(self.fields) - set(SENT))
        refuse_where(
            (unknown, f"`fields`: {', '.join(unknown)} is not sent; what is sent is {', '.join(SENT)}"),
            (ours, f"`{', '.join(ours)}` cannot be set with `fields` or `extra`"),
            (len(set(named)) < len(named) or "" in named, "`fields`: each needs a name of its own"),
        )
        return self


AgentEngine = Annotated[
    UlmEngine | TransformersEngine | VllmEngine | OpenAIEngine | RandomEngine | EchoEngine, Field(discriminator="kind")
]
"""What agents may run on."""

CoordinatorEngine = Annotated[UlmEngine | TransformersEngine | VllmEngine | OpenAIEngine, Field(discriminator="kind")]
"""What the model of a coordinator may run on."""
