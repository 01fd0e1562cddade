"""What is imitated: answers that were right, and those that would have been right for something else.

Owns which answers are kept for a prompt, how often each prompt is met, and what may never be learned.
"""

import random
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple

from swarm.learn.samples import Sample
from swarm.prompt import STOP, agent_prompt

MAX_KEPT = 1 << 19
"""Other goals and predictions that are learned from, of each learner: the newest."""


class Judged(NamedTuple):
    """An attempt that the world has judged.

    Attributes:
        prompt, observation, answer: what was read, the world's part of it, and what was done.
        right: whether it earned something.
        told: what else it would have been right for (`World.relabel`): observations, each with its answer.
        undirected: the prompt without its directive, where the answer is taught; otherwise "".
    """

    prompt: str
    observation: str
    answer: str
    right: bool
    told: Sequence[tuple[str, str]] = ()
    undirected: str = ""


class Imitated:
    """Right answers by prompt.

    Args:
        per_task: distinct answers that are kept for each prompt: the shortest.

    Attributes:
        right: prompts that were posed -> answers.
        relabelled: other prompts -> answers.
    """

    def __init__(self, per_task: int) -> None:
        self.per_task = per_task
        self.right: dict[str, list[str]] = {}
        self.relabelled: dict[str, list[str]] = {}

    def add_right(self, prompt: str, answer: str) -> None:
        """Keep an answer that was right."""
        _keep(self.right, prompt, answer, self.per_task)

    def add_relabelled(self, prompt: str, answer: str) -> None:
        """Keep what an attempt would have been right for."""
        _keep(self.relabelled, prompt, answer, self.per_task)
        forget(self.relabelled)

    def take(self, attempt: Judged, posed: Container[str], is_barred: Callable[[str], bool]) -> int:
        """Keep an attempt that was right, and what another one would have been right for.

        Args:
            attempt: one that was made.
            posed: observations that are asked for; those of an attempt that was right must be among them.
            is_barred: whether nothing may be learned about an observation.

        Returns:
            How many were barred.
        """
        barred = 0
        for observation, answer in attempt.told:
            if is_barred(observation):
                barred += 1
            elif observation in posed:
                self.add_right(agent_prompt(observation), answer)
            else:
                self.add_relabelled(agent_prompt(observation), answer)
        if attempt.right and attempt.observation in posed:
            same = [answer for observation, answer in attempt.told if observation == attempt.observation]
            for prompt in filter(None, (attempt.prompt, attempt.undirected)):
                self.add_right(prompt, (same or [attempt.answer])[0])
        return barred

    def pose(self, observation: str) -> None:
        """Take in what is asked for from now on: what would have been right for it, is."""
        prompt = agent_prompt(observation)
        for answer in self.relabelled.get(prompt, ()):
            self.add_right(prompt, answer)

    def knows(self, observation: str) -> bool:
        """Return whether there is a right answer to what is asked for."""
        return agent_prompt(observation) in self.right

    def own(self) -> list[Sample]:
        """Return right answers; each prompt is met as often, whatever it has."""
        most = max(map(len, self.right.values()), default=0)
        return [
            Sample(prompt, some[turn % len(some)] + STOP) for prompt, some in self.right.items() for turn in range(most)
        ]

    def hindsight(self) -> list[Sample]:
        """Return relabelled attempts, each once: what random attempts seldom come to is met as often as the rest."""
        return [Sample(prompt, answer + STOP) for prompt, some in self.relabelled.items() for answer in some]

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON data."""
        return {"right": self.right, "relabelled": self.relabelled}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a `state`."""
        self.right, self.relabelled = dict(state["right"]), dict(state["relabelled"])


def choose(kinds: Mapping[str, Sequence[Sample]], shares: Mapping[str, float], rng: random.Random) -> Sample:
    """Return a sample of one of the kinds that are there, by their shares."""
    there = [kind for kind in kinds if kinds[kind]]
    (kind,) = rng.choices(there, [shares[kind] for kind in there]) if len(there) > 1 else there
    return rng.choice(kinds[kind])


def _keep(kept: dict[str, list[str]], prompt: str, answer: str, most: int) -> None:
    """Keep the shortest answers to a prompt."""
    found = kept.setdefault(prompt, [])
    if answer not in found:
        found.append(answer)
        if len(found) > most:
            found.sort(key=lambda text: (len(text), text))
            found.pop()


def forget(kept: dict[Any, Any]) -> None:
    """Drop the oldest entry where there are more than `MAX_KEPT`."""
    if len(kept) > MAX_KEPT:
        del kept[next(iter(kept))]
