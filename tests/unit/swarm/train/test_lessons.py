"""Texts that policies learn from: laid out as in play, and the same for ever for a world, task, seed and number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from swarm.errors import SwarmError
from swarm.prompt import agent_prompt
from swarm.train.lessons import corpus, episode, example, held_out_example, open_lessons, pair
from worlds import available, world_class
from worlds.protocol import Example

pytestmark = pytest.mark.thorough

GOLDEN: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "golden_texts.json").read_text())
"""World and task -> hashes of the texts of today's recipes.

They were those of the shipped weights (commit 30f1890) until split-numbers counted halves in whole numbers: sums of
floats had broken ties another way from CPU to CPU, in at most 1.6 % of the examples (experiments/LOG.md, 2026-11-29).
"""


def digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{part}\0" for part in parts).encode()).hexdigest()


@pytest.mark.parametrize("place", GOLDEN)
def test_texts_are_the_same_on_every_machine(place: str) -> None:
    world, task = place.split()
    if world in ("codebook-v0", "vault-v0"):  # their examples are whole episodes
        found = {"examples": digest(part for i in range(100) for e in episode(world, task, 1, i) for part in pair(e))}
    else:
        kinds = open_lessons(world, task).tasks[task]
        scored = [held_out_example(world, task, kind, 1, i) for kind in kinds for i in range(20)]
        found = {
            "examples": digest(part for i in range(300) for part in pair(example(world, task, 1, i))),
            "held_out": digest(part for shown in scored for part in pair(shown)),
        }
    assert found == {name: GOLDEN[place][name] for name in found}


@pytest.mark.parametrize(
    ("world", "task"),
    [
        ("split-numbers-v0", "puzzle-coordinator"),
        ("facts-v0", "facts-agent"),
        ("vault-v0", "vault-agent"),
        ("codebook-v0", "codebook-agent"),
    ],
)
def test_texts_of_tokenizers_are_the_same_on_every_machine(world: str, task: str) -> None:
    assert digest(corpus(world, task)) == GOLDEN[f"{world} {task}"]["corpus"]


def test_every_task_of_every_built_in_world_has_its_texts_on_record() -> None:
    found = [
        f"{world} {task}"
        for world in available()
        if world_class(world).__module__.startswith("worlds.") and world_class(world).lessons
        for task in open_lessons(world).tasks
    ]
    assert sorted(found) == sorted(GOLDEN)


def test_a_text_follows_from_seed_and_number_alone() -> None:
    def texts(seed: int, numbers: Iterable[int]) -> list[Example]:
        return [example("split-numbers-v0", "puzzle-agent", seed, number) for number in numbers]

    forward = texts(3, range(20))
    assert texts(3, reversed(range(20))) == forward[::-1]
    assert texts(4, range(20)) != forward
    assert len({shown.observation for shown in forward}) == 20


def test_agents_read_prompts_of_play_and_answer_with_a_line() -> None:
    shown = Example("directed", "agent", "half 2 4 9 target 145", "100+[45]", "100+(9+2)*4")
    assert pair(shown) == ("directed", agent_prompt("half 2 4 9 target 145", "100+[45]"), "100+(9+2)*4\n")


def test_coordinators_read_briefings_as_they_stand() -> None:
    assert pair(Example("pick", "coordinator", "half 2 4 9 make 45\n", "", " 45"))[1:] == (
        "half 2 4 9 make 45\n",
        " 45\n",
    )
    assert pair(Example("marks", "coordinator", "2 4 9:", "", "45+"))[1:] == ("2 4 9:", "45+")  # the menu ends it


@pytest.mark.parametrize(
    ("world", "task", "message"),
    [
        ("echo-v0", None, "world echo-v0 has no lessons, so nothing can be trained on it before play"),
        ("vault-v0", "chess", "world vault-v0 has no task 'chess'; available: vault-agent"),
        ("valt-v0", None, "did you mean vault-v0"),
    ],
)
def test_what_cannot_be_learned_is_one_line(world: str, task: str | None, message: str) -> None:
    with pytest.raises(SwarmError, match=message) as caught:
        open_lessons(world, task)
    assert "\n" not in str(caught.value)


def test_episodes_are_no_pairs() -> None:
    with pytest.raises(SwarmError, match="whole episodes"):
        example("vault-v0", "vault-agent", 1, 0)
