"""Training states on disk: trained weights, moments, progress and whatever else it takes to go on bit for bit.

- A state is a folder of safetensors and JSON; nothing is pickled. It appears as a whole or not at all.
- The last few of a training are kept; when the newest is damaged, the one before is restored.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ulm.files import make_folder, settle, sha256, sync

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


class RollingStates:
    """The last few states of one training.

    Args:
        folder: holds one folder per state, named after its step.
        keep: how many are kept, at least 2, so that there is one to fall back to.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def steps(self) -> list[int]:
        """Return the steps of the states that are there, oldest first."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*[0-9]"))

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: dict[str, Any],
        extra: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write the state of a step, then remove the oldest ones; a kill at any point leaves those before.

        Args:
            step: steps that were taken.
            model: the bare model, not a data-parallel wrapper; what needs no gradient is left out.
            optimizer: any whose state is tensors per parameter.
            progress: JSON-able.
            extra: further tensors.
        """
        tensors = {f"extra.{name}": tensor for name, tensor in (extra or {}).items()}
        for name, parameter in _trained(model):
            tensors[f"weight.{name}"] = parameter.detach()
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value).detach()
        for left in self.folder.glob("step-*.new"):  # by a kill
            shutil.rmtree(left)
        folder = self._path(step)
        fresh = folder.with_name(folder.name + ".new")
        make_folder(self.folder)
        fresh.mkdir()
        save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, str(fresh / TENSORS))
        record = {"format": FORMAT, "sha256": sha256(fresh / TENSORS), "progress": {**progress, "step": step}}
        (fresh / PROGRESS).write_text(json.dumps(record, sort_keys=True), encoding="utf-8")
        settle(fresh)
        if folder.exists():  # of an earlier try; the state before it is there too
            shutil.rmtree(folder)
        fresh.rename(folder)
        sync(self.folder)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self._path(old), ignore_errors=True)

    def load(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> SavedState | None:
        """Restore the newest state that is whole; None when there is none at all.

        Args:
            model: receives the weights.
            optimizer: receives its moments; None leaves them out.
            warn: receives a line for each damaged state, which is put aside under another name once a whole one is
                found.

        Raises:
            DamagedStateError: all of them are damaged.
            StateError: the newest whole one belongs to another model or version.
        """
        steps = self.steps()
        damaged: list[int] = []
        for step in reversed(steps):
            try:
                found = _read(self._path(step), model, optimizer)
            except DamagedStateError as error:
                warn(f"{str(error).partition(';')[0]}; going back to the state before it")
                damaged.append(step)
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


def _read(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> SavedState:
    """Restore one state, or change nothing."""
    remedy = f"training state {folder} is damaged or of another model"
    try:
        record = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise StateError(
                f"training state {folder} has format {record['format']}, this version reads {FORMAT}; remove it to "
                "start over"
            )
        if sha256(folder / TENSORS) != record["sha256"]:
            raise DamagedStateError(f"{remedy} (its checksum is wrong); remove it to start over")
        tensors = load_file(str(folder / TENSORS))
        progress = dict(record["progress"])
    except StateError:
        raise
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise DamagedStateError(f"{remedy} ({error}); remove it to start over") from error
    trained = dict(_trained(model))
    saved = {key.removeprefix("weight."): value.shape for key, value in tensors.items() if key.startswith("weight.")}
    if saved != {name: parameter.shape for name, parameter in trained.items()}:
        raise StateError(f"{remedy} (names or shapes of the weights differ); remove it to start over")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"weight.{name}"])
    for key, value in tensors.items():
        if optimizer is not None and key.startswith("optimizer."):
            _, kind, name = key.split(".", 2)
            optimizer.state[trained[name]][kind] = value.to(trained[name].device)
    return SavedState(progress, {k.removeprefix("extra."): v for k, v in tensors.items() if k.startswith("extra.")})


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield what a training changes; a base model that stays as it is comes from its own files."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
