"""Agents' long-term memories in the run folder: one file per episode and tick, so that a killed run finds the right.

Owns when they are written and which are kept. A tick's memories are on disk before its record is in the journal, so a
run that is resumed from its last record finds what its agents remembered then. What a memory is, it refuses to know.

    runs/<name>/memory/e<episode>-t<tick>.safetensors   agent -> its memory as bytes
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from swarm.errors import SwarmError
from swarm.files import make_folder, write_whole

MEMORY_FOLDER = "memory"

KEPT_TICKS = {"tick": 2, "group": 64}
"""Of an episode in flight, by durability: under `group` a power cut takes the last records, not their memories."""

KEPT_EPISODES = 4
"""Ended episodes whose last memories stay, for people who look into them."""

_NAME = re.compile(r"e([0-9]+)-t([0-9]+)\.safetensors")


class MemoryStore:
    """Memories of one run.

    Args:
        folder: the run folder's `memory`.
        durability: that of the journal.
    """

    def __init__(self, folder: Path, durability: str = "tick") -> None:
        self.folder = folder
        self._kept_ticks = KEPT_TICKS[durability]

    def episodes(self) -> dict[int, list[int]]:
        """Return the ticks of which memories are there, by episode, oldest first."""
        found: dict[int, list[int]] = {}
        for path in sorted(self.folder.glob("e*.safetensors")):
            if name := _NAME.fullmatch(path.name):
                found.setdefault(int(name[1]), []).append(int(name[2]))
        return {episode: sorted(ticks) for episode, ticks in sorted(found.items())}

    def save(self, episode: int, tick: int, memories: Mapping[str, bytes]) -> None:
        """Write what the agents of an episode remember after a tick; older ticks are removed.

        Raises:
            SwarmError: the disk refuses.
        """
        path = self._path(episode, tick)
        arrays = {agent: np.frombuffer(data, np.uint8) for agent, data in memories.items()}
        try:
            make_folder(self.folder)
            write_whole(path, lambda fresh: save_file(arrays, fresh))
            for old in self.episodes()[episode][: -self._kept_ticks]:
                self._path(episode, old).unlink(missing_ok=True)
        except OSError as error:
            raise SwarmError(
                f"cannot write {path}: {error.strerror or error}; check space and write permission"
            ) from error

    def load(self, episode: int, tick: int) -> dict[str, bytes]:
        """Return what the agents of an episode remembered after a tick.

        Raises:
            SwarmError: it is missing or damaged.
        """
        path = self._path(episode, tick)
        try:
            return {agent: data.tobytes() for agent, data in load_file(path).items()}
        except (OSError, SafetensorError) as error:
            raise SwarmError(
                f"{path} is missing or damaged ({error}), so agents would forget; start a new run"
            ) from error

    def last(self) -> dict[str, bytes]:
        """Return what agents remembered after the last tick of the last episode, {} where there is no file."""
        there = self.episodes()
        return self.load(max(there), there[max(there)][-1]) if there else {}

    def end_episode(self, episode: int, in_flight: Collection[int] = ()) -> None:
        """Keep the last memories of this episode and of a few ended ones before it.

        Args:
            episode: which one ended.
            in_flight: episodes that go on and lose nothing.
        """
        there = self.episodes()
        for left in self.folder.glob("*.new"):  # by a kill; nobody else writes here
            left.unlink(missing_ok=True)
        for old in there.get(episode, [])[:-1]:
            self._path(episode, old).unlink(missing_ok=True)
        ended = [number for number in there if number < episode and number not in in_flight]
        for gone in ended[: -(KEPT_EPISODES - 1)]:
            for tick in there[gone]:
                self._path(gone, tick).unlink(missing_ok=True)

    def _path(self, episode: int, tick: int) -> Path:
        return self.folder / f"e{episode}-t{tick}.safetensors"
