"""Training texts: every answer is true by exact arithmetic, and nothing held out or aimed at 24 is among them."""

import itertools
import os
import random
import re
import subprocess
import sys
from collections import Counter

import pytest

from swarm.prompt import STOP
from swarm.train.lessons import Text, example, held_out_example, pair
from worlds.facts.lessons import FactsLessons
from worlds.mixed_lessons import MixedLessons
from worlds.numbers import lessons as numbers_lessons
from worlds.numbers import solver
from worlds.numbers.arithmetic import parse
from worlds.numbers.lessons import FORBIDDEN_TARGET, NumbersLessons
from worlds.numbers.puzzles import is_held_out
from worlds.numbers.thoughts import expression_of
from worlds.protocol import Example
from worlds.split_numbers import lessons
from worlds.split_numbers.lessons import LONG_MENU, MARKED, SHORT_MENU, SplitNumbersLessons
from worlds.split_numbers.playbook import MENU
from worlds.split_numbers.world import DIRECTIVE

pytestmark = pytest.mark.thorough

NUM_EXAMPLES = 300
NUM_PER_KIND = 20
TAUGHT: dict[str, MixedLessons] = {
    "split-numbers-v0": SplitNumbersLessons(),
    "numbers-v0": NumbersLessons(),
    "facts-v0": FactsLessons(),
}
TASKS = [(world, task) for world, taught in TAUGHT.items() for task in taught.tasks]
KINDS = [(world, task, kind) for world, task in TASKS for kind in TAUGHT[world].tasks[task]]
SPLIT = "split-numbers-v0"


@pytest.fixture(scope="module")
def training() -> list[Text]:
    return [pair(example(world, task, 3, i)) for world, task in TASKS for i in range(NUM_EXAMPLES)]


@pytest.fixture(scope="module")
def held_out_examples() -> list[tuple[str, Example]]:
    return [(world, held_out_example(world, *kind, 3, i)) for world, *kind in KINDS for i in range(NUM_PER_KIND)]


@pytest.fixture(scope="module")
def held_out(held_out_examples: list[tuple[str, Example]]) -> list[Text]:
    return [pair(shown) for _, shown in held_out_examples]


def puzzle(prompt: str) -> tuple[list[int], int]:
    """The tiles and the target of an agent's prompt."""
    words = prompt.splitlines()[0].split()
    at = words.index("target")
    return [int(word) for word in words[1:at]], int(words[at + 1])


def assert_true(kind: str, prompt: str, completion: str) -> None:
    """Check an answer with nothing but the expression parser and Python's integers and fractions."""
    if kind in MARKED:
        makes = solver.whole_values(tuple(int(word) for word in prompt.removesuffix(":").split()))
        for value, mark in re.findall(r"([0-9]+)([+-])", completion):
            assert (mark == "+") == (int(value) in makes)
        return
    assert prompt.endswith("\n") or kind == "think"  # which may have begun its line
    assert completion.endswith(STOP)
    answer = completion[: -len(STOP)]
    assert STOP not in answer
    if kind in ("briefing", "pick"):
        words = prompt.split()
        at = words.index("make")
        tiles, options = tuple(int(word) for word in words[1:at]), [int(word) for word in words[at + 1 :]]
        makes = solver.reachable(tiles)
        assert options == sorted(set(options))
        assert len(options) > 0
        assert answer == "".join(f" {s}" for s in options if s in makes) or (
            answer == " -" and not makes & set(options)
        )
        return
    if kind in ("page", "asked", "done"):
        played = {"page": r"desk \d+ page (\d) of (\d) : .+", "asked": r"asked .+", "done": "done"}[kind]
        assert re.fullmatch(played, prompt.removesuffix("\n"))
        assert answer == {"page": "next", "asked": "pass", "done": "wait"}[kind]
        return
    if kind == "reach":
        *tiles, start = [int(word) for word in prompt.replace("from", "").split()[1:]]
        makes = sorted(int(v) for v in solver.reachable(tuple(tiles)) if v.denominator == 1 and v >= start and v != 24)
        assert [int(word) for word in answer.split()] == makes[: lessons.VALUES_PER_LIST]
        return
    if kind == "operation":
        assert parse(prompt.removeprefix("value ").replace(" ", "").strip()).value() == int(answer)
        return
    expression = parse(expression_of(answer))
    if kind == "evaluate":
        asked = parse(prompt.removeprefix("value "))
        assert expression.literals == (int(answer),)
        assert asked.value() == int(answer)
        return
    tiles, goal = puzzle(prompt)
    if kind in ("free", "post"):
        assert Counter(expression.literals) == Counter(tiles)
        assert expression.value().denominator == 1
        return
    if kind == "directed":
        directive = prompt.splitlines()[1]
        match = DIRECTIVE.fullmatch(directive)
        assert match is not None
        assert parse(directive.replace("[", "(").replace("]", ")")).value() == goal
        tiles = [*tiles, int((match["before"] or match["after"]).strip("+-*/"))]
    assert Counter(expression.literals) == Counter(tiles)
    assert expression.value() == goal


def test_every_training_answer_is_true(training: list[Text]) -> None:
    for text in training:
        assert_true(*text)
    assert {kind for kind, _, _ in training} >= {
        "directed",
        "free",
        "four",
        "six",
        "briefing",
        "pick",
        "reach",
        "operation",
    }


def test_every_held_out_answer_is_true(held_out: list[Text]) -> None:
    for text in held_out:
        assert_true(*text)


def test_a_wrong_answer_would_be_noticed() -> None:
    with pytest.raises(AssertionError):
        assert_true("four", "tiles 1 2 3 4 target 10\n", "1+2+3*4\n")
    with pytest.raises(AssertionError):
        assert_true("briefing", "half 1 2 3 make 5 7 10\n", " 5 7 10\n")  # 10 is out of reach
    with pytest.raises(AssertionError):
        assert_true("briefing", "half 1 2 3 make 5 7 10\n", " -\n")


def test_nothing_ever_asks_for_24(training: list[Text], held_out: list[Text]) -> None:
    for kind, prompt, completion in training + held_out:
        assert f"target {FORBIDDEN_TARGET}\n" not in prompt
        assert f"[{FORBIDDEN_TARGET}]" not in prompt + completion
        if kind in MARKED:
            assert str(FORBIDDEN_TARGET) not in re.split("[+-]", completion)
        if kind in ("briefing", "pick", "reach"):
            assert str(FORBIDDEN_TARGET) not in (prompt.partition("make")[2] + completion).split()
        if kind in ("free", "post"):
            assert parse(completion.strip()).value() != FORBIDDEN_TARGET


def test_no_held_out_puzzle_is_trained_on_and_only_such_are_scored(training: list[Text], held_out: list[Text]) -> None:
    seen = [is_held_out(*puzzle(prompt)) for kind, prompt, _ in training if kind in ("four", "six")]
    scored = [is_held_out(*puzzle(prompt)) for kind, prompt, _ in held_out if kind in ("four", "six")]
    assert len(seen) > 100
    assert not any(seen)
    assert len(scored) == 6 * NUM_PER_KIND  # two kinds in each of two tasks, one in each of two
    assert all(scored)


@pytest.mark.parametrize(("world", "task", "kind"), KINDS)
def test_halves_are_parted_by_the_whole_puzzle_that_they_come_from(
    world: str, task: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half a puzzle does not show its whole, so the check itself is watched: the last answer decides.
    if kind in TAUGHT[world].practice:  # no puzzle, only arithmetic
        return
    verdicts: list[bool] = []

    def watched(tiles: tuple[int, ...], target: int) -> bool:
        verdicts.append(is_held_out(tiles, target))
        return verdicts[-1]

    for module in (lessons, numbers_lessons):
        monkeypatch.setattr(module, "is_held_out", watched)
    for index in range(20):
        for wanted in (True, False):
            (shown,) = TAUGHT[world].example(task, random.Random(index), wanted, kind)
            assert shown.kind == kind
            assert verdicts[-1] is wanted


def test_shares_of_kinds_are_those_of_the_task(training: list[Text]) -> None:
    for number, (world, task) in enumerate(TASKS):
        mix = TAUGHT[world].mixes[task]
        assert sum(share for _, share in mix.values()) == pytest.approx(1.0)
        drawn = Counter(kind for kind, _, _ in training[number * NUM_EXAMPLES : (number + 1) * NUM_EXAMPLES])
        for kind, (_, share) in mix.items():
            assert drawn[kind] / NUM_EXAMPLES == pytest.approx(share, abs=0.12)  # four standard errors


def test_values_worth_posting_are_those_that_most_halves_can_complete() -> None:
    tiles, target = (3, 7, 11), 145
    rng = random.Random(2)
    halves = [tuple(sorted(rng.randint(1, 13) for _ in range(3))) for _ in range(400)]

    def counted(value: int) -> float:
        wanted = {s for _, s in solver.sub_targets(value, target) if s != FORBIDDEN_TARGET}
        return sum(not wanted.isdisjoint(solver.whole_values(half)) for half in halves) / len(halves)

    best = lessons.posting_values(tiles, target)
    assert len(best) == lessons.POSTED_VALUES
    assert set(best) <= set(solver.whole_values(tiles))
    others = set(solver.whole_values(tiles)) - set(best) - {0, FORBIDDEN_TARGET}
    assert min(lessons.num_completing(v, target) for v in best) >= max(
        lessons.num_completing(v, target) for v in others
    )
    for value in [*best, *sorted(others)[:3]]:
        assert lessons.num_completing(value, target) / 13**3 == pytest.approx(counted(value), abs=0.1)


DIGEST = """
import hashlib
from swarm.train import lessons
task = "split-numbers-v0", "puzzle-agent"
texts = [*map(str, (lessons.example(*task, 0, i) for i in range(9))), str(lessons.held_out_example(*task, "six", 1, 0))]
digest = hashlib.sha256(chr(0).join(texts).encode()).hexdigest()
"""


@pytest.mark.process
def test_another_process_makes_the_same_texts() -> None:
    here: dict[str, str] = {}
    exec(DIGEST, here)  # noqa: S102 - the same lines here and there
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    code = f"{DIGEST}print(digest)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == here["digest"]


def test_menus_are_those_of_play() -> None:
    for index in range(200):
        prompt = held_out_example(SPLIT, "puzzle-coordinator", "briefing", 3, index).observation
        assert len(prompt.split("make")[1].split()) <= MENU
        for kind in ("briefing", "pick"):
            prompt = held_out_example(SPLIT, "puzzle-coordinator-short", kind, 3, index).observation
            assert len(prompt.split("make")[1].split()) <= SHORT_MENU


@pytest.mark.parametrize("kind", ["marks", "practice marks"])
def test_marks_say_what_the_tiles_of_the_half_can_make(kind: str) -> None:
    for index in range(100):
        name, prompt, completion = pair(held_out_example(SPLIT, "puzzle-coordinator-marks", kind, 5, index))
        tiles = tuple(int(word) for word in prompt.removesuffix(":").split())
        marks = re.findall(r"([0-9]+)([+-])", completion)
        assert "".join(value + mark for value, mark in marks) == completion
        values = [int(value) for value, _ in marks]
        assert values == sorted(set(values))
        assert len(values) <= (SHORT_MENU if name == "marks" else LONG_MENU)
        assert [mark == "+" for _, mark in marks] == [value in solver.whole_values(tiles) for value in values]
        assert FORBIDDEN_TARGET not in values


@pytest.mark.parametrize(("answer", "right"), [(" 5 7", True), ("7", True), ("10", False), ("-", False), ("", False)])
def test_a_briefing_is_judged_by_the_first_sub_target_picked(answer: str, right: bool) -> None:
    taught, prompt = SplitNumbersLessons(), "half 1 2 3 make 5 7 10\n"
    assert taught.judge(Example("briefing", "coordinator", prompt, "", " 5 7"), answer) == right
    assert taught.judge(Example("briefing", "coordinator", prompt, "", " -"), answer) == (answer == "-")


def test_scoring_accepts_every_example_and_refuses_a_neighbours_answer(
    held_out_examples: list[tuple[str, Example]],
) -> None:
    for world, shown in held_out_examples:
        assert TAUGHT[world].judge(shown, shown.answer.strip())
        assert not TAUGHT[world].judge(shown, "")
        assert not TAUGHT[world].judge(shown, "1/0")
    wrong = [
        TAUGHT[world].judge(shown, other.answer.strip())
        for (world, shown), (_, other) in itertools.pairwise(held_out_examples)
        if shown.kind not in ("briefing", "pick") and other.kind == shown.kind and other.answer != shown.answer
    ]
    assert len(wrong) > 50
    assert sum(wrong) == 0
