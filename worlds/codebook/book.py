"""The codebook: what stays the same over the episodes of a run, when it is told, and when it changes.

It follows from the world's options alone. Keys and values are two words each. The first word of a key is that of its
class; the values of a class have their first word in common.
"""

import random
from collections.abc import Collection

from worlds.seeds import DerivedRandom
from worlds.words import WORDS

CLASS_SIZE = 5
CHANGING = 0.4
"""Share of the recurring notes whose value changes once."""

_STRIDE = 7919
"""A prime larger than the number of words: steps of it through all pairs of words meet none twice."""


class Codebook:
    """Recurring notes, and fresh keys that are none of them.

    Args:
        seed: which codebook.
        episodes: of a run; values change in its second and third quarter, evenly spread.
        recurring: number of recurring notes, the most frequent first.
        told: recurring notes that a room tells per episode; more only where more change in it.
    """

    def __init__(self, seed: int, episodes: int, recurring: int, told: int) -> None:
        self._seed, self._told = seed, told
        rng, classes = DerivedRandom(seed, "codebook"), max(1, recurring // CLASS_SIZE)
        words = rng.sample(WORDS, len(WORDS))
        self._heads, self._fresh = words[:classes], words[classes + recurring :]
        own = words[classes : classes + recurring]
        self._keys = [f"{self._heads[self.class_of(note)]} {word}" for note, word in enumerate(own)]
        self._shared = rng.sample(WORDS, classes)
        self._values = [rng.sample(WORDS, 2) for _ in own]
        changing = rng.sample(range(recurring), round(CHANGING * recurring))
        first, length = episodes // 4, max(1, episodes // 2)
        self._changes = {note: first + place * length // len(changing) for place, note in enumerate(changing)}

    def note(self, note: int, episode: int) -> tuple[str, str]:
        """Return key and value of a recurring note in an episode."""
        own = self._values[note][self.has_changed(note, -1, episode)]
        return self._keys[note], f"{self._shared[self.class_of(note)]} {own}"

    def class_of(self, note: int) -> int:
        """Return the class of a recurring note."""
        return note % len(self._heads)

    def has_changed(self, note: int, since: int, episode: int) -> bool:
        """Return whether a note has another value in an episode than in an earlier one, or -1 for its first value."""
        return since < self._changes.get(note, episode + 1) <= episode

    def rests(self, episode: int) -> set[int]:
        """Return the half of the notes that an episode does not tell, unless they change in it; it may ask for them."""
        return set(DerivedRandom(self._seed, "rests", episode).sample(range(len(self._keys)), len(self._keys) // 2))

    def told(self, episode: int, room: int) -> list[int]:
        """Return the notes that a room tells in an episode: those that change in it, others by Zipf's law."""
        due = [note for note, at in self._changes.items() if at == episode]
        others = set(range(len(self._keys))) - self.rests(episode) - set(due)
        rng = DerivedRandom(self._seed, "told", episode, room)
        return due + zipf(rng, others, max(0, self._told - len(due)))

    def first_told(self, room: int, episode: int) -> dict[int, int]:
        """Return note -> the episode in which a room first told it, for all that it told up to an episode."""
        first: dict[int, int] = {}
        for earlier in range(episode + 1):
            for note in self.told(earlier, room):
                first.setdefault(note, earlier)
            if len(first) == len(self._keys):
                break
        return first

    def fresh_key(self, number: int) -> str:
        """Return a key that is in no class; at least the first 10,000 numbers have different ones."""
        first, second = divmod(number * _STRIDE % len(self._fresh) ** 2, len(self._fresh))
        return f"{self._fresh[first]} {self._fresh[second]}"

    def unseen(self, number: int, rng: random.Random) -> tuple[str, str]:
        """Return a key of a class that no note has, and what its value begins with."""
        return f"{self._heads[number]} {rng.choice(self._fresh)}", self._shared[number]


def zipf(rng: random.Random, notes: Collection[int], count: int) -> list[int]:
    """Draw different notes by Zipf's law: note n has the weight 1 / (n + 1) (Efraimidis & Spirakis, 2006)."""
    return sorted(sorted(notes), key=lambda note: -(rng.random() ** (note + 1)))[:count]
