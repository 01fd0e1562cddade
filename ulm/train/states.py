"""Training states on disk: trained weights, moments, progress and whatever else it takes to go on bit for bit.

- A state is a JSON manifest, `step-XXXXXXXX.json`, of tensors in `objects/`, which states share: what did not change
  is not written again. Nothing is pickled, nothing is rounded.
- The manifest is written last, so a state appears as a whole or not at all.
- The last few of a training are kept; when the newest is damaged, the one before is restored. Damage to an object
  that they share ends both.
- States of format 2, a folder with a safetensors file each, are read, and go as newer ones are written.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ulm.files import make_folder, sha256, write_whole
from ulm.train.objects import DamagedObjectError, Entry, ObjectStore, packed, unpacked

FORMAT = 3
OBJECTS = "objects"


class StateError(ValueError):
    """A training state that cannot be used; the message names it and says what to do."""


class DamagedStateError(StateError):
    """A training state that is not what was written."""


@dataclass(frozen=True, slots=True)
class SavedState:
    """What a state holds beside weights and optimizer.

    Attributes:
        progress: JSON data: at least the next step.
        extra: tensors by name, such as the memory of the rows; none where they alone are lost.
    """

    progress: dict[str, Any]
    extra: dict[str, Tensor]


class RollingStates:
    """The last few states of one training.

    Args:
        folder: holds a manifest per state, named after its step, and their objects.
        keep: how many are kept, at least 2, so that there is one to fall back to.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep
        self._objects = ObjectStore(folder / OBJECTS)
        self._before: dict[str, Entry] = {}

    def steps(self) -> list[int]:
        """Return the steps of the states that are there, oldest first."""
        names = (re.fullmatch(r"step-(\d+)(\.json)?", path.name) for path in self.folder.glob("step-*"))
        return sorted({int(name[1]) for name in names if name})

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
        make_folder(self.folder)
        large, packs = packed(tensors)
        entries = self._objects.write(large, self._before)
        state = {
            "progress": {**progress, "step": step},
            "tensors": {name: dataclasses.asdict(entry) for name, entry in entries.items()},
            "packs": packs,
            "bases": self._objects.bases(entries.values()),
        }
        state = json.loads(json.dumps(state))  # keys are text, as they will be read
        record = {"format": FORMAT, "sha256": _digest(state), "state": state}
        write_whole(self._manifest(step), json.dumps(record, sort_keys=True))
        self._before = entries
        self._roll(step)

    def read(self, step: int, *, extra: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors of a state, as `weight.NAME`, `optimizer.KEY.NAME` and `extra.NAME`, and its progress.

        Args:
            step: one of `steps`.
            extra: False leaves out what is neither weights nor optimizer.

        Raises:
            DamagedStateError: it is damaged.
            StateError: it is of another version.
        """
        path = self._manifest(step)
        is_old = not path.exists()
        path = path.with_suffix("") if is_old else path
        remedy = "remove it to start over"
        try:
            record = json.loads((path / "progress.json" if is_old else path).read_text(encoding="utf-8"))
            if record["format"] != (2 if is_old else FORMAT):
                raise StateError(
                    f"training state {path} has format {record['format']}, this version reads 2 and {FORMAT}; {remedy}"
                )
            if is_old:
                tensors = path / "state.safetensors"
                if sha256(tensors) != record["sha256"]:
                    raise DamagedObjectError("its checksum is wrong")
                return load_file(str(tensors)), dict(record["progress"])
            state = record["state"]
            if _digest(state) != record["sha256"]:
                raise DamagedObjectError("its checksum is wrong")
            entries = {name: Entry.of(entry) for name, entry in state["tensors"].items()}
            wanted = {k: v for k, v in entries.items() if extra or not k.startswith(("extra.", "pack.extra."))}
            found = unpacked(self._objects.read(wanted), state["packs"])
        except StateError:
            raise
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise DamagedStateError(f"training state {path} is damaged ({error}); {remedy}") from error
        self._before = entries  # what a next state will be much like
        return found, dict(state["progress"])

    def load(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> SavedState | None:
        """Restore the newest state that is whole; None when there is none at all.

        Where none is whole, the newest that lacks nothing but extra tensors is restored without them.

        Args:
            model: receives the weights.
            optimizer: receives its moments; None leaves them out.
            warn: receives a line for each damaged state, which is put aside under another name once another one is
                restored, and one if extra tensors are lost.

        Raises:
            DamagedStateError: all of them are damaged.
            StateError: the newest whole one belongs to another model or version.
        """
        steps = self.steps()[::-1]
        for extra in (True, False):
            for number, step in enumerate(steps):
                try:
                    tensors, progress = self.read(step, extra=extra)
                except DamagedStateError as error:
                    if extra:
                        warn(f"{str(error).rpartition(';')[0]}; going back to the state before it")
                    continue
                found = self._restore(step, model, optimizer, tensors, progress)
                if not extra:
                    warn(
                        f"no training state in {self.folder} is whole; going on with weights and optimizer of step "
                        f"{step}; memories are lost"
                    )
                for damaged in steps[:number]:
                    self._put_aside(damaged)
                return found
        if steps:
            raise DamagedStateError(f"all {len(steps)} states in {self.folder} are damaged; remove it to start over")
        return None

    def _restore(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        tensors: dict[str, Tensor],
        progress: dict[str, Any],
    ) -> SavedState:
        """Give a model and its optimizer what a state holds, or change nothing."""
        trained = dict(_trained(model))
        saved = {k.removeprefix("weight."): value.shape for k, value in tensors.items() if k.startswith("weight.")}
        if saved != {name: parameter.shape for name, parameter in trained.items()}:
            raise StateError(
                f"training state step-{step:08d} in {self.folder} is of another model (names or shapes of the weights "
                "differ); remove it to start over"
            )
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(tensors[f"weight.{name}"])
        for key, value in tensors.items():
            if optimizer is not None and key.startswith("optimizer."):
                _, kind, name = key.split(".", 2)
                optimizer.state[trained[name]][kind] = value.to(trained[name].device)
        return SavedState(progress, {k.removeprefix("extra."): v for k, v in tensors.items() if k.startswith("extra.")})

    def _manifest(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.json"

    def _put_aside(self, step: int) -> None:
        for path in (self._manifest(step), self._manifest(step).with_suffix("")):
            with contextlib.suppress(OSError):  # it has the other format, or another worker was faster
                path.rename(path.with_name(path.name.replace("step-", "damaged-")))

    def _roll(self, newest: int) -> None:
        """Remove what is no longer kept, and what kills left; the state of step `newest` is on the disk."""
        for left in (*self.folder.glob("step-*.new"), self._manifest(newest).with_suffix("")):
            shutil.rmtree(left, ignore_errors=True)  # a folder of format 2
        for left in self.folder.glob(".step-*.new"):
            left.unlink()
        for old in self.steps()[: -self.keep]:
            self._manifest(old).unlink(missing_ok=True)
            shutil.rmtree(self._manifest(old).with_suffix(""), ignore_errors=True)
        with contextlib.suppress(OSError):  # a manifest that cannot be read may name any object
            # Found as text, names are found in a damaged manifest, too.
            texts = [path.read_bytes() for path in self.folder.glob("*.json")]
            self._objects.keep({name.decode() for text in texts for name in re.findall(rb"\b[0-9a-f]{64}\b", text)})


def _digest(state: Any) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield what a training changes; a base model that stays as it is comes from its own files."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
