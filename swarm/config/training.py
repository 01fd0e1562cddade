"""What files about training have in common: how weights are optimized, and where it is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from swarm.config.section import PHYSICAL, Section
from swarm.errors import SwarmError

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda", "mps"]
"""`auto` is a CUDA GPU where there is one, else the CPU; Apple's GPU (`mps`) has to be asked for."""


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of the address of a Ray cluster.

    Raises:
        ValueError: it is none.
    """
    host, _, port = text.removeprefix("ray://").rpartition(":")
    if not host or set(host) & set("/@ ") or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(
            f"address {text!r} is none of a Ray cluster; write host:port, ray://host:port or auto, or null for a Ray "
            f"on this machine"
        )
    return host.strip("[]"), int(port)


def _checked_address(text: str) -> str:
    if text != "auto":
        split_address(text)
    return text


RayAddress = Annotated[str, AfterValidator(_checked_address)]
"""host:port, ray://host:port, or `auto`."""


class OptimizerSection(Section):
    """How weights are changed: optimizer, rate and batch."""

    kind: Literal["adamw", "muon"] = "adamw"
    """`muon` (µLMs only) takes Muon for matrices and AdamW for embeddings and norms."""

    steps: int = Field(ge=1)
    """Optimizer steps of the whole training."""

    batch_size: int = Field(16, ge=1)
    """Examples, or rows of text, per step over all workers."""

    micro_batches: int = Field(1, ge=1)
    """Parts that a worker's share of a batch is computed in; more take less memory."""

    lr: float = Field(1e-3, gt=0)
    """Learning rate after the warm-up."""

    warmup: int = Field(100, ge=0)
    """Steps until the full learning rate."""

    schedule: Literal["cosine", "linear"] = "cosine"
    """After the warm-up: `cosine` falls to 5 % of `lr`, `linear` to 0."""

    weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay of matrices."""

    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of Adam's two averages."""

    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""


class PlaceSection(Section):
    """Where a training is computed."""

    workers: Annotated[int, PHYSICAL] = Field(1, ge=1)
    """Processes that share each batch."""

    threads: Annotated[int | None, PHYSICAL] = Field(None, ge=1)
    """CPU threads of each worker; null takes one."""

    device: Annotated[Device, PHYSICAL] = "auto"
    """`auto`, `cpu`, `cuda` (a GPU per worker) or `mps`."""

    address: Annotated[RayAddress | None, PHYSICAL] = None
    """Address of a Ray cluster, as of `runtime.address`; null starts Ray on this machine."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` computes matrix products in it."""

    compile: bool = False
    """Run the model through torch.compile, which needs a C++ compiler, on CUDA Triton."""

    @model_validator(mode="after")
    def _one_worker_per_mps(self) -> PlaceSection:
        if self.device == "mps" and self.workers > 1:
            raise ValueError(f"device mps has one GPU for {self.workers} workers; set workers: 1")
        return self

    @property
    def compute_dtype(self) -> torch.dtype | None:
        """The type of matrix products where it is not that of the weights."""
        import torch

        return torch.bfloat16 if self.dtype == "bfloat16" else None


class TrainingFile(Section):
    """A file that describes trainings."""

    optimizer: OptimizerSection
    """How weights are changed."""

    place: PlaceSection = PlaceSection()
    """Where it is computed."""

    @model_validator(mode="after")
    def _shares_evenly(self) -> Self:
        if self.optimizer.batch_size % self.place.workers:
            raise ValueError(
                f"batch_size {self.optimizer.batch_size} cannot be shared evenly by {self.place.workers} workers"
            )
        return self


def resolve_device(name: str) -> str:
    """Return the torch device of a setting: `cpu`, `cuda` or `mps`.

    Raises:
        SwarmError: it is not there.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if not there.get(name, True):
        raise SwarmError(f"device {name!r} was asked for but torch sees no such GPU here; set device: cpu or auto")
    return name
