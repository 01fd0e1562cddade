"""What agents that remember can learn of codebook-v0: some episodes in a row, call by call, as one agent lives them.

Every document has a codebook of its own, so none can be learned by heart. What is right follows from what the agent has
read in the document: it opens what it was told in this episode or an earlier one, with the last value that it was told,
and reads on where it was told nothing.
"""

import random
from collections.abc import Iterator, Mapping, MutableSequence, Sequence

from worlds.codebook.world import KINDS, NOTE, CodebookOptions, CodebookWorld
from worlds.protocol import Example, Lessons
from worlds.seeds import DerivedRandom
from worlds.vault.world import SENTENCES
from worlds.words import WORDS

MAX_NOTES = 64
"""In the news of a document: about what a memory of 256 items holds, at a note of four words."""

TOLD = 0.1
"""Share of the answers at which a coordinator tells a note: half of them that which is asked for."""


class Reader:
    """Plays by rule: opens what it has notes of, reads on where it has none.

    Attributes:
        notes: keys and values that it was told, the last ones last.
    """

    def __init__(self) -> None:
        self.notes: MutableSequence[tuple[str, str]] = []

    def act(self, observation: str, directive: str = "") -> str:
        """Return the action; remember what is told."""
        self.notes.extend(NOTE.findall(f"{observation}\n{directive}"))
        what, _, key = observation.partition("ask ")
        if what or not key:
            return "wait" if observation == "no vault" else "next"
        if key.startswith("first "):
            key, head = key.removeprefix("first "), key.split()[1]
            value = next((value.split()[0] for known, value in self.notes if known.split()[0] == head), None)
        else:
            value = next((value for known, value in reversed(self.notes) if known == key), None)
        return f"open {key} {value}" if value else "read"


def _document(rng: random.Random) -> list[Example]:
    """Return the calls of an agent in up to eight episodes that follow each other.

    More is asked than in play, and sometimes for what was told before the document began.
    """
    news, notes, before = rng.choice((1, 1, 2)), rng.choice((2, 3, 4, 6, 8)), rng.choice((0, 0, 0, 1, 2))
    episodes = max(1, min(rng.choice((1, 2, 4, 6, 8)), MAX_NOTES // (news * notes)))
    options = CodebookOptions(
        codebook=rng.getrandbits(63),
        episodes=before + episodes,
        recurring=rng.choice((5, 10, 15)),
        news=news,
        notes=notes,
        sentences=rng.choice((2, 4, 8, 16)),
        one_offs=rng.randint(1, news * notes - news * notes // 2),
    )
    world, reader, calls = CodebookWorld(1, options), Reader(), list[Example]()
    for episode in range(before, before + episodes):
        seen = world.reset(rng.getrandbits(63), {"episode": episode})[0]["a0"]
        while world.agents:
            vault, told = world.vault("a0"), ""
            if vault and seen == vault.question and rng.random() < TOLD:
                other = world.book.fresh_key(rng.randrange(50_000, 100_000)), " ".join(rng.sample(WORDS, 2))
                key, value = (vault.key, vault.value) if rng.random() < 0.5 and vault.kind != "class" else other
                told = f"note {key} {value}"
            action = reader.act(seen, told)
            kind = vault.kind if vault and action.startswith("open ") else action
            calls.append(Example(kind, "agent", seen, told, action))
            seen = world.step({"a0": action}).observations["a0"]
        if rng.random() < 0.3:
            calls.append(Example("wait", "agent", "no vault", "", "wait"))
    return calls


class CodebookLessons(Lessons):
    """Read, remember over the episodes, and answer from memory."""

    tasks: Mapping[str, Sequence[str]] = {"codebook-agent": (*KINDS, "next", "read", "wait")}
    practice = frozenset((*KINDS, "next", "read", "wait"))

    def example(self, task: str, rng: random.Random, held_out: bool, kind: str | None = None) -> list[Example]:
        """Return the calls of some episodes, of all kinds."""
        return _document(rng)

    def corpus(self, task: str) -> Iterator[str | Example]:
        """Yield all words, each often enough to be one token, and episodes."""
        for _ in range(20):
            yield " " + " ".join(WORDS)
            yield " . ".join(SENTENCES)
        for number in range(200):
            yield from self.example(task, DerivedRandom(0, "episode", "codebook", number), False)
