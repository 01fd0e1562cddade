"""What agents that remember can learn of vault-v0: whole episodes, call by call, as one agent lives through them.

Every episode has fresh notes: none can be learned by heart.
"""

import random
from collections.abc import Iterator, Mapping, Sequence

from worlds.protocol import Example, Lessons
from worlds.seeds import DerivedRandom
from worlds.vault.world import SENTENCES, VaultOptions, VaultWorld
from worlds.words import WORDS

MAX_PAGES = 24
QUESTIONS_PER_ROOM = 6


def _episode(rng: random.Random) -> list[Example]:
    """Return an episode for one agent: pages of its rooms, then questions about them.

    More is asked than in play, where every vault asks once, and in any order: the pages are the same and each question
    is as far from its note as chance will have it.
    """
    pages = rng.choice((1, 1, 2, 3, 4, 6))
    rooms = min(8, max(1, int(MAX_PAGES ** rng.random() / pages)))
    world = VaultWorld(1, VaultOptions(rooms=rooms, pages=pages, notes=rng.randint(1, 4), sentences=rng.randint(2, 7)))
    # Shipped weights were trained on notes of a seed of their own, so they keep it.
    world.reset(rng.derive("notes") if isinstance(rng, DerivedRandom) else rng.getrandbits(63))
    names = sorted(rng.sample(range(16), rooms))  # of a larger house, whose other rooms are others' business
    calls: list[Example] = []
    for name, room in zip(names, range(rooms), strict=True):
        for page, text in enumerate(world.text[room], 1):
            # Somebody may already tell what is not needed yet.
            told = f"key {rng.choice(WORDS)}" if rng.random() < 0.05 else ""
            calls.append(Example("read", "agent", f"room {name} page {page} of {pages} : {text}", told, "next"))
    questions = [
        (name, key, value)
        for name, room in zip(names, range(rooms), strict=True)
        for key, value in rng.sample(world.notes[room], min(QUESTIONS_PER_ROOM, len(world.notes[room])))
    ]
    rng.shuffle(questions)
    for name, key, value in questions[: 2 * QUESTIONS_PER_ROOM]:
        if rng.random() < 0.3:
            calls.append(Example("wait", "agent", rng.choice((f"room {name} locked", "no room")), "", "wait"))
        seen, told = (f"room {name} ask {key}", "") if rng.random() < 0.7 else (f"room {name} locked", f"key {key}")
        calls.append(Example("answer", "agent", seen, told, f"open {key} {value}"))
    return calls


class VaultLessons(Lessons):
    """Read, wait, and answer from memory."""

    tasks: Mapping[str, Sequence[str]] = {"vault-agent": ("read", "wait", "answer")}
    practice = frozenset({"read", "wait", "answer"})

    def example(self, task: str, rng: random.Random, held_out: bool, kind: str | None = None) -> list[Example]:
        """Return the calls of one episode, of all kinds."""
        return _episode(rng)

    def corpus(self, task: str) -> Iterator[str | Example]:
        """Yield all words, each often enough to be one token, and episodes."""
        for _ in range(20):
            yield " " + " ".join(WORDS)
            yield " . ".join(SENTENCES)
        for number in range(400):
            yield from self.example(task, DerivedRandom(0, "episode", "vault", number), False)
