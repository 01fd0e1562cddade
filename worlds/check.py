"""`check_world`: does a world keep the contract of `worlds.protocol`?

Owns the rules that can be verified from outside, for authors of worlds and for our own contract tests. It
refuses to judge whether a world is interesting, and never raises for what the world does wrong: it lists it.

Plays per seed: a random policy, the same again on a new and on the used world (determinism), garbage, and
steps in which agents are missing. Playbook and lessons are checked by `worlds.check_parts`.
"""

import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from worlds.check_parts import check_lessons, check_playbook
from worlds.protocol import Info, StepResult, World, WorldError
from worlds.registry import lessons_of, make, playbook_of

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

_MAX_FEEDBACK_CHARS = 500
_MIN_LEGAL_SHARE = 0.5
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*-v[0-9]+")

_Policy = Callable[[World, int], dict[str, str]]


def check_world(
    world_id_or_factory: str | Callable[[], World],
    seeds: Sequence[int] = (0, 1, 2),
    max_steps: int = 50,
    *,
    num_agents: int = 3,
    options: Mapping[str, Any] | None = None,
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

    Raises:
        WorldError: there is no such world, or it refuses these options.
    """
    if isinstance(world_id_or_factory, str):
        world_id = world_id_or_factory

        def factory() -> World:
            return make(world_id, num_agents, options)
    else:
        factory = world_id_or_factory
    inspection = _Inspection(factory)
    inspection.check_class(factory())
    for seed in seeds:
        inspection.check_seed(seed, max_steps)
    for level in range(1, inspection.levels):
        inspection.level = level
        inspection.check_seed(seeds[0], max_steps)
    inspection.check_legal_share()
    inspection.check_parts(seeds[0])
    return list(inspection.violations.values())


class _WorldRaisedError(Exception):
    """Ends a play after the world raised; the violation is already noted."""


class _Inspection:
    """The plays of one world; `violations` holds the first sighting of each broken rule."""

    def __init__(self, factory: Callable[[], World]) -> None:
        self.factory = factory
        self.violations: dict[str, str] = {}
        self.where = ""
        self.level, self.levels = 0, 1
        self.num_sampled = self.num_legal = 0

    def note(self, rule: str, text: str) -> None:
        """Record the first sighting of a broken rule."""
        self.violations.setdefault(rule, f"{self.where}: {text}" if self.where else text)

    def require(self, holds: bool, rule: str, text: str) -> bool:
        """Note the violation unless the rule holds; return whether it does."""
        if not holds:
            self.note(rule, text)
        return holds

    def call(self, name: str, function: Callable[[], Any]) -> Any:
        """Return what the world returns, or note that it raised and end the play."""
        try:
            return function()
        except _WorldRaisedError:
            raise
        except Exception as error:  # whatever a world raises is the finding
            self.note(f"{name} raises", f"{name} raised {_line_of(error)}")
            raise _WorldRaisedError from error

    @contextmanager
    def _noting_malformed(self) -> Iterator[None]:
        try:
            yield
        except _WorldRaisedError:
            pass
        except Exception as error:  # a check stumbled over data of another shape than the protocol's
            self.note("malformed", f"returned data has not the protocol's shape: {_line_of(error)}")

    def check_class(self, world: World) -> None:
        """Check what does not depend on an episode."""
        world_id = getattr(world, "id", None)
        named = isinstance(world_id, str) and _ID.fullmatch(world_id) is not None
        self.require(named, "id", f"id {world_id!r} is not lower-case words and a version, like 'maze-v0'")
        self.require(bool(world.card()), "card", "the class has no card docstring")
        names = world.possible_agents
        levels = world.levels if isinstance(world.levels, int) else 0
        if self.require(levels > 0, "levels", f"levels is {world.levels!r}, no number of at least 1"):
            self.levels = levels
        with self._noting_malformed():
            for name in ("full_view", "for_training"):
                options = self.call(name, partial(getattr(world, name), world.options))
                fits = options is None or isinstance(options, type(world).Options)
                self.require(fits, name, f"{name} returns neither options nor None: {options!r:.60}")
        distinct = len(names) == len(set(names)) > 0
        self.require(distinct, "possible_agents", "possible_agents repeats a name or is empty")

    def check_seed(self, seed: int, max_steps: int) -> None:
        """Run every play of one seed."""
        with self._noting_malformed():
            self._check_episode(seed, max_steps)
        for name, policy in (("garbage", _garbage), ("missing agents", _some)):
            with self._noting_malformed():
                self._play(self.factory(), seed, max_steps, name, policy)

    def check_legal_share(self) -> None:
        """Check that the random policy is a policy and not noise."""
        self.where = ""
        share = self.num_legal / self.num_sampled if self.num_sampled else 1.0
        self.require(
            share >= _MIN_LEGAL_SHARE,
            "sample_action legal",
            f"only {self.num_legal} of {self.num_sampled} actions from sample_action were legal",
        )

    def check_parts(self, seed: int) -> None:
        """Check playbook and lessons, where the world brings them."""
        self.where = ""
        world = self.factory()
        try:
            book, lessons = playbook_of(type(world)), lessons_of(type(world))
        except WorldError as error:
            self.note("parts", str(error))
            return
        for name, part in (("playbook", book), ("lessons", lessons)):
            try:
                if part is book and book is not None:
                    check_playbook(book, world, seed, GARBAGE, self.require)
                elif part is lessons and lessons is not None:
                    check_lessons(lessons, GARBAGE, self.require)
            except Exception as error:  # whatever a world brings may raise; that is the finding
                self.note(f"{name} raises", f"{name} raised {_line_of(error)}")

    def _check_episode(self, seed: int, max_steps: int) -> None:
        def sample(world: World, step: int) -> dict[str, str]:
            return {agent: self._sample(world, agent, f"{seed}/{step}/{agent}") for agent in world.agents}

        world = self.factory()
        first, played = self._play(world, seed, max_steps, "random policy", sample)
        for rerun, name in ((self.factory(), "replay"), (world, "second reset")):
            again, _ = self._play(rerun, seed, len(played), name, lambda _, step: played[step])
            pairs = enumerate(zip(first, again, strict=False))
            difference = next((step for step, (one, two) in pairs if one != two), None)
            if difference is None and len(first) != len(again):
                difference = min(len(first), len(again))
            place = "reset" if difference == 0 else f"step {(difference or 0) - 1}"
            self.where = f"seed {seed}, {name}"
            self.require(
                difference is None,
                f"{name} differs",
                f"same seed and actions, but observations, rewards or state differ at {place}",
            )

    def _sample(self, world: World, agent: str, place: str) -> str:
        before = self._fingerprint(world)

        def draw(directive: str) -> Any:
            rng = random.Random(place)  # noqa: S311  a policy, not a secret
            return self.call("sample_action", lambda: world.sample_action(agent, directive, rng))

        draw("\x00 no directive [")
        action = draw("")
        self.require(action == draw(""), "sample_action rng", "sample_action differs for equal generators")
        unchanged = before == self._fingerprint(world)
        self.require(unchanged, "sample_action pure", "sample_action changes the state of the world")
        if not self.require(isinstance(action, str), "sample_action str", "sample_action returns no text"):
            return ""
        pattern = self.call("action_pattern", lambda: world.action_pattern(agent))
        if pattern is not None:
            matches = self.call("action_pattern", lambda: re.fullmatch(pattern, action)) is not None
            self.require(matches, "action_pattern", f"action {action!r:.80} does not match {pattern!r:.80}")
        return str(action)

    def _play(
        self, world: World, seed: int, max_steps: int, name: str, policy: _Policy
    ) -> tuple[list[str], list[dict[str, str]]]:
        """Play one episode under all checks; return one text per reset or step, and the actions."""
        self.where = f"seed {seed}, {name}, reset"
        observations, infos = self.call("reset", lambda: world.reset(seed, {"episode": 0, "level": self.level}))
        self._check_reset(world, observations, infos)
        trace = [_text([observations, infos, world.agents, self._fingerprint(world)])]
        played: list[dict[str, str]] = []
        for step in range(max_steps):
            if not world.agents:
                break
            self.where = f"seed {seed}, {name}, step {step}"
            live = list(world.agents)
            actions = self.call("sample_action", partial(policy, world, step))
            played.append(actions)
            solved = world.solved
            result = self.call("step", partial(world.step, dict(actions)))
            if not self._check_step(world, live, actions, result):
                break
            self.require(not solved or world.solved is True, "solved", "solved was true and is no more")
            self._check_hints(world, observations, actions, result)
            observations = {**observations, **result.observations}
            if name == "random policy":
                self.num_sampled += len(actions)
                self.num_legal += sum(result.infos[agent]["valid"] is True for agent in actions)
            if name == "garbage":
                accepted = next((agent for agent in actions if result.infos[agent]["valid"]), None)
                action = actions.get(accepted or "", "")
                self.require(accepted is None, "garbage", f"garbage action {action!r:.60} is taken for legal")
            trace.append(_text([list(result), world.agents, self._fingerprint(world)]))
        if not world.agents:
            self.where = f"seed {seed}, {name}, after the end"
            self.call("step", lambda: world.step(dict.fromkeys(world.possible_agents, "")))
            self.require(not world.agents, "revival", "agents that had finished are back")
        return trace, played

    def _check_reset(self, world: World, observations: Any, infos: Any) -> None:
        everyone = list(world.possible_agents)
        self.require(list(world.agents) == everyone, "reset agents", "agents are not possible_agents")
        for name, mapping in (("observations", observations), ("infos", infos)):
            complete = set(mapping) == set(everyone)
            self.require(complete, f"reset {name}", f"{name} do not name every agent")
        self.require(world.solved is False, "reset solved", "solved is not False after reset")
        self._check_texts(observations, infos)
        goal = self.call("goal", world.goal)
        self.require(_is_line(goal), "goal", f"goal() is not one line of text: {goal!r:.60}")
        self.require(isinstance(self.call("render", world.render), str), "render", "render() is not text")
        self._check_tools(self.call("tools", world.tools))

    def _check_step(self, world: World, live: list[str], actions: Mapping[str, str], result: Any) -> bool:
        """Check one step; return False when its shape is too wrong to go on."""
        kind = type(result)
        if not self.require(kind is StepResult, "step", f"step returned {kind.__name__}, not StepResult"):
            return False
        acting = [agent for agent in live if agent in actions]
        for name, mapping in result._asdict().items():
            missing, strange = sorted(set(acting) - set(mapping)), sorted(set(mapping) - set(live))
            self.require(not strange, f"{name} strange", f"{name} name agents that were not live: {strange}")
            if not self.require(not missing, f"{name} missing", f"{name} miss acting agents: {missing}"):
                return False
        for agent in acting:
            info = result.infos[agent]
            feedback = info.get("feedback")
            self.require(_is_line(feedback), "feedback", f"{agent} got no line of feedback: {feedback!r:.60}")
            self.require(
                len(str(feedback)) <= _MAX_FEEDBACK_CHARS,
                "feedback length",
                f"feedback has more than {_MAX_FEEDBACK_CHARS} characters; do not echo whole actions",
            )
            if not self.require(isinstance(info.get("valid"), bool), "valid", f"{agent} got no bool 'valid'"):
                return False
        self._check_ends(world, live, result)
        self._check_texts(result.observations, result.infos)
        for agent, reward in result.rewards.items():
            number = isinstance(reward, int | float) and math.isfinite(reward)
            self.require(number, "reward", f"reward of {agent} is not a finite number: {reward!r:.60}")
            own = not number or agent in acting or reward <= 0
            self.require(own, "own reward", f"{agent} passed and earns {reward!r:.60}; rewards are each agent's own")
        return True

    def _check_hints(
        self, world: World, observations: Mapping[str, str], actions: Mapping[str, str], result: StepResult
    ) -> None:
        """Check the pure answers of a world on what agents read and did."""
        for agent in (agent for agent in actions if agent in result.infos):
            read, action, info = observations[agent], actions[agent], result.infos[agent]
            again: list[tuple[Any, Any]] = [
                (
                    self.call("relabel", partial(world.relabel, read, action, Info(**info))),
                    self.call("inline", partial(world.inline, read, action)),
                )
                for _ in range(2)
            ]
            self.require(again[0] == again[1], "pure", "relabel or inline differ when they are asked again")
            labels, inline = again[0]
            self.require(_are_pairs(labels), "relabel", f"relabel returns no list of pairs of text: {labels!r:.60}")
            text = inline is None or isinstance(inline, str)
            self.require(text, "inline", f"inline returns neither text nor None: {inline!r:.60}")

    def _check_ends(self, world: World, live: list[str], result: StepResult) -> None:
        ended: set[str] = set()
        for name, flags in (("termination", result.terminations), ("truncation", result.truncations)):
            odd = sorted(agent for agent, flag in flags.items() if not isinstance(flag, bool))
            self.require(not odd, f"{name} bool", f"{name} of {odd} is not a bool")
            flagged = {agent for agent, flag in flags.items() if flag}
            both = sorted(ended & flagged)
            self.require(not both, "both ends", f"{both} both terminated and truncated in one step")
            ended |= flagged
        stay = sorted(ended & set(world.agents))
        self.require(not stay, "finished stay", f"{stay} finished but did not leave agents")
        gone = sorted(set(live) - set(world.agents) - ended)
        self.require(not gone, "unannounced", f"{gone} left agents without termination or truncation")
        in_order = [agent for agent in live if agent in world.agents]
        ordered = list(world.agents) == in_order
        self.require(ordered, "agents order", "agents changed order, or finished ones are back")

    def _check_texts(self, observations: Mapping[str, Any], infos: Mapping[str, Any]) -> None:
        for agent, text in observations.items():
            self.require(isinstance(text, str), "observation", f"{agent} observes no text: {text!r:.60}")
        for agent, info in infos.items():
            report = info.get("report", "none")
            self.require(_is_line(report), "report", f"{agent} reports no line of text: {report!r:.60}")
            facts = info.get("facts", [])
            self.require(
                _are_pairs(facts),
                "facts",
                f"{agent} has facts that are no pairs of observation and action: {facts!r:.60}",
            )

    def _check_tools(self, tools: Any) -> None:
        if not self.require(isinstance(tools, list) and bool(tools), "tools", "tools() lists no tools"):
            return
        for tool in tools:
            for key in ("name", "description", "text"):
                text = tool.get(key) if isinstance(tool, dict) else None
                given = isinstance(text, str) and bool(text)
                self.require(given, f"tool {key}", f"tool {tool!r:.60} lacks {key!r}")
            schema = tool.get("parameters") if isinstance(tool, dict) else None
            is_schema = (
                isinstance(schema, dict)
                and schema.get("type") == "object"
                and isinstance(schema.get("properties"), dict)
                and all(isinstance(value, dict) for value in schema["properties"].values())
                and set(schema.get("required", [])) <= set(schema["properties"])
            )
            self.require(is_schema, "tool schema", f"tool {tool!r:.60}: parameters are no JSON Schema object")
        names = [tool.get("name") for tool in tools if isinstance(tool, dict)]
        self.require(len(names) == len(set(names)), "tool names", "two tools have one name")
        self._json("tools", tools)

    def _fingerprint(self, world: World) -> str:
        one, two = (self._json("state", self.call("state", world.state)) for _ in range(2))
        self.require(one == two, "state stable", "state() differs between two calls without a step")
        return one

    def _json(self, name: str, data: Any) -> str:
        try:
            return json.dumps(data, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            self.note(f"{name} JSON", f"{name}() is not JSON-able: {error}")
            return repr(data)


def _garbage(world: World, step: int) -> dict[str, str]:
    return {agent: GARBAGE[(step + i) % len(GARBAGE)] for i, agent in enumerate(world.agents)}


def _some(world: World, step: int) -> dict[str, str]:
    """Let nobody act, then one agent, then the next, and always somebody whom the world does not know."""
    acting = world.agents[step % len(world.agents) :][: min(step, 1)]
    rng = random.Random(step)  # noqa: S311  a policy, not a secret
    return {agent: world.sample_action(agent, "", rng) for agent in acting} | {"a stranger": "hello"}


def _line_of(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _are_pairs(facts: Any) -> bool:
    return isinstance(facts, list) and all(
        isinstance(fact, tuple) and len(fact) == 2 and all(isinstance(text, str) for text in fact) for fact in facts
    )


def _is_line(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip()) and len(text.splitlines()) == 1


def _text(data: Any) -> str:
    return json.dumps(data, sort_keys=True, default=repr)
