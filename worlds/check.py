"""`check_world`: does a world keep the contract of `worlds.protocol`?

Owns the rules that can be verified from outside, for authors of worlds and for our own contract tests. It
refuses to judge whether a world is interesting, and never raises for what the world does wrong: it lists it.

Plays per seed: a random policy, the same again on a new and on the used world (determinism), garbage, and
steps in which agents are missing. Playbook and lessons are checked by `worlds.check_parts`.
"""

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from typing import Any

from worlds.check_parts import check_lessons, check_playbook
from worlds.checked import CheckedWorld, checked, holds_out, measures, other_options
from worlds.contained import open_checked
from worlds.entry_points import error_line
from worlds.protocol import StepResult, Turn, World
from worlds.registry import VERSIONED, load_lessons, load_playbook
from worlds.results import WorldFaultError

GARBAGE = (
    "",
    " ",
    "\n\n\t",
    "qwertyuiop",
    "garbage " * 5_000,
    "9" * 20_000,
    "(" * 20_000,
    "\x00\x07\x1b[2J\x7f",
    "١٢٣ ７ ² 三",
    "\U0001f9e9\u202e\ud800",
    "__import__('os').system('true')",
    "9**9**9**9",
    "1/0",
    '{"name": "go", "arguments": null}',
    "None",
    "; DROP TABLE agents; --",
)
"""Actions that no world should take for legal, and that none may fall over."""

_MIN_LEGAL_SHARE = 0.5

_LIMIT_S = 10.0
"""Of one answer. Nobody waits for a model here."""

_CONTAINED_MB = 2048

_Policy = Callable[[World, int], dict[str, str]]


def check_world(
    world_id_or_factory: str | Callable[[], World],
    seeds: Sequence[int] = (0, 1, 2),
    max_steps: int = 50,
    *,
    num_agents: int = 3,
    options: Mapping[str, Any] | None = None,
    contained: bool = False,
) -> list[str]:
    """Return every rule of the contract that a world breaks, once each; an empty list is a pass.

    Determinism is checked within this process; a world that iterates over sets of strings may pass here and
    still differ between processes, so compare its states under two values of PYTHONHASHSEED as well.

    Args:
        world_id_or_factory: an id for `worlds.make`, or a function that returns a new world on each call.
        seeds: seeds of the episodes that are played.
        max_steps: steps per episode at most; an episode need not end within them.
        num_agents: agents, where an id is given.
        options: the world's options, where an id is given.
        contained: play in a child interpreter, where an id is given (`worlds.contained`).

    Raises:
        WorldError: there is no such world, or it refuses these options.
    """

    def factory() -> CheckedWorld:
        if not isinstance(world_id_or_factory, str):
            return checked(world_id_or_factory(), _LIMIT_S)
        memory_mb = _CONTAINED_MB if contained else None
        return open_checked(world_id_or_factory, num_agents, options, _LIMIT_S, memory_mb)

    inspection = _Inspection(factory)
    try:
        inspection.check_class(factory())
    except WorldFaultError as error:  # nor can it be played
        return list(error.faults.values())
    for level in range(inspection.levels):
        for seed in seeds[: None if level == 0 else 1]:
            inspection.check_seed(seed, level, max_steps)
    inspection.check_whole(seeds[0])
    return list(inspection.violations.values())


class _Inspection:
    """The plays of one world; `violations` holds the first sighting of each broken rule."""

    def __init__(self, factory: Callable[[], CheckedWorld]) -> None:
        self.factory = factory
        self.violations: dict[str, str] = {}
        self.where = ""
        self.levels = 1
        self.num_sampled = self.num_legal = 0

    def require(self, holds: bool, rule: str, text: str) -> bool:
        """Note the first violation of a rule unless it holds; return whether it does."""
        if not holds:
            self.violations.setdefault(rule, f"{self.where}: {text}" if self.where else text)
        return holds

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Note what goes wrong in the `with` block and end it; whatever a world raises is the finding."""
        try:
            yield
        except WorldFaultError as error:
            for rule, text in error.faults.items():
                self.require(False, rule, text)
        except Exception as error:
            self.require(False, f"{name} raises", f"{name} raised {error_line(error):.200}")

    def check_class(self, world: CheckedWorld) -> None:
        """Check what does not depend on an episode."""
        world_id = getattr(world.cls, "id", None)
        named = VERSIONED.fullmatch(str(world_id)) is not None
        self.require(named, "id", f"id {world_id!r} is not lower-case words and a version, like 'maze-v0'")
        self.require(bool(world.cls.card()), "card", "the class has no card docstring")
        with self.noting("levels"):
            self.levels = world.num_levels
        for name in ("full_view", "for_training"):
            with self.noting(name):
                other_options(world.cls, name, world.options)

    def check_seed(self, seed: int, level: int, max_steps: int) -> None:
        """Run every play of one seed."""
        play = partial(self._play, seed=seed, level=level)
        with self.noting("world"):
            world = self.factory()
            first, played = play(world, "random policy", self._samples, max_steps)
            for rerun, name in ((self.factory(), "replay"), (world, "second reset")):
                again, _ = play(rerun, name, lambda _, step: played[step], len(played))
                differ = [place for place, (one, two) in enumerate(zip_longest(first, again)) if one != two]
                place = f"step {differ[0] - 1}" if differ and differ[0] else "reset"
                self.where = f"seed {seed}, {name}"
                self.require(
                    not differ,
                    f"{name} differs",
                    f"same seed and actions, but observations, rewards or state differ at {place}",
                )
        for name, policy in (("garbage", _garbage), ("missing agents", _some)):
            with self.noting("world"):
                play(self.factory(), name, policy, max_steps)

    def check_whole(self, seed: int) -> None:
        """Check that the random policy is a policy and not noise, and playbook and lessons where the world has them."""
        self.where = ""
        self.require(
            self.num_legal >= _MIN_LEGAL_SHARE * self.num_sampled,
            "sample_action legal",
            f"only {self.num_legal} of {self.num_sampled} actions from sample_action were legal",
        )
        world = self.factory()
        with self.noting("playbook"):
            if book := load_playbook(world.cls):
                check_playbook(book, world, seed, GARBAGE, self.require)
        with self.noting("lessons"):
            if lessons := load_lessons(world.cls):
                check_lessons(lessons, GARBAGE, self.require)

    def _samples(self, world: World, step: int) -> dict[str, str]:
        return {agent: self._sample(world, agent, f"{step}/{agent}") for agent in world.agents}

    def _sample(self, world: World, agent: str, place: str) -> str:
        before = self._fingerprint(world)

        def draw(directive: str) -> str:
            return world.sample_action(agent, directive, random.Random(place))  # noqa: S311  a policy, not a secret

        draw("\x00 no directive [")
        action = draw("")
        self.require(action == draw(""), "sample_action rng", "sample_action differs for equal generators")
        unchanged = before == self._fingerprint(world)
        self.require(unchanged, "sample_action pure", "sample_action changes the state of the world")
        pattern = world.action_pattern(agent)
        matches = pattern is None or re.fullmatch(pattern, action) is not None
        self.require(matches, "action_pattern", f"action {action!r:.80} does not match {pattern!r:.80}")
        return action

    def _play(
        self, world: CheckedWorld, name: str, policy: _Policy, max_steps: int, seed: int, level: int
    ) -> tuple[list[str], list[dict[str, str]]]:
        """Play one episode under all checks; return one text per reset or step, and the actions."""
        self.where = f"seed {seed}, {name}, reset"
        observations, infos = world.reset(seed, {"episode": 0, "level": level})
        for call in (world.goal, world.render, world.tools):
            with self.noting(call.__name__):
                call()
        trace = [json.dumps([observations, infos, world.agents, self._fingerprint(world)], sort_keys=True)]
        played: list[dict[str, str]] = []
        turns: list[Turn] = []
        for step in range(max_steps):
            if not world.agents:
                break
            self.where = f"seed {seed}, {name}, step {step}"
            live, solved = world.agents, world.solved
            actions = policy(world, step)
            played.append(actions)
            result = world.step(actions)
            self.require(not solved or world.solved, "solved", "solved was true and is no more")
            self._check_hints(world, observations, actions, result)
            turns += [
                Turn(0, agent, observations[agent], actions[agent], info["valid"], reward, info["feedback"])
                for agent, info, reward in ((a, result.infos[a], result.rewards[a]) for a in live if a in actions)
            ]
            observations = {**observations, **result.observations}
            acting = [agent for agent in live if agent in actions]
            legal = [agent for agent in acting if result.infos[agent]["valid"]]
            if name == "random policy":
                self.num_sampled += len(acting)
                self.num_legal += len(legal)
            if name == "garbage" and legal:
                self.require(False, "garbage", f"garbage action {actions[legal[0]]!r:.60} is taken for legal")
            trace.append(json.dumps([*result, world.agents, self._fingerprint(world)], sort_keys=True))
        if not world.agents:
            self.where = f"seed {seed}, {name}, after the end"
            world.step(dict.fromkeys(world.possible_agents, ""))
        measures(world.cls, turns)
        return trace, played

    def _check_hints(
        self, world: CheckedWorld, observations: Mapping[str, str], actions: Mapping[str, str], result: StepResult
    ) -> None:
        """Check the pure answers of a world on what agents read and did."""
        for agent in (agent for agent in actions if agent in result.infos):
            about = observations[agent], actions[agent]
            one, two = (
                (world.relabel(world.options, *about, result.infos[agent]), world.inline(*about)) for _ in range(2)
            )
            self.require(one == two, "pure", "relabel or inline differ when they are asked again")
            for observation in (observations[agent], *(other for other, _ in one[0])):
                holds_out(world.cls, world.options, observation)

    def _fingerprint(self, world: World) -> str:
        one, two = (json.dumps(world.state(), sort_keys=True) for _ in range(2))
        self.require(one == two, "state stable", "state() differs between two calls without a step")
        return one


def _garbage(world: World, step: int) -> dict[str, str]:
    return {agent: GARBAGE[(step + i) % len(GARBAGE)] for i, agent in enumerate(world.agents)}


def _some(world: World, step: int) -> dict[str, str]:
    """Let nobody act, then one agent, then the next, and always somebody whom the world does not know."""
    acting = world.agents[step % len(world.agents) :][: min(step, 1)]
    rng = random.Random(step)  # noqa: S311  a policy, not a secret
    return {agent: world.sample_action(agent, "", rng) for agent in acting} | {"a stranger": "hello"}
