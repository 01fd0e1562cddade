"""score-v0: a function that scores a text becomes a goal; its file is code, and runs only for who trusts it."""

from __future__ import annotations

import os
import random
import sys

import pytest
from fakes.packages import install

from worlds import check_world, make
from worlds.contained import open_checked
from worlds.protocol import WorldError
from worlds.results import WorldFaultError
from worlds.score import scorers
from worlds.trust import VARIABLE, trust

pytestmark = pytest.mark.process  # a scorer runs in a child interpreter

VOWELS = """
def score(text):
    if not text:
        raise ValueError("write something")
    return sum(letter in "aeiou" for letter in text) / 10
"""

DIES_OR_HANGS = """
import os

def score(text):
    if text == "die":
        os._exit(3)
    while text == "hang":
        pass
    return 1
"""


@pytest.fixture
def goal(tmp_path, monkeypatch):
    """Return a function that makes a world of a trusted scorer file with this text."""
    monkeypatch.setenv(VARIABLE, "1")

    def make_world(source, num_agents=2, **options):
        path = tmp_path / "my_goal.py"
        path.write_text(source, encoding="utf-8")
        os.utime(path, ns=(0, random.randrange(2**40)))  # files are read again when they have changed
        world = make("score-v0", num_agents, {"file": str(path), "task": "vowels", **options})
        world.reset(0)
        return world

    return make_world


# Scores


def test_a_text_earns_its_score(goal):
    world = goal(VOWELS)
    assert world.reset(5)[0] == {"a0": "vowels", "a1": "vowels"}
    result = world.step({"a0": "hello", "a1": "sky"})
    assert result.rewards == {"a0": 0.2, "a1": 0.0}
    assert result.infos["a0"] == {"feedback": "score 0.2", "valid": True, "report": "score 0.2: hello"}
    assert result.infos["a1"] == {"feedback": "score 0", "valid": True}
    assert world.agents == ["a0", "a1"]


def test_only_the_best_so_far_is_reported(goal):
    world = goal(VOWELS)
    reports = [world.step({"a0": text}).infos["a0"].get("report") for text in ("ae", "ae", "a", "aei")]
    assert reports == ["score 0.2: ae", None, None, "score 0.3: aei"]
    assert world.state()["best"] == [0.3, "a0", "aei"]


def test_a_refused_text_is_illegal_and_says_why(goal):
    info = goal(VOWELS).step({"a0": ""}).infos["a0"]
    assert info == {"feedback": "illegal: write something", "valid": False}


@pytest.mark.parametrize(
    ("body", "why"),
    [("return 1 / 0", "ZeroDivisionError"), ("return float('nan')", "the score is nan"), ("return 'x'", "x")],
)
def test_whatever_a_scorer_raises_is_feedback(goal, body, why):
    info = goal(f"def score(text):\n    {body}\n").step({"a0": "text"}).infos["a0"]
    assert info["valid"] is False
    assert why in info["feedback"]


def test_the_goal_solves_for_all_and_without_one_nothing_does(goal):
    world = goal(VOWELS, goal=0.3)
    assert not world.step({"a0": "ae"}).terminations["a0"]
    result = world.step({"a0": "aei", "a1": "x"})
    assert world.solved
    assert result.terminations == {"a0": True, "a1": True}
    assert result.rewards == {"a0": 0.3, "a1": 0.0}
    endless = goal(VOWELS, max_steps=2)
    endless.step({"a0": "aeiou" * 50})
    assert endless.step({"a0": "aeiou" * 50}).truncations == {"a0": True, "a1": True}
    assert not endless.solved


# The child


def test_a_scorer_that_hangs_or_dies_is_a_fault_of_the_world(goal, monkeypatch):
    monkeypatch.setattr(scorers, "LIMIT_S", 0.5)
    path = goal(DIES_OR_HANGS).options.file
    world = open_checked("score-v0", 1, {"file": str(path), "task": "t"})
    world.reset(0)
    for text, what in (("die", "exit code 3"), ("hang", "took longer than 0.5 s")):
        with pytest.raises(WorldFaultError, match=what):
            world.step({"a0": text})
    assert world.step({"a0": "on"}).rewards == {"a0": 1.0}


def test_a_scorer_runs_in_another_process(goal):
    world = goal("import os\ndef score(text):\n    return os.getpid()\n")
    assert world.step({"a0": "x"}).rewards["a0"] not in (0.0, float(os.getpid()))


def test_a_changed_file_is_another_scorer(goal):
    assert goal("def score(text):\n    return 1\n").step({"a0": "x"}).rewards["a0"] == 1.0
    assert goal("def score(text):\n    return 2\n").step({"a0": "x"}).rewards["a0"] == 2.0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def score(text) return 1", r"my_goal\.py raised SyntaxError"),
        ("import nothing_of_this_name", r"my_goal\.py raised ModuleNotFoundError"),
        ("points = 3", r"my_goal\.py raised TypeError: it defines no function `score`"),
    ],
)
def test_a_file_that_is_no_scorer_is_refused_in_one_line(goal, source, message):
    with pytest.raises(WorldError, match=message) as error:
        goal(source)
    assert "\n" not in str(error.value)


# Trust


def test_a_file_runs_only_for_who_trusts_it(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    path, mark = tmp_path / "my_goal.py", tmp_path / "mark"
    path.write_text(f"open({str(mark)!r}, 'w').close()\n{VOWELS}", encoding="utf-8")
    with pytest.raises(WorldError, match=r"my_goal\.py is code .* add --trust"):
        make("score-v0", 1, {"file": str(path), "task": "vowels"})
    assert not mark.exists()
    monkeypatch.setenv(VARIABLE, "0")
    trust()
    make("score-v0", 1, {"file": str(path), "task": "vowels"})
    assert mark.exists()


def test_no_option_can_name_a_function_that_is_no_scorer():
    with pytest.raises(WorldError, match=r"no scorer 'os:system'; there are golomb"):
        make("score-v0", 1, {"scorer": "os:system", "task": "rm"})


def test_a_package_brings_a_scorer_by_its_name(tmp_path, monkeypatch):
    points = {"ulm_swarm.scorers": {"vowels": "vowel_goal:score"}}
    install(tmp_path, "vowel_goal", f"{VOWELS}\ndef sample(seed):\n    return 'a' * (seed % 3 + 1)\n", points)
    monkeypatch.syspath_prepend(str(tmp_path))
    scorers._child.cache_clear()  # the child knows the path of its start
    world = make("score-v0", 1, {"scorer": "vowels", "task": "vowels"})
    world.reset(0)
    assert world.sample_action("a0", "", random.Random(0)) in ("a", "aa", "aaa")
    assert world.step({"a0": "aa"}).rewards == {"a0": 0.2}
    assert "vowel_goal" not in sys.modules
    scorers._child.cache_clear()


# The rest


def test_a_task_of_ones_own_is_needed_for_a_scorer_of_ones_own(tmp_path):
    with pytest.raises(WorldError, match="`task` is missing"):
        make("score-v0", 1, {"file": str(tmp_path / "my_goal.py")})


def test_random_texts_are_letters_where_the_scorer_knows_none(goal):
    texts = {goal(VOWELS).sample_action("a0", "", random.Random(seed)) for seed in range(5)}
    assert len(texts) == 5
    assert all(text.isalpha() for text in texts)


@pytest.mark.parametrize("options", [{}, {"goal": 0.3, "pattern": r"0( [1-9][0-9]{0,2}){10}", "max_steps": 3}])
def test_the_shipped_scorer_keeps_the_contract(options):
    assert check_world("score-v0", options=options, num_agents=2) == []
