"""Documents that wait on disk while a corpus is prepared, until it is known which of them are held out."""

import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val"]


class Spool:
    """Documents in a file, read back by number; in memory are their ends, origins and parts.

    Args:
        path: a new file.

    Attributes:
        origins: number of the source of each.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("w+b")
        self._ends, self.origins = array("q"), array("q")
        self._held_out: list[NDArray[np.bool_]] = []

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return os.pread(self._file.fileno(), self._ends[index] - start, start).decode()

    def append(self, text: str, origin: int) -> None:
        """Add a document."""
        data = text.encode()
        self._file.write(data)
        self._ends.append(len(data) + self.num_bytes())
        self.origins.append(origin)

    def num_bytes(self) -> int:
        """Return the bytes of all documents."""
        return self._ends[-1] if self._ends else 0

    def hold_out(self, sizes: Sequence[int], share: float, seed: list[int]) -> int:
        """Hold out a share of the documents appended since the last call, at least one group and never all.

        Args:
            sizes: of the groups that must not be parted, in order; at least two.
            share: of the groups.
            seed: of the choice.

        Returns:
            How many documents are held out.
        """
        self._file.flush()
        count = min(len(sizes) - 1, max(1, round(share * len(sizes))))
        chosen = np.zeros(len(sizes), dtype=np.bool_)
        chosen[np.random.Generator(np.random.PCG64(seed)).permutation(len(sizes))[:count]] = True
        self._held_out.append(np.repeat(chosen, sizes))
        return int(self._held_out[-1].sum())

    def part(self, split: Split) -> NDArray[np.int64]:
        """Return the numbers of the documents of a part."""
        return np.flatnonzero(np.concatenate(self._held_out) == (split == "val"))

    def remove(self) -> None:
        """Close and remove the file."""
        self._file.close()
        self._path.unlink()
