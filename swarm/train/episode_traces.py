"""Training texts for agents that remember: whole episodes, call by call, in exactly the layout of play.

Owns what a memory agent learns from. An episode is a list of (prompt, completion) pairs that one agent's memory lives
through. Every episode follows from (seed, number) alone, and every one has fresh notes: none can be learned by heart.
Knows no torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from swarm.prompt import STOP, agent_prompt
from swarm.seeds import derive_seed
from worlds.vault.world import SENTENCES, WORDS, VaultOptions, VaultWorld

__all__ = ["EPISODE_TASKS", "Call", "episode_corpus"]

Call = tuple[str, str, str]
"""(kind, prompt, completion); the completion ends with the stop."""

MAX_PAGES = 24
QUESTIONS_PER_ROOM = 6


def _vault(seed: int, number: int) -> list[Call]:
    """Return an episode of vault-v0 for one agent: pages of its rooms, then questions about them.

    More is asked than in play, where every vault asks once, and in any order: the pages are the same and each question
    is as far from its note as chance will have it.
    """
    rng = random.Random(derive_seed(seed, "episode", "vault", number))  # noqa: S311 - not for secrets
    pages = rng.choice((1, 1, 2, 3, 4, 6))
    rooms = min(8, max(1, int(MAX_PAGES ** rng.random() / pages)))
    options = VaultOptions(rooms=rooms, pages=pages, notes=rng.randint(1, 4), sentences=rng.randint(2, 7))
    world = VaultWorld(1, options)
    world.reset(derive_seed(seed, "notes", "vault", number))
    names = sorted(rng.sample(range(16), rooms))  # of a larger house, whose other rooms are others' business
    calls: list[Call] = []
    for name, room in zip(names, range(rooms), strict=True):
        for page, text in enumerate(world.pages(room), 1):
            observation = f"room {name} page {page} of {pages} : {text}"
            # Somebody may already tell what is not needed yet.
            told = f"key {rng.choice(WORDS)}" if rng.random() < 0.05 else ""
            calls.append(("read", agent_prompt(observation, told), f"next{STOP}"))
    questions = [
        (name, key, value)
        for name, room in zip(names, range(rooms), strict=True)
        for key, value in rng.sample(world.notes(room), min(QUESTIONS_PER_ROOM, len(world.notes(room))))
    ]
    rng.shuffle(questions)
    for name, key, value in questions[: 2 * QUESTIONS_PER_ROOM]:
        if rng.random() < 0.3:
            calls.append(("wait", agent_prompt(rng.choice((f"room {name} locked", "no room"))), f"wait{STOP}"))
        asked = agent_prompt(f"room {name} ask {key}")
        told = agent_prompt(f"room {name} locked", f"key {key}")
        calls.append(("answer", asked if rng.random() < 0.7 else told, f"open {key} {value}{STOP}"))
    return calls


EPISODE_TASKS: dict[str, Callable[[int, int], list[Call]]] = {"vault-agent": _vault}
"""Task name -> the episode of a seed and a number."""


def episode_corpus(task: str, size: int = 400) -> Iterator[str]:
    """Yield the texts that a memory agent's tokenizer is trained on: its words, each often enough to be one token."""
    for _ in range(20):
        yield " " + " ".join(WORDS)
        yield " . ".join(SENTENCES)
    for number in range(size):
        for _, prompt, completion in EPISODE_TASKS[task](0, number):
            yield prompt + completion
