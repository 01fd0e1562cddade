"""check_world passes a sound world and names each broken rule of an unsound one."""

from __future__ import annotations

import math
import random

import pytest

from worlds import (
    Briefing,
    Example,
    Info,
    Lessons,
    Playbook,
    StepResult,
    World,
    WorldError,
    WorldOptions,
    check_world,
)


class GoodWorld(World):
    """Say `up` three times together; the smallest world that keeps the contract."""

    id = "good-v0"

    def reset(self, seed, options=None):
        self.agents = list(self.possible_agents)
        self.solved, self.options_given = False, options
        self.count, self.level = 0, random.Random(seed).randrange(100)
        return {a: self._look() for a in self.agents}, {a: Info() for a in self.agents}

    def _look(self):
        return f"level {self.level + self.count}"

    def step(self, actions):
        live, infos = list(self.agents), {}
        for agent in self.ordered(actions):
            valid = actions[agent] == "up"
            self.count += valid
            infos[agent] = Info(feedback="went up" if valid else "say up", valid=valid, report=self._look())
        self.solved = self.solved or self.count >= 30
        if self.solved:
            self.agents = []
        return StepResult(
            {a: self._look() for a in live},
            {a: float(self.solved and a in actions) for a in live},
            dict.fromkeys(live, self.solved),
            dict.fromkeys(live, False),
            infos,
        )

    def state(self):
        return {"count": self.count, "level": self.level}

    def goal(self):
        return "go up"

    def tools(self):
        schema = {"type": "object", "properties": {}, "required": []}
        return [{"name": "up", "description": "Go up.", "parameters": schema, "text": "up"}]

    def render(self):
        return self._look()

    def sample_action(self, agent, directive, rng):
        return rng.choice(["up", "up", "up", "down"])

    def action_pattern(self, agent):
        return "up|down"


def _check(cls, **kwargs):
    return check_world(lambda: cls(3, WorldOptions()), **kwargs)


def _edited(**edits):
    """A world whose step result is edited; each edit gets the mapping and the agents that were live."""

    class Edited(GoodWorld):
        """Breaks a rule."""

        def step(self, actions):
            live = list(self.agents)
            result = super().step(actions)
            return result._replace(**{name: edit(getattr(result, name), live) for name, edit in edits.items()})

    return Edited


def test_sound_world_passes():
    assert _check(GoodWorld) == []


def test_sound_world_passes_by_its_id():
    assert check_world("graph-v0", seeds=(4,), max_steps=20, options={"rooms": 6}) == []


def test_unknown_world_is_the_callers_error():
    with pytest.raises(WorldError, match="did you mean graph-v0"):
        check_world("grap-v0")


def test_each_rule_is_reported_once_with_its_place():
    class Silent(GoodWorld):
        """Gives no feedback."""

        def step(self, actions):
            result = super().step(actions)
            for info in result.infos.values():
                del info["feedback"]
            return result

    assert _check(Silent, seeds=(7, 8)) == [
        "seed 7, random policy, step 0: infos of ['a0', 'a1', 'a2'] lack 'feedback'"
    ]


STEP_RULES = {
    "terminated and truncated": _edited(
        terminations=lambda _, live: dict.fromkeys(live, True),
        truncations=lambda _, live: dict.fromkeys(live, True),
    ),
    "truncations miss acting agents: ['a0'": _edited(truncations=lambda *_: {}),
    "terminations name agents that were not live: ['zz']": _edited(terminations=lambda m, _: m | {"zz": True}),
    "'step.terminations.a0': input should be a valid boolean, got 0": _edited(
        terminations=lambda m, _: dict.fromkeys(m, 0)
    ),
    "left agents without termination": _edited(terminations=lambda m, _: dict.fromkeys(m, False)),
    "finished but did not leave": _edited(terminations=lambda m, _: dict.fromkeys(m, True)),
    "'step.observations.a0': input should be a valid string, got None": _edited(
        observations=lambda m, _: dict.fromkeys(m, None)
    ),
    "a2 passed and earns 1.0; rewards are each agent's own": _edited(rewards=lambda m, live: dict.fromkeys(live, 1.0)),
    "step returned nan in 'rewards.a0'": _edited(rewards=lambda m, _: dict.fromkeys(m, float("nan"))),
    "infos of ['a0', 'a1', 'a2'] lack 'valid'": _edited(infos=lambda m, _: {a: Info(feedback="x") for a in m}),
    "'step.infos.a0.feedback': not one line of text, got 'a\\nb'": _edited(
        infos=lambda m, _: {a: Info(feedback="a\nb", valid=False) for a in m}
    ),
    "'step.infos.a0.feedback': string should have at most 500 characters": _edited(
        infos=lambda m, _: {a: Info(feedback="a" * 600, valid=False) for a in m}
    ),
    "'step.infos.a0.report': not one line of text, got ''": _edited(
        infos=lambda m, _: {a: info | {"report": ""} for a, info in m.items()}
    ),
    "'step.infos.a0.facts.0.1': field required": _edited(
        infos=lambda m, _: {a: info | {"facts": [("x",)]} for a, info in m.items()}
    ),
    "'step.infos.a0': input should be an object, got 3": _edited(infos=lambda m, _: dict.fromkeys(m, 3)),
    "is taken for legal": _edited(infos=lambda m, _: {a: Info(feedback="ok", valid=True) for a in m}),
    "from sample_action were legal": _edited(infos=lambda m, _: {a: Info(feedback="no", valid=False) for a in m}),
}


@pytest.mark.parametrize("words", STEP_RULES)
def test_broken_step_is_named(words):
    found = _check(STEP_RULES[words], seeds=(0,))
    assert [line for line in found if words in line], found


def _with(**methods):
    return type("Broken", (GoodWorld,), {"__doc__": "Breaks a rule.", **methods})


def _counting_state(self):
    self.calls = getattr(self, "calls", 0) + 1
    return {"calls": self.calls}


def _only_known(self, actions):
    for agent in self.possible_agents:
        actions[agent]
    return GoodWorld.step(self, actions)


def _int_parser(self, actions):
    for text in actions.values():
        if text not in ("up", "down", "hello"):
            text.encode("utf-8")
    return GoodWorld.step(self, actions)


def _global_reset(self, seed, options=None):
    return GoodWorld.reset(self, random.randrange(10**9), options)


def _leftover_reset(self, seed, options=None):
    before = getattr(self, "count", 0)
    result = GoodWorld.reset(self, seed, options)
    self.count = before
    return result


def _half_reset(self, seed, options=None):
    observations, infos = GoodWorld.reset(self, seed, options)
    self.agents.remove("a1")
    del observations["a1"]
    return observations, infos


def _reviving(self, actions):
    result = GoodWorld.step(self, actions)
    if not result.observations:
        self.agents = list(self.possible_agents)
    return result


def _refusing_the_dead(self, actions):
    if not self.agents and actions:
        raise RuntimeError("they are gone")
    return GoodWorld.step(self, actions)


def _moving_sample(self, agent, directive, rng):
    self.count += 1
    return "up"


def _forgetting(self, actions):
    result = GoodWorld.step(self, actions)
    self.solved = self.count == 3
    return result


def _failing_at_level_2(self, actions):
    if self.options_given["level"] == 2:
        raise ValueError("level 2 is odd")
    return GoodWorld.step(self, actions)


_memory = random.Random(0)
_schema = {"type": "object", "properties": {}}

RULES = {
    "state returned no plain data in 'agents': set is no text, number, list or mapping": _with(
        state=lambda self: {"agents": {1, 2}}
    ),
    "state() differs between two calls": _with(state=_counting_state),
    "step raised KeyError": _with(step=_only_known),
    "step raised UnicodeEncodeError": _with(step=_int_parser),
    "step returned list, not a tuple of observations, rewards": _with(
        step=lambda self, actions: list(GoodWorld.step(self, actions))
    ),
    "replay: same seed and actions": _with(reset=_global_reset),
    "second reset: same seed and actions": _with(reset=_leftover_reset),
    "agents are not possible_agents": _with(reset=_half_reset),
    "observations do not name every agent": _with(reset=_half_reset),
    "reset raised RuntimeError: no": _with(reset=lambda self, seed, options=None: _raise()),
    "after the end: step raised RuntimeError": _with(step=_refusing_the_dead),
    "finished ones are back": _with(step=_reviving),
    "sample_action changes the state": _with(sample_action=_moving_sample),
    "sample_action differs": _with(sample_action=lambda *_: _memory.choice(["up", "down"])),
    "'sample_action': input should be a valid string, got None": _with(sample_action=lambda *_: None),
    "action 'up' does not match 'down'": _with(
        sample_action=lambda *_: "up", action_pattern=lambda self, agent: "down"
    ),
    "'action_pattern': no regular expression": _with(action_pattern=lambda self, agent: "("),
    "solved was true and is no more": _with(step=_forgetting),
    "'levels': input should be greater than 0, got 0": _with(levels=0),
    "step raised ValueError: level 2 is odd": _with(levels=3, step=_failing_at_level_2),
    "full_view returns neither options nor None": _with(full_view=classmethod(lambda cls, options: {"view": "all"})),
    "'relabel.0': input should be a valid array, got 'up'": _with(relabel=staticmethod(lambda *_: ["up"])),
    "'inline': input should be a valid string, got 21": _with(inline=staticmethod(lambda *_: 21)),
    "holds_out raised KeyError": _with(holds_out=classmethod(lambda cls, options, observation: {}[observation])),
    "measures returned inf in 'luck'": _with(measures=staticmethod(lambda turns: {"luck": math.inf})),
    "relabel or inline differ": _with(inline=staticmethod(lambda *_: str(_memory.random()))),
    "'goal': not one line of text, got": _with(goal=lambda self: "two\nlines"),
    "'render': input should be a valid string, got 3": _with(render=lambda self: 3),
    "'tools': list should have at least 1 item": _with(tools=lambda self: []),
    "'tools.0.text': field required": _with(
        tools=lambda self: [{"name": "a", "description": "b", "parameters": _schema}]
    ),
    "'tools.0.parameters.properties': field required": _with(
        tools=lambda self: [{"name": "a", "description": "b", "parameters": {}, "text": "c"}]
    ),
    "two tools have one name": _with(tools=lambda self: GoodWorld.tools(self) * 2),
    "is not lower-case words and a version": _with(id="good"),
    "no card docstring": type("Cardless", (GoodWorld,), {}),
}


def _raise():
    raise RuntimeError("no")


@pytest.mark.parametrize("words", RULES)
def test_broken_world_is_named(words):
    found = _check(RULES[words], seeds=(0, 1))
    assert [line for line in found if words in line], found
    assert all("\n" not in line for line in found)


class GoodBook(Playbook):
    """Tells everybody to go up."""

    directive = "go (up|down)"
    about = "Go up."

    def rules(self, situation):
        return dict.fromkeys(situation.agents, "go up")

    def briefings(self, situation):
        return [Briefing(situation.agents, f"{len(situation.reports)} reports\n")]

    def parse(self, text, briefing):
        return dict.fromkeys(briefing.agents, text) if text in ("go up", "go down") else {}


class GoodLessons(Lessons):
    """Says what to say at which level."""

    tasks = {"climber": ("climb",)}  # noqa: RUF012

    def example(self, task, rng, held_out, kind=None):
        return [Example("climb", "agent", f"level {2 * rng.randrange(500) + held_out}", "", "up")]


def _bringing(book=GoodBook, lessons=GoodLessons):
    """The sound world with these classes as its playbook and lessons."""
    globals().update(Brought=book, Taught=lessons)
    return _with(playbook=f"{__name__}:Brought", lessons=f"{__name__}:Taught")


def test_a_sound_playbook_and_sound_lessons_pass():
    assert _check(_bringing()) == []


BOOKS = {
    "'playbook.directive': no regular expression": {"directive": "("},
    "'playbook.menu': input should be a valid integer, got 'long'": {"menu": "long"},
    "rules() differs for equal situations": {"rules": lambda self, s: {"a0": _memory.choice(["go up", "go down"])}},
    "'playbook.rules()': input should be an object, got None": {"rules": lambda self, s: None},
    "rules() directs agents that it was not asked for: ['zz']": {"rules": lambda self, s: {"zz": "go up"}},
    "rules() says 'up', which does not match": {"rules": lambda self, s: {"a0": "up"}},
    "is no briefing for agents that can act": {"briefings": lambda self, s: [Briefing(("zz",), "x")]},
    "playbook.parse() raised ValueError": {"parse": lambda self, text, briefing: {"a0": int(text)}},
    "parse() says": {"parse": lambda self, text, briefing: {"a0": text}},
    "'playbook.declined()': input should be a valid array, got None": {
        "declined": lambda self, text, briefing, cut: None
    },
    "playbook test_check:Brought cannot be made": {"__init__": lambda self, world: None},
}


@pytest.mark.parametrize("words", BOOKS)
def test_broken_playbook_is_named(words):
    found = _check(_bringing(book=type("Broken", (GoodBook,), BOOKS[words])), seeds=(0,))
    assert [line for line in found if words in line.replace(f"{__name__}:", "test_check:")], found


def _shows(**changes):
    values = {"kind": "climb", "role": "agent", "observation": "level 3", "directive": "", "answer": "up", **changes}
    return {"example": lambda *_, **__: [Example(**values)]}


LESSONS = {
    "have no tasks": {"tasks": {}},
    "climber trains on what is held out": _shows(),
    "climber differs for equal generators": {
        "example": lambda *_: [Example("climb", "agent", str(_memory.random()), "", "up")]
    },
    "'lessons.climber': list should have at least 1 item": {"example": lambda *_: []},
    "'lessons.climber.0': input should be an object": {"example": lambda *_: [("climb", "x")]},
    "shows the kind 'fall', which it does not name": _shows(kind="fall"),
    "'lessons.climber.0.role': input should be 'agent' or 'coordinator', got 'boss'": _shows(role="boss"),
    "'lessons.climber.0': the answer is no line of text": _shows(answer="up\n"),
    "judge() refuses the answer of an example": {"judge": lambda *_: False},
    "judge() takes '' for right": {"judge": lambda *_: True},
    "'lessons.corpus('climber')": {"corpus": lambda *_: iter([3])},
    "lessons.climber raised KeyError": {"example": lambda *_: {}["x"]},
}


@pytest.mark.parametrize("words", LESSONS)
def test_broken_lessons_are_named(words):
    found = _check(_bringing(lessons=type("Broken", (GoodLessons,), LESSONS[words])), seeds=(0,))
    assert [line for line in found if words in line], found
