"""Content-addressed objects: the tensors of training states, each stored once, compressed and checked.

- A tensor is one object; one of more than 1 MiB is cut into blocks of whole rows of about 1 MiB, so that a table of
  which few rows change is not written anew. All axes but the last count rows.
- Tensors of up to 256 KiB are joined by type first (`packed`); a file each would have the disk settle hundreds of files
  per state (decoder of 1.3 M, 152 tensors, 2 CPU cores, 2026-12-01: 300 to 500 ms per save, joined 140 ms).
- An object is named after the sha256 of its bytes, whatever type and shape they have, so equal bytes are one file.
- Bytes of the same significance stand together ("byte planes") before zstandard compresses them: signs and exponents
  of weights are alike, their mantissas are not.
- A block that changed little is stored as the difference (exclusive or) from what it was, its base: hashed tables
  change a few rows in every block. A base is never a difference itself.
"""

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from torch import Tensor

from ulm.files import make_folder, sync

BLOCK_BYTES = 2**20
PACKED_BYTES = 2**18
LEVEL = 3
MIN_DELTA_BYTES = 2**14
"""Smaller objects are always whole."""

RETRY = 8
"""Saves after which a difference is tried again of a block that had changed everywhere."""

THREADS = 4
"""Hashing and compressing use all processors, and a disk can settle several files at once."""

_DELTA = 0x80
"""Added to an object's first byte, which is else the width of its items; the name of the base follows."""


class DamagedObjectError(ValueError):
    """An object that is missing, or is not what was written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor is.

    Attributes:
        dtype: as torch calls it, such as `float32`.
        shape: of the tensor.
        objects: names of its blocks, in order.
    """

    dtype: str
    shape: tuple[int, ...]
    objects: tuple[str, ...]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Entry":
        """Return what a JSON record says."""
        return cls(str(record["dtype"]), tuple(record["shape"]), tuple(record["objects"]))


@dataclass(frozen=True, slots=True)
class _Block:
    """A part of a tensor: whose and which, the width of its items in bytes, its bytes, and the object that it was."""

    place: tuple[str, int]
    width: int
    raw: np.ndarray
    near: str | None


class ObjectStore:
    """The objects in a folder. One process writes; others may read.

    Args:
        folder: holds a file per object and nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sizes: dict[str, int] = {}  # of the files that this process has written, or read and found whole
        self._bases: dict[str, str] = {}
        self._dense: dict[tuple[str, int], int] = {}  # saves since a difference of a block was tried in vain

    def write(self, tensors: Mapping[str, Tensor], before: Mapping[str, Entry]) -> dict[str, Entry]:
        """Store tensors; when this returns they are on the disk.

        Args:
            tensors: by name, of any type, shape and device.
            before: the entries of the state before, whose blocks may serve as bases.

        Returns:
            An entry per tensor.

        Raises:
            OSError: no permission or no space; what was stored before is as it was.
        """
        make_folder(self.folder)
        blocks: list[_Block] = []
        for key, tensor in tensors.items():
            old = before[key].objects if key in before else ()
            for number, raw in enumerate(_cut(tensor)):
                near = old[number] if number < len(old) else None
                blocks.append(_Block((key, number), tensor.element_size(), raw, near))
        with ThreadPoolExecutor(THREADS) as pool:
            names = list(pool.map(lambda block: _hash(block.raw), blocks))
            fresh = {name: block for name, block in zip(names, blocks, strict=True) if not self._holds(name)}
            list(pool.map(self._write, fresh, fresh.values()))
        if fresh:
            sync(self.folder)
        objects: dict[str, list[str]] = {key: [] for key in tensors}
        for name, block in zip(names, blocks, strict=True):
            objects[block.place[0]].append(name)
        return {
            key: Entry(_name_of(tensor.dtype), tuple(tensor.shape), tuple(objects[key]))
            for key, tensor in tensors.items()
        }

    def read(self, entries: Mapping[str, Entry]) -> dict[str, Tensor]:
        """Return the tensors of entries, on the CPU.

        Raises:
            DamagedObjectError: an object is missing or damaged, or an entry makes no sense.
        """
        with ThreadPoolExecutor(THREADS) as pool:
            return dict(zip(entries, pool.map(self._tensor, entries.values()), strict=True))

    def bases(self, entries: Iterable[Entry]) -> list[str]:
        """Return the objects without which those of entries, written or read here, cannot be read."""
        return sorted({self._bases[name] for entry in entries for name in entry.objects if name in self._bases})

    def keep(self, names: Collection[str]) -> None:
        """Remove all other objects, and what a kill left half written."""
        for path in self.folder.iterdir():
            if path.name not in names:
                path.unlink(missing_ok=True)
                self._sizes.pop(path.name, None)
                self._bases.pop(path.name, None)

    def _holds(self, name: str) -> bool:
        """Return whether an object need not be written: it is known here, has the size that it had, and so its base."""
        try:
            known = name in self._sizes and (self.folder / name).stat().st_size == self._sizes[name]
        except OSError:
            return False
        return known and (name not in self._bases or self._holds(self._bases[name]))

    def _write(self, name: str, block: _Block) -> None:
        # What is there already, unknown or damaged, may be the base of another object, and has to be whole.
        base = None if (self.folder / name).exists() else self._base(block)
        self._bases.pop(name, None)
        data = None if base is None else self._difference(base, block)
        if data is None:
            data = _object(block)
        else:
            self._bases[name] = str(base)
        fresh = self.folder / f"{name}.new"
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.folder / name)
        self._sizes[name] = len(data)

    def _base(self, block: _Block) -> str | None:
        """Return from which object a difference is worth a try, if any."""
        if block.near is None or block.raw.size < MIN_DELTA_BYTES:
            return None
        if (tries := self._dense.get(block.place, 0)) % RETRY:
            self._dense[block.place] = tries + 1
            return None
        base = self._bases.get(block.near, block.near)
        return base if self._holds(base) else None

    def _difference(self, base: str, block: _Block) -> bytes | None:
        """Return an object that is the difference from a base, None if that saves less than half."""
        try:
            changed = block.raw ^ self._raw(base, block.raw.size, whole=True)
        except DamagedObjectError:  # or of another size; if its bytes come again, they are written again
            self._sizes.pop(base, None)
            return None
        data = bytes([block.width | _DELTA]) + bytes.fromhex(base) + _packed(changed, block.width)
        if len(data) <= block.raw.size // 64 or len(data) <= len(_object(block)) // 2:  # the first is seen at once
            self._dense.pop(block.place, None)
            return data
        if base == block.near:  # so much since the last save, not in the course of many
            self._dense[block.place] = 1
        return None

    def _tensor(self, entry: Entry) -> Tensor:
        dtype = getattr(torch, entry.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise DamagedObjectError(f"no type {entry.dtype}")
        sizes = _block_sizes(entry.shape, dtype.itemsize)
        if len(sizes) != len(entry.objects):
            raise DamagedObjectError(f"{len(entry.objects)} objects in place of {len(sizes)}")
        if not sizes:
            return torch.empty(entry.shape, dtype=dtype)
        raw = np.concatenate([self._raw(name, size) for name, size in zip(entry.objects, sizes, strict=True)])
        return torch.from_numpy(raw).view(dtype).reshape(entry.shape)

    def _raw(self, name: str, size: int, *, whole: bool = False) -> np.ndarray:
        """Return the bytes of an object; `whole`: it must not be a difference."""
        try:
            data = (self.folder / name).read_bytes()
            width, start = data[0] & ~_DELTA, 1
            is_delta = data[0] != width
            if is_delta:
                base, start = data[1:33].hex(), 33
            frame = memoryview(data)[start:]
            # A damaged frame may ask for any amount of memory.
            if not 0 < width <= size or size % width or zstandard.frame_content_size(frame) != size:
                raise DamagedObjectError(f"object {name[:12]} is damaged")
            planes = np.frombuffer(zstandard.decompress(frame), np.uint8).reshape(width, -1)
        except (OSError, IndexError, zstandard.ZstdError) as error:
            raise DamagedObjectError(f"object {name[:12]} is missing or damaged ({error})") from error
        raw = np.ascontiguousarray(planes.T).reshape(-1)
        if is_delta and not whole:
            raw = raw ^ self._raw(base, size, whole=True)
        if _hash(raw) != name:
            raise DamagedObjectError(f"object {name[:12]} is damaged (its checksum is wrong)")
        self._sizes[name] = len(data)
        if is_delta:
            self._bases[name] = base
        return raw


Layout = dict[str, list[tuple[str, tuple[int, ...]]]]
"""For each pack, names and shapes of the tensors that it holds, in order."""


def packed(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Layout]:
    """Return tensors with the small ones joined, one flat tensor per type and first part of their names.

    A pack is called `pack.PART.TYPE`, so what belongs to one part does not depend on another.
    """
    found: dict[str, Tensor] = {}
    small: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if tensor.numel() * tensor.element_size() > PACKED_BYTES:
            found[name] = tensor
        else:
            small.setdefault(f"pack.{name.partition('.')[0]}.{_name_of(tensor.dtype)}", {})[name] = tensor
    for pack, parts in small.items():
        found[pack] = torch.cat([tensor.detach().cpu().reshape(-1) for tensor in parts.values()])
    return found, {pack: [(k, tuple(v.shape)) for k, v in parts.items()] for pack, parts in small.items()}


def unpacked(tensors: Mapping[str, Tensor], layout: Mapping[str, Iterable[Any]]) -> dict[str, Tensor]:
    """Return what `packed` was given, of the packs that are there."""
    found = {name: tensor for name, tensor in tensors.items() if name not in layout}
    for pack, parts in layout.items():
        start = 0
        for name, shape in parts if pack in tensors else ():
            end = start + prod(shape)
            found[name] = tensors[pack][start:end].reshape(tuple(shape)).clone()
            start = end
    return found


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _block_sizes(shape: tuple[int, ...], width: int) -> list[int]:
    """Return how many bytes each block of a tensor has; an empty tensor has no block."""
    total = prod(shape) * width
    if total <= BLOCK_BYTES:
        return [total] if total else []
    row = shape[-1] * width if len(shape) > 1 else width
    block = max(1, BLOCK_BYTES // row) * row
    return [min(block, total - start) for start in range(0, total, block)]


def _cut(tensor: Tensor) -> list[np.ndarray]:
    """Return the bytes of a tensor in blocks."""
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    sizes = _block_sizes(tuple(tensor.shape), tensor.element_size())
    return np.split(raw, np.cumsum(sizes)[:-1]) if sizes else []


def _hash(raw: np.ndarray) -> str:
    return hashlib.sha256(raw.data).hexdigest()


def _object(block: _Block) -> bytes:
    return bytes([block.width]) + _packed(block.raw, block.width)


def _packed(block: np.ndarray, width: int) -> bytes:
    return zstandard.compress(block.reshape(-1, width).T.tobytes(), LEVEL)
