"""Every answer of a world becomes plain data, or a fault that names world, method and what was wrong."""

from __future__ import annotations

import random
import signal
import threading
import time
from contextlib import suppress
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
from fakes.rogue_world import RogueOptions, RogueWorld

from worlds import Briefing, Example, Info, Lessons, Playbook, Situation, StepResult, WorldError, check_world, registry
from worlds.checked import CheckedLessons, CheckedPlaybook, CheckedWorld, checked
from worlds.results import CallError, WorldFaultError, within


class _Text(str):
    __slots__ = ()


class _Yes(IntEnum):
    YES = 1


def _world(limit_s: float = 60.0, **members: Any) -> CheckedWorld:
    """A world in which these members are other ones, in the first step of an episode."""
    cls = type("Broken", (RogueWorld,), {"__doc__": "Breaks a rule.", **members})
    world = checked(cls(2, RogueOptions()), limit_s)
    world.reset(5, {"episode": 1})
    return world


def _editing(**edits: Any) -> Any:
    def step(self: RogueWorld, actions: Any) -> StepResult:
        result = RogueWorld.step(self, actions)
        return result._replace(**{name: dict.fromkeys(getattr(result, name), it) for name, it in edits.items()})

    return step


def _info(**values: Any) -> Any:
    return _editing(infos={"feedback": "noted", "valid": True, **values})


def _plain(value: Any) -> Any:
    """Return the same with the exact type of everything in it."""
    if isinstance(value, dict):
        return {(type(key), key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return type(value), value


def test_scalars_and_containers_of_other_types_become_pythons_own() -> None:
    """Failed at a7f87d3: they went on record, or on to the journal's encoder, as they were."""
    facts = ([np.str_("x"), "y"],)
    world = _world(
        step=_editing(
            observations=_Text("see"),
            rewards=np.float32(0.5),
            terminations=np.bool_(False),
            infos={"feedback": np.str_("noted"), "valid": np.True_, "report": _Text("r"), "facts": facts},
        ),
        state=lambda self: {
            "array": np.arange(2),
            "pair": (np.int64(1), _Yes.YES),
            np.str_("map"): np.float64(1),
        },
    )
    result = world.step({"a0": "x", "a1": "y"})
    info = {"feedback": "noted", "valid": True, "report": "r", "facts": [("x", "y")]}
    both = {"a0": None, "a1": None}
    wanted = StepResult(
        dict.fromkeys(both, "see"),
        dict.fromkeys(both, 0.5),
        dict.fromkeys(both, False),
        dict.fromkeys(both, False),
        dict.fromkeys(both, info),
    )
    assert _plain(result) == _plain(wanted)
    assert _plain(world.state()) == _plain({"array": [0, 1], "pair": [1, 1], "map": 1.0})


def test_what_a_world_changes_later_is_not_shared() -> None:
    world = _world()
    state = world.state()
    world.step({"a0": "x"})
    assert state["said"] == []


def _solving(value: Any) -> Any:
    def step(self: RogueWorld, actions: Any) -> StepResult:
        self.solved = value
        return RogueWorld.step(self, actions)

    return step


def test_solved_of_numpy_is_a_bool() -> None:
    """Failed at a7f87d3: TypeError: Object of type bool_ is not JSON serializable, exit 70."""
    world = _world(step=_solving(np.True_), has_ended=lambda self: True)
    world.step({"a0": "x"})
    assert world.solved is True


HALF = "half \ud83e"

STEPS = {
    "step returned nan in 'rewards.a0'": {"step": _editing(rewards=float("nan"))},
    "step returned -inf in 'rewards.a0'": {"step": _editing(rewards=np.float32("-inf"))},
    "'step.rewards.a0': input should be a valid number, got '1'": {"step": _editing(rewards="1")},
    "step returned half a surrogate pair in 'infos.a0.report'": {"step": _info(report=HALF)},
    "step returned half a surrogate pair in 'infos.a0.facts.0.1'": {"step": _info(facts=[("x", HALF)])},
    "step returned half a surrogate pair in 'observations.a0'": {"step": _editing(observations=HALF)},
    "'step.observations.a0': string should have at most 100000": {"step": _editing(observations="x" * 100_001)},
    "'step.infos.a0.report': string should have at most 100000": {"step": _info(report="x" * 100_001)},
    "'step.infos.a0.report': not one line of text": {"step": _info(report="a\nb")},
    "'step.solved': input should be a valid boolean, got 1": {"step": _solving(1)},
    "step returned no plain data in 'observations.a0': object is no": {"step": _editing(observations=object())},
    "step raised SystemExit: 3": {"step": lambda self, actions: exit(3)},
    "step returned NoneType, not a tuple of observations": {"step": lambda self, actions: None},
    "took longer than 0.2 s": {"step": lambda self, actions: [None for _ in iter(int, 1)]},
}


@pytest.mark.parametrize("words", STEPS)
def test_a_step_that_is_none_is_a_fault_of_the_world(words: str) -> None:
    """Failed at a7f87d3: there was no such function; play let most of these pass to the journal."""
    with pytest.raises(WorldFaultError) as told:
        _world(0.2, **STEPS[words]).step({"a0": "x", "a1": "y"})
    assert words in str(told.value)
    assert str(told.value).startswith("world rogue-v0: ")
    assert str(told.value).isprintable()


_rng = random.Random(0)

ANSWERS = {
    "state returned nan in 'x.1'": ("state", (), {"x": [1.0, float("nan")]}),
    "state returned half a surrogate pair in 'x'": ("state", (), {"x": HALF}),
    "state returned half a surrogate pair": ("state", (), {HALF: 1}),
    "state returned no plain data in 'x': set is no": ("state", (), {"x": {1}}),
    "'state': input should be an object, got [1]": ("state", (), [1]),
    "state returned 67,108,": ("state", (), {"x": "x" * 2**26}),
    "goal returned half a surrogate pair": ("goal", (), HALF),
    "'goal': not one line of text": ("goal", (), "a\nb"),
    "'tools.0.name': input should be a valid string, got 3": ("tools", (), [{"name": 3}]),
    "'render': input should be a valid string, got None": ("render", (), None),
    "sample_action returned half a surrogate pair": ("sample_action", ("a0", "", _rng), HALF),
    "'sample_action': string should have at most 100000": ("sample_action", ("a0", "", _rng), "x" * 100_001),
    "'action_pattern': no regular expression": ("action_pattern", ("a0",), "("),
    "'inline': input should be a valid string, got 21": ("inline", ("", ""), np.int64(21)),
    "'relabel.0.1': input should be a valid string, got 3": ("relabel", (None, "", "", Info()), [("x", 3)]),
}


@pytest.mark.parametrize("words", ANSWERS)
def test_an_answer_that_is_none_is_a_fault_of_the_world(words: str) -> None:
    """Failed at a7f87d3: there was no such function."""
    name, arguments, value = ANSWERS[words]
    member: Any = lambda *_: value  # noqa: E731
    world = _world(**{name: staticmethod(member) if name in ("inline", "relabel") else member})
    with pytest.raises(WorldFaultError, match="world rogue-v0: ") as told:
        getattr(world, name)(*arguments)
    assert words in str(told.value)


class _SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (_SilentError(), "raised _SilentError"),
        (ValueError("\x1b[2J\ud800\nx"), "raised ValueError: ·[2J· x"),
        (SystemExit(3), "raised SystemExit: 3"),
        (RecursionError("deep"), "raised RecursionError: deep"),
        (MemoryError(), "raised MemoryError"),
    ],
)
def test_whatever_a_world_raises_is_one_line_that_can_be_printed(error: BaseException, words: str) -> None:
    """Failed at a7f87d3: SystemExit ended the command, and escape sequences came through."""

    def raising(self: RogueWorld) -> str:
        raise error

    with pytest.raises(WorldFaultError) as told:
        _world(goal=raising).goal()
    assert str(told.value).startswith(f"world rogue-v0: goal {words}")


def test_ctrl_c_in_a_world_is_no_fault() -> None:
    def raising(self: RogueWorld) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _world(goal=raising).goal()


BOOKS = {
    "playbook.rules() returned half a surrogate pair in 'a0'": {"rules": lambda self, s: {"a0": HALF}},
    "'playbook.rules().a0': string should have at most 100000": {"rules": lambda self, s: {"a0": "x" * 100_001}},
    "playbook.rules() raised SystemExit: 3": {"rules": lambda self, s: exit(3)},
    "'playbook.briefings().0.prompt': field required": {"briefings": lambda self, s: [{"agents": ["a0"]}]},
    "playbook.briefings() returned half a surrogate pair in '0.options": {
        "briefings": lambda self, s: [Briefing(("a0",), "x", {"1": HALF})]
    },
    "'playbook.parse().a0': input should be a valid string, got 3": {"parse": lambda self, t, b: {"a0": 3}},
    "'playbook.declined()': input should be a valid array, got None": {"declined": lambda self, t, b, c: None},
    "'playbook.menu': input should be greater than 0, got 0": {"menu": 0},
    "'playbook.directive': no regular expression": {"directive": "("},
}


@pytest.mark.parametrize("words", BOOKS)
def test_a_playbook_is_checked_as_its_world_is(words: str) -> None:
    """Failed at a7f87d3: only `swarm worlds --check` looked at what a playbook returns."""
    members = {
        "directive": "x",
        "about": "x",
        "rules": lambda self, s: {},
        "briefings": lambda self, s: [],
        "parse": lambda self, t, b: {},
        **BOOKS[words],
    }

    def ask() -> None:
        book = CheckedPlaybook("rogue-v0", type("Book", (Playbook,), members)())
        situation, briefing = Situation("", ("a0",)), Briefing(("a0",), "")
        book.rules(situation), book.briefings(situation), book.parse("", briefing), book.declined("", briefing, False)

    with pytest.raises(WorldFaultError, match="world rogue-v0: ") as told:
        ask()
    assert words in str(told.value)


class _Lessons(Lessons):
    tasks = {"t": ("k",)}  # noqa: RUF012
    answer: Any = "y"

    def example(self, task: str, rng: random.Random, held_out: bool, kind: str | None = None) -> list[Example]:
        return [Example(_Text("k"), "agent", np.str_("x"), "", self.answer)]


def test_lessons_become_plain_too() -> None:
    lessons = CheckedLessons("rogue-v0", _Lessons())
    (example,) = lessons.example("t", _rng, False)
    assert type(example.observation) is str
    assert lessons.judge(example, "y") is True
    assert next(iter(lessons.corpus("t"))) == example


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"answer": HALF}, "lessons.t returned half a surrogate pair in '0.answer'"),
        ({"answer": "a\nb"}, "'lessons.t.0': the answer is no line of text"),
        ({"example": lambda *_: []}, "'lessons.t': list should have at least 1 item"),
        ({"judge": lambda *_: "yes"}, "'lessons.judge()': input should be a valid boolean, got 'yes'"),
        ({"corpus": lambda *_: 3}, "lessons.corpus('t') raised TypeError"),
        ({"corpus": lambda *_: [3]}, "'lessons.corpus('t')"),
        ({"tasks": {"t": [3]}}, "'lessons.tasks.t.0': input should be a valid string, got 3"),
    ],
)
def test_lessons_are_checked_as_their_world_is(members: dict[str, Any], words: str) -> None:
    """Failed at a7f87d3: only `swarm worlds --check` looked at what lessons return."""

    def ask() -> None:
        lessons = CheckedLessons("rogue-v0", type("Taught", (_Lessons,), members)())
        (example,) = lessons.example("t", _rng, False)
        lessons.judge(example, "y"), list(lessons.corpus("t"))

    with pytest.raises(WorldFaultError, match="world rogue-v0: ") as told:
        ask()
    assert words in str(told.value)


def test_a_constructor_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at a7f87d3: KeyError: 'x', this is a bug, exit 70."""

    class Unmade(RogueWorld):
        """Cannot be made."""

        id = "unmade-v0"

        def __init__(self, *_: Any) -> None:
            {}["x"]

    monkeypatch.setitem(registry._registered, "unmade-v0", Unmade)
    with pytest.raises(WorldError, match=r"cannot be made: KeyError: 'x'"):
        registry.make("unmade-v0", 2)


def test_a_call_that_swallows_its_end_is_late_all_the_same() -> None:
    def swallow() -> int:
        with suppress(BaseException):  # that is the point
            time.sleep(5)
        return 3

    with pytest.raises(CallError, match=r"took longer than 0.05 s"):
        within(0.05, swallow)


def test_a_limit_leaves_the_timer_and_the_handler_of_others_alone() -> None:
    mine: Any = lambda *_: None  # noqa: E731
    before = signal.signal(signal.SIGALRM, mine)
    left, _ = signal.setitimer(signal.ITIMER_REAL, 50)
    try:
        assert within(1, lambda: 3) == 3
        assert 40 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50
        assert signal.getsignal(signal.SIGALRM) is mine
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)


def test_there_is_no_limit_in_other_threads() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(within(0.01, lambda: time.sleep(0.05) or 3)))
    thread.start()
    thread.join()
    assert found == [3]


def test_check_names_a_world_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at a7f87d3: it never ended."""
    monkeypatch.setattr("worlds.check._LIMIT_S", 0.05)
    hanging = {"__doc__": "Hangs.", "render": lambda self: [None for _ in iter(int, 1)]}
    found = check_world(lambda: type("Hanging", (RogueWorld,), hanging)(2, RogueOptions()), seeds=(0,), max_steps=3)
    assert [line for line in found if "render took longer than 0.05 s" in line], found
