"""Training states on disk: weights, optimizer, progress and whatever else a training needs to go on bit for bit.

- A state is a folder of safetensors and JSON; nothing is pickled. It appears as a whole or not at all.
- `RollingStates` keeps the last few of a training and falls back to the one before when the newest is damaged.
- Knows no loop, no data and no Ray.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

__all__ = ["DamagedStateError", "RollingStates", "SavedState", "StateError", "load_state", "save_state"]

FORMAT = 2
TENSORS, PROGRESS = "state.safetensors", "progress.json"


class StateError(ValueError):
    """A training state that cannot be used; the message names it and says what to do."""


class DamagedStateError(StateError):
    """A training state that is not what was written."""


@dataclass(frozen=True, slots=True)
class SavedState:
    """What a state holds beside weights and optimizer.

    Attributes:
        progress: JSON data: at least the next step.
        extra: tensors by name, such as the memory of the rows.
    """

    progress: dict[str, Any]
    extra: dict[str, Tensor]


def save_state(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    """Write weights, optimizer moments and progress so that a kill at any point leaves this state or the one before.

    Args:
        folder: replaced as a whole.
        model: the bare model, not a data-parallel wrapper.
        optimizer: any whose state is tensors per parameter.
        progress: JSON-able; holds at least the next step.
        extra: further tensors.
    """
    tensors = {f"extra.{name}": tensor for name, tensor in (extra or {}).items()}
    for name, parameter in model.named_parameters():
        tensors[f"weight.{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value).detach()
    fresh = folder.with_name(folder.name + ".new")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, str(fresh / TENSORS))
    record = {"format": FORMAT, "sha256": _digest(fresh / TENSORS), "progress": progress}
    (fresh / PROGRESS).write_text(json.dumps(record, sort_keys=True), encoding="utf-8")
    for file in fresh.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> SavedState | None:
    """Restore what `save_state` wrote; None when nothing was saved yet.

    Raises:
        DamagedStateError: the state is not what was written.
        StateError: it belongs to another model, or to a newer version of this package.
    """
    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():  # killed between the two renames
        with contextlib.suppress(FileNotFoundError):  # another worker was faster
            old.rename(folder)
    if not folder.exists():
        return None
    remedy = f"training state {folder} is damaged or of another model"
    try:
        record = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        version = record.get("format", 1)  # the first format was the bare progress, without a checksum
        if version > FORMAT:
            raise StateError(
                f"training state {folder} has format {version}, this version reads up to {FORMAT}; upgrade"
            )
        if version >= 2 and _digest(folder / TENSORS) != record["sha256"]:
            raise DamagedStateError(f"{remedy} (its checksum is wrong); remove it to start over")
        progress = record["progress"] if version >= 2 else record
        tensors = load_file(str(folder / TENSORS))
    except StateError:
        raise
    except (OSError, KeyError, AttributeError, TypeError, ValueError, SafetensorError) as error:
        raise DamagedStateError(f"{remedy} ({error}); remove it to start over") from error
    saved = {key.removeprefix("weight."): value.shape for key, value in tensors.items() if key.startswith("weight.")}
    if saved != {name: parameter.shape for name, parameter in model.named_parameters()}:
        raise StateError(f"{remedy} (names or shapes of the weights differ); remove it to start over")
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, kind, name = key.split(".", 2)
            states.setdefault(name, {})[kind] = value
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"weight.{name}"])
            if state := states.get(name):
                optimizer.state[parameter] = {
                    key: value.to(parameter.device) if value.dim() else value for key, value in state.items()
                }
    extra = {k.removeprefix("extra."): v for k, v in tensors.items() if k.startswith("extra.")}
    return SavedState(progress, extra)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RollingStates:
    """The last few states of one training.

    Args:
        folder: holds one folder per state, named after its step.
        keep: how many are kept, at least 2, so that there is one to fall back to.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 2:
            raise ValueError(f"at least 2 states must be kept, to fall back from a damaged one; got {keep}")
        self.folder = folder
        self.keep = keep

    def steps(self) -> list[int]:
        """Return the steps of the states that are there, oldest first."""
        names = {path.name.removesuffix(".old") for path in self.folder.glob("step-*") if path.suffix != ".new"}
        return sorted(int(name.removeprefix("step-")) for name in names)

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: dict[str, Any],
        extra: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write the state of a step, then remove the oldest ones; arguments as of `save_state`."""
        save_state(self._path(step), model, optimizer, {**progress, "step": step}, extra)
        for path in self.folder.glob("step-*.new"):
            shutil.rmtree(path, ignore_errors=True)
        for old in self.steps()[: -self.keep]:
            path = self._path(old)
            shutil.rmtree(path, ignore_errors=True)
            shutil.rmtree(path.with_name(path.name + ".old"), ignore_errors=True)  # left by a kill, see `save_state`

    def load(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, warn: Callable[[str], None]
    ) -> SavedState | None:
        """Restore the newest state that is whole; None when there is none at all.

        Args:
            model: receives the weights.
            optimizer: receives its moments.
            warn: hears of damaged states, which are put aside under another name once a whole one is found.

        Raises:
            DamagedStateError: all of them are damaged.
            StateError: the newest whole one belongs to another model or version.
        """
        steps = self.steps()
        damaged: list[int] = []
        for step in reversed(steps):
            try:
                found = load_state(self._path(step), model, optimizer)
            except DamagedStateError as error:
                warn(f"{str(error).partition(';')[0]}; going back to the state before it")
                damaged.append(step)
                continue
            if found is None:
                continue
            for bad in damaged:
                with contextlib.suppress(OSError):  # another worker was faster
                    self._path(bad).rename(self.folder / f"damaged-{bad:08d}")
            return found
        if steps:
            raise DamagedStateError(f"all {len(steps)} states in {self.folder} are damaged; remove it to start over")
        return None

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"
