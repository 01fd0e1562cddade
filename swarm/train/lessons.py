"""Training texts: what worlds bring to learn from, laid out as play lays out its prompts.

Owns how an `Example` of a world becomes (kind, prompt, completion), and the seed of each: a text follows from world,
task, seed and index alone, so the cursor of a training is one number. Knows no torch.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

from swarm.errors import SwarmError
from swarm.prompt import STOP, agent_prompt
from worlds.protocol import Example, Lessons, WorldError
from worlds.registry import load_lessons, world_class
from worlds.seeds import DerivedRandom

Text = tuple[str, str, str]
"""(kind, prompt, completion)."""


_load = lru_cache(maxsize=16)(load_lessons)


def _loaded(world_id: str) -> Lessons | None:
    try:
        return _load(world_id)
    except WorldError as error:
        raise SwarmError(str(error)) from error


def open_lessons(world_id: str, task: str | None = None) -> Lessons:
    """Return the lessons of a world.

    Args:
        world_id: the world.
        task: one of its tasks, if it shall be there.

    Raises:
        SwarmError: there is no such world, it has no lessons, they are broken, or the task is none of theirs.
    """
    lessons = _loaded(world_id)
    if lessons is None:
        raise SwarmError(
            f"world {world_id} has no lessons, so nothing can be trained on it before play; name lessons in the "
            "world's class"
        )
    if task is not None and task not in lessons.tasks:
        raise SwarmError(f"world {world_id} has no task {task!r}; available: {', '.join(lessons.tasks)}")
    return lessons


def pair(example: Example) -> Text:
    """Return kind, prompt and completion of an example.

    The answer to a prompt that ends its line is a line. A prompt that does not is gone on with, and its form ends it.
    """
    prompt = agent_prompt(example.observation, example.directive) if example.role == "agent" else example.observation
    return example.kind, prompt + example.given, example.answer + (STOP if prompt.endswith("\n") else "")


def asked(world_id: str, prompt: str) -> Callable[[str], str | None]:
    """Return what a world appends to an answer to a prompt (`World.inline`), or its lessons in place of a memory."""
    observation, taught = prompt.removesuffix("\n"), open_lessons(world_id)

    def ask(text: str) -> str | None:
        found = world_class(world_id).inline(observation, text)
        return taught.inline(observation, text) if found is None else found

    return ask


def pieces(world_id: str) -> str:
    """Return what a tokenizer leaves whole (`Lessons.pieces`); "" for a world without lessons."""
    taught = _loaded(world_id)
    return "" if taught is None else taught.pieces


def example(world_id: str, task: str, seed: int, index: int) -> Example:
    """Return training example number `index` of a task; no puzzle that is kept for evaluation is ever in it.

    Raises:
        SwarmError: see `open_lessons`; or the task's examples are whole episodes.
    """
    return _only(open_lessons(world_id, task).example(task, DerivedRandom(seed, "trace", task, index), False), task)


def held_out_example(world_id: str, task: str, kind: str, seed: int, index: int) -> Example:
    """Return held-out example number `index` of one kind of a task, for scoring; errors as of `example`."""
    lessons = open_lessons(world_id, task)
    rng = DerivedRandom(seed, "held-out", task, list(lessons.tasks[task]).index(kind), index)
    return _only(lessons.example(task, rng, True, kind), task)


def episode(world_id: str, task: str, seed: int, number: int, held_out: bool = False) -> list[Example]:
    """Return the calls of episode `number` of a task, for agents that remember.

    Raises:
        SwarmError: see `open_lessons`.
    """
    rng = DerivedRandom(seed, "episode", world_id.rpartition("-v")[0], number)
    return open_lessons(world_id, task).example(task, rng, held_out)


def corpus(world_id: str, task: str) -> Iterator[str]:
    """Return the texts that the tokenizer of a task is trained on.

    Raises:
        SwarmError: see `open_lessons`.
    """
    texts = open_lessons(world_id, task).corpus(task)
    return (text if isinstance(text, str) else "".join(pair(text)[1:]) for text in texts)


def _only(examples: list[Example], task: str) -> Example:
    if len(examples) != 1:
        raise SwarmError(f"examples of task {task!r} are whole episodes; train it as an agent with memory")
    return examples[0]
