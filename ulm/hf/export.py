"""A checkpoint as a folder that others load: transformers, vLLM, and with its long-term memory our own class of model.

Owns what such a folder holds, its card included, and that it appears whole or not at all. Mistral is the
architecture of choice: its config says the sliding window, so tokens are equal at any length, where Llama's are equal
up to the window. The map of tensors is `ulm.hf.llama`'s.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from ulm.checkpoint import Checkpoint, checkpoint_hash, load_checkpoint
from ulm.files import refuse_taken, whole_folder
from ulm.hf.llama import to_fast_tokenizer, to_llama, to_mistral
from ulm.hf.ulm_model import to_ulm
from ulm.model import Decoder

ARCHITECTURES = ("mistral", "llama")
DTYPES = ("float32", "bfloat16", "float16")

MAX_LENGTH = 8192
"""The longest text that servers of the Mistral folder accept; a longer window raises it."""

VLLM_CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes of vLLM's attention on a CPU (0.32)."""


def export_checkpoint(
    checkpoint: Path, out: Path, *, architecture: str = "mistral", dtype: str = "float32", memory: bool = False
) -> None:
    """Write a folder that `from_pretrained` of transformers loads.

    Args:
        checkpoint: what `save_checkpoint` wrote.
        out: where to, a new or an empty folder; parents are created.
        architecture: one of `ARCHITECTURES`; with `memory` the class of model is our own (`ulm.hf.ulm_model`).
        dtype: one of `DTYPES`. float32 is what checkpoints compute in, and the one that keeps every greedy token.
        memory: whether the long-term memory comes along. Without, it is left out, as where an agent has none: it is
            added to the model, never woven into it.

    Raises:
        ValueError: nothing can be read there (`CheckpointError`), `out` is taken, there is no memory, or the model does
            not fit the architecture.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; available: {', '.join(ARCHITECTURES)}")
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; available: {', '.join(DTYPES)}")
    if memory and architecture == "llama":
        raise ValueError("llama has no long-term memory: leave out either the architecture or the memory")
    refuse_taken(Path(out))
    loaded = load_checkpoint(checkpoint, dtype=getattr(torch, dtype))
    if memory and loaded.config.ltm is None:
        raise ValueError(f"{checkpoint} was trained without a long-term memory; export it without memory")
    model: Any = to_ulm(loaded.model) if memory else _without_memory(loaded, architecture)
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=loaded.tokenizer.eot_id, pad_token_id=loaded.tokenizer.pad_id
    )
    card = _card(checkpoint, loaded, model, dtype)
    try:
        with whole_folder(Path(out)) as made:
            model.save_pretrained(str(made))
            to_fast_tokenizer(loaded.tokenizer).save_pretrained(str(made))
            (made / "README.md").write_text(card, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot write {out}: {error.strerror or error}; check space and write permission") from error


def _without_memory(loaded: Checkpoint, architecture: str) -> Any:
    model = loaded.model
    if model.ltm is not None:
        with torch.device("meta"):
            bare = Decoder(dataclasses.replace(model.config, ltm=None))
        kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("ltm.")}
        bare.load_state_dict(kept, assign=True)
        model = bare
    if architecture == "llama":
        return to_llama(model, loaded.tokenizer)
    return to_mistral(model, loaded.tokenizer, max(MAX_LENGTH, model.config.window))


def _card(checkpoint: Path, loaded: Checkpoint, model: Any, dtype: str) -> str:
    """Return the model card: what this is, where it came from, how to load it, and what was left out."""
    ours, window = model.config.model_type == "ulm", loaded.config.window
    limits = {
        "ulm": f"The window is {window} tokens; what was surprising goes to the long-term memory.",
        "mistral": f"A sliding window of {window} tokens, for texts of any length.",
        "llama": f"For texts of at most {window} tokens; the checkpoint sees the last {window}, Llama all.",
    }
    return _CARD.format(
        name=Path(checkpoint).resolve().name,
        parameters=f"{sum(p.numel() for p in model.parameters()):,}",
        architecture=type(model).__name__,
        dtype=dtype,
        digest=checkpoint_hash(checkpoint),
        equal="Greedy tokens are those of the checkpoint."
        if dtype == "float32"
        else f"The checkpoint computes in float32, this one rounds to {dtype}: greedy tokens may differ.",
        limit=limits[model.config.model_type],
        left_out=_LEFT_OUT if loaded.config.ltm is not None and not ours else "Nothing was left out.",
        registration="import ulm.hf.ulm_model  # registers the class (pip install ulm-swarm)\n" if ours else "",
        vllm=_MEMORY if ours else _about_vllm(loaded, model, dtype),
        meta=json.dumps(loaded.meta, indent=2, sort_keys=True, ensure_ascii=False),
    )


def _about_vllm(loaded: Checkpoint, model: Any, dtype: str) -> str:
    head, known = loaded.config.head_size, ", ".join(map(str, VLLM_CPU_HEADS))
    warning = f"\nOn a CPU, vLLM 0.32 has no attention for heads of {head}: only {known}.\n"
    return _VLLM.format(
        dtype=dtype, length=model.config.max_position_embeddings, warning="" if head in VLLM_CPU_HEADS else warning
    )


_LEFT_OUT = (
    "**Left out:** the checkpoint's long-term memory, which is added to the model and never woven into it. This "
    "is the same model with the memory off; `swarm export --memory` brings it along."
)

_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
---

# {name}

A micro language model of {parameters} parameters, exported by `swarm export` as {architecture} in {dtype}.

- Checkpoint: `{digest}` (sha256 over weights, model config and tokenizer)
- {equal}
- {limit}
- {left_out}

## Transformers (5.0 or newer)

```python
{registration}from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "FOLDER"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
inputs = tokenizer("the text to continue", return_tensors="pt")
answer = model.generate(**inputs, max_new_tokens=32)
print(tokenizer.decode(answer[0]))
```

{vllm}
## What the checkpoint says of itself

```json
{meta}
```
"""

_VLLM = """\
## vLLM

```
vllm serve FOLDER --dtype {dtype} --max-model-len {length}
```

With the build for CPUs (vllm-cpu) instead `python -m vllm.entrypoints.openai.api_server --model FOLDER` and the same
options: the program `vllm` of vllm-cpu 0.32.0 does not start.

Name the dtype: by itself vLLM computes float32 models in 16 bits. There is no chat template, so ask `/v1/completions`,
with `"temperature": 0` for greedy answers.
{warning}"""

_MEMORY = """\
The memory is empty at the start of every call. To go on with what was remembered, ask for it and hand it back:

```python
first = model.generate(**inputs, max_new_tokens=32, return_dict_in_generate=True)
later = model.generate(**inputs, max_new_tokens=32, memories=first.memories)
```

vLLM cannot load this folder; export without `--memory` for that.
"""
