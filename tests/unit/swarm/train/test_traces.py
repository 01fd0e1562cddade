"""Training texts: every answer is true by exact arithmetic, and nothing held out or aimed at 24 is among them."""

import itertools
import os
import random
import re
import subprocess
import sys
from collections import Counter

import pytest

from swarm.coordinator.split_numbers import MENU
from swarm.errors import SwarmError
from swarm.prompt import STOP
from swarm.train import traces
from swarm.train.policy import _judge
from worlds.numbers import solver
from worlds.numbers.arithmetic import parse
from worlds.numbers.world import is_held_out
from worlds.split_numbers.world import DIRECTIVE

NUM_EXAMPLES = 600
NUM_PER_KIND = 20
KINDS = [(task, kind) for task, kinds in traces.TASKS.items() for kind in range(len(kinds))]


@pytest.fixture(scope="module")
def training() -> list[traces.Example]:
    return [traces.example(task, 3, i) for task in traces.TASKS for i in range(NUM_EXAMPLES)]


@pytest.fixture(scope="module")
def held_out() -> list[traces.Example]:
    return [traces.held_out_example(task, kind, 3, i) for task, kind in KINDS for i in range(NUM_PER_KIND)]


def puzzle(prompt: str) -> tuple[list[int], int]:
    """The tiles and the target of an agent's prompt."""
    words = prompt.splitlines()[0].split()
    at = words.index("target")
    return [int(word) for word in words[1:at]], int(words[at + 1])


def assert_true(kind: str, prompt: str, completion: str) -> None:
    """Check an answer with nothing but the expression parser and Python's integers and fractions."""
    if kind in traces.MARKED:
        makes = solver.whole_values(tuple(int(word) for word in prompt.removesuffix(":").split()))
        for value, mark in re.findall(r"([0-9]+)([+-])", completion):
            assert (mark == "+") == (int(value) in makes)
        return
    assert prompt.endswith("\n")
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
        assert [int(word) for word in answer.split()] == makes[: traces.VALUES_PER_LIST]
        return
    if kind == "operation":
        assert parse(prompt.removeprefix("value ").replace(" ", "").strip()).value() == int(answer)
        return
    expression = parse(answer)
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


def test_every_training_answer_is_true(training: list[traces.Example]) -> None:
    for example in training:
        assert_true(*example)
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


def test_every_held_out_answer_is_true(held_out: list[traces.Example]) -> None:
    for example in held_out:
        assert_true(*example)


def test_a_wrong_answer_would_be_noticed() -> None:
    with pytest.raises(AssertionError):
        assert_true("four", "tiles 1 2 3 4 target 10\n", "1+2+3*4\n")
    with pytest.raises(AssertionError):
        assert_true("briefing", "half 1 2 3 make 5 7 10\n", " 5 7 10\n")  # 10 is out of reach
    with pytest.raises(AssertionError):
        assert_true("briefing", "half 1 2 3 make 5 7 10\n", " -\n")


def test_nothing_ever_asks_for_24(training: list[traces.Example], held_out: list[traces.Example]) -> None:
    for kind, prompt, completion in training + held_out:
        assert f"target {traces.FORBIDDEN_TARGET}\n" not in prompt
        assert f"[{traces.FORBIDDEN_TARGET}]" not in prompt + completion
        if kind in traces.MARKED:
            assert str(traces.FORBIDDEN_TARGET) not in re.split("[+-]", completion)
        if kind in ("briefing", "pick", "reach"):
            assert str(traces.FORBIDDEN_TARGET) not in (prompt.partition("make")[2] + completion).split()
        if kind in ("free", "post"):
            assert parse(completion.strip()).value() != traces.FORBIDDEN_TARGET


def test_no_held_out_puzzle_is_trained_on_and_only_such_are_scored(
    training: list[traces.Example], held_out: list[traces.Example]
) -> None:
    seen = [is_held_out(*puzzle(prompt)) for kind, prompt, _ in training if kind in ("four", "six")]
    scored = [is_held_out(*puzzle(prompt)) for kind, prompt, _ in held_out if kind in ("four", "six")]
    assert len(seen) > 100
    assert not any(seen)
    assert len(scored) == 5 * NUM_PER_KIND  # two kinds in each of two tasks, one in a third
    assert all(scored)


@pytest.mark.parametrize(("task", "kind"), KINDS)
def test_halves_are_parted_by_the_whole_puzzle_that_they_come_from(
    task: str, kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half a puzzle does not show its whole, so the check itself is watched: the last answer decides.
    verdicts: list[bool] = []
    real = traces.is_held_out
    monkeypatch.setattr(traces, "is_held_out", lambda *puzzle: verdicts.append(real(*puzzle)) or verdicts[-1])
    for index in range(20):
        name, _, _ = traces.held_out_example(task, kind, 5, index)
        if name in traces.WITHOUT_PUZZLE:  # no puzzle, only arithmetic
            continue
        assert verdicts[-1] is True
        assert traces.TASKS[task][kind][0](traces.random.Random(index), False)[0] == name
        assert verdicts[-1] is False


def test_shares_of_kinds_are_those_of_the_task(training: list[traces.Example]) -> None:
    for number, (task, kinds) in enumerate(traces.TASKS.items()):
        assert sum(share for _, share in kinds) == pytest.approx(1.0)
        drawn = Counter(kind for kind, _, _ in training[number * NUM_EXAMPLES : (number + 1) * NUM_EXAMPLES])
        for index, (_, share) in enumerate(kinds):
            kind = traces.held_out_example(task, index, 0, 0)[0]
            assert drawn[kind] / NUM_EXAMPLES == pytest.approx(share, abs=0.08)  # four standard errors


def test_examples_follow_from_task_seed_and_index_alone() -> None:
    task = "puzzle-agent"
    forward = [traces.example(task, 3, i) for i in range(20)]
    assert [traces.example(task, 3, i) for i in reversed(range(20))] == forward[::-1]
    assert [traces.example(task, 4, i) for i in range(20)] != forward
    assert len({prompt for _, prompt, _ in forward}) == 20


def test_held_out_examples_are_not_the_training_ones_and_differ_by_index() -> None:
    texts = [traces.held_out_example("puzzle-agent", 0, 3, i) for i in range(20)]
    assert len(set(texts)) == 20
    assert texts == [traces.held_out_example("puzzle-agent", 0, 3, i) for i in range(20)]


def test_values_worth_posting_are_those_that_most_halves_can_complete() -> None:
    tiles, target = (3, 7, 11), 145
    rng = random.Random(2)
    halves = [tuple(sorted(rng.randint(1, 13) for _ in range(3))) for _ in range(400)]

    def counted(value: int) -> float:
        wanted = {s for _, s in solver.sub_targets(value, target) if s != traces.FORBIDDEN_TARGET}
        return sum(not wanted.isdisjoint(solver.whole_values(half)) for half in halves) / len(halves)

    best = traces.posting_values(tiles, target)
    assert len(best) == traces.POSTED_VALUES
    assert set(best) <= set(solver.whole_values(tiles))
    others = set(solver.whole_values(tiles)) - set(best) - {0, traces.FORBIDDEN_TARGET}
    assert min(traces.completable_share(v, target) for v in best) >= max(
        traces.completable_share(v, target) for v in others
    )
    for value in [*best, *sorted(others)[:3]]:
        assert traces.completable_share(value, target) == pytest.approx(counted(value), abs=0.1)


DIGEST = """
import hashlib
from swarm.train import traces
texts = [*traces.corpus("puzzle-agent", 5), str(traces.held_out_example("puzzle-agent", 0, 1, 0))]
digest = hashlib.sha256(chr(0).join(texts).encode()).hexdigest()
"""


def test_another_process_makes_the_same_texts() -> None:
    here: dict[str, str] = {}
    exec(DIGEST, here)  # noqa: S102 - the same lines here and there
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    code = f"{DIGEST}print(digest)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == here["digest"]


def test_corpus_covers_all_tasks_and_numbers() -> None:
    text = "".join(traces.corpus("puzzle-agent", 20))
    assert all(word in text for word in ("tiles", "half", "target", "values", "[", "illegal", "goal", "999"))


def test_menus_are_those_of_play() -> None:
    for index in range(200):
        _, prompt, _ = traces.held_out_example("puzzle-coordinator", 0, 3, index)
        assert len(prompt.split("make")[1].split()) <= MENU
        for kind in (0, 1):
            _, prompt, _ = traces.held_out_example("puzzle-coordinator-short", kind, 3, index)
            assert len(prompt.split("make")[1].split()) <= traces.SHORT_MENU


@pytest.mark.parametrize("kind", [0, 1])
def test_marks_say_what_the_tiles_of_the_half_can_make(kind: int) -> None:
    for index in range(100):
        name, prompt, completion = traces.held_out_example("puzzle-coordinator-marks", kind, 5, index)
        tiles = tuple(int(word) for word in prompt.removesuffix(":").split())
        marks = re.findall(r"([0-9]+)([+-])", completion)
        assert "".join(value + mark for value, mark in marks) == completion
        values = [int(value) for value, _ in marks]
        assert values == sorted(set(values))
        assert len(values) <= (traces.SHORT_MENU if name == "marks" else traces.LONG_MENU)
        assert [mark == "+" for _, mark in marks] == [value in solver.whole_values(tiles) for value in values]
        assert traces.FORBIDDEN_TARGET not in values


@pytest.mark.parametrize(("answer", "right"), [(" 5 7", True), ("7", True), ("10", False), ("-", False), ("", False)])
def test_a_briefing_is_judged_by_the_first_sub_target_picked(answer: str, right: bool) -> None:
    assert _judge("briefing", "half 1 2 3 make 5 7 10\n", " 5 7\n", answer) == right
    assert _judge("briefing", "half 1 2 3 make 10 11\n", " -\n", answer) == (answer == "-")


def test_scoring_accepts_every_example_and_refuses_a_neighbours_answer(held_out: list[traces.Example]) -> None:
    for kind, prompt, completion in held_out:
        assert _judge(kind, prompt, completion, completion.strip())
        assert not _judge(kind, prompt, completion, "")
        assert not _judge(kind, prompt, completion, "1/0")
    wrong = [
        _judge(kind, prompt, completion, other[2].strip())
        for (kind, prompt, completion), other in itertools.pairwise(held_out)
        if kind not in ("briefing", "pick") and other[0] == kind and other[2] != completion
    ]
    assert len(wrong) > 50
    assert sum(wrong) == 0


def test_unknown_task_names_those_that_exist() -> None:
    with pytest.raises(SwarmError, match="available: puzzle-agent"):
        traces.example("chess", 0, 0)
    with pytest.raises(SwarmError, match="available: puzzle-agent"):
        traces.held_out_example("chess", 0, 0, 0)
