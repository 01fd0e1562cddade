"""The arms of a comparison: what each changes in the experiment, what it asks, and what a tie means.

Owns the overrides from one base experiment to every arm, all with the same puzzles, seeds and token budget.
It refuses to run anything and to know how a result is measured (`swarm.compare.runs`, `swarm.compare.analysis`).
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from swarm.config.coordinator import CoordinatorConfig
from swarm.config.document import Document, set_key
from swarm.config.engine import ModelEngine, OpenAIEngine, RandomEngine
from swarm.config.experiment import ExperimentConfig, TopologyConfig
from swarm.config.load import experiment_of
from swarm.config.memory import MemorySection
from swarm.errors import SwarmError
from worlds.protocol import World, WorldError, WorldOptions
from worlds.registry import load_playbook, world_class

_SILENT = {
    "coordinator": CoordinatorConfig(),
    "topology": TopologyConfig.model_validate({"kind": "none"}),
}


AT_ONCE = 50
"""Episodes in flight at once, where the file does not say: they share batches, not results."""

RIVALS_MAY_CHANGE = ("agents", "coordinator", "topology", "world")
"""Sections of an experiment in which a rival may differ."""


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison.

    Attributes:
        title: a few words for tables and plots.
        question: what the swarm's difference to this arm answers.
        overrides: the base experiment -> this arm's experiment.
        won: what it means when the swarm beats this arm.
        not_won: what it means when it ties with this arm or loses to it.
        needs_view: the arm exists only in worlds whose views can be widened (`World.full_view`).
        needs_playbook: the arm exists only in worlds with a playbook.
        needs_coordinator: the arm exists only where somebody directs.
        needs_memory: the arm exists only where agents have a memory beside their window.
        needs_setting: the arm exists only where agents have a memory with this setting.
    """

    title: str
    question: str
    overrides: Callable[[ExperimentConfig], ExperimentConfig]
    won: str
    not_won: str
    needs_view: bool = False
    needs_playbook: bool = False
    needs_coordinator: bool = False
    needs_memory: bool = False
    needs_setting: str | None = None


def _with_agents(config: ExperimentConfig, **changes: object) -> ExperimentConfig:
    return config.model_copy(update={"agents": config.agents.model_copy(update=changes)})


def _seeing_all(config: ExperimentConfig) -> ExperimentConfig:
    """Show every agent everything, where the world can; other worlds stay as they are."""
    wide = _full_view(config)
    if wide is None:
        return config
    options = wide.model_dump(mode="json", exclude_unset=True)
    return config.model_copy(update={"world": config.world.model_copy(update={"options": options})})


def _silent(config: ExperimentConfig) -> ExperimentConfig:
    return config.model_copy(update=_SILENT)


def _rules(config: ExperimentConfig) -> ExperimentConfig:
    rules = config.coordinator.model_copy(
        update={
            "kind": "rules",
            "engine": None,
            "options": {},
            "shuffled": False,
            "menu": None,
            "answers": "picks",
            "reoffer_declined": False,
        }
    )
    return config.model_copy(update={"coordinator": rules})


def _shuffled(config: ExperimentConfig) -> ExperimentConfig:
    return config.model_copy(update={"coordinator": config.coordinator.model_copy(update={"shuffled": True})})


def _solo(config: ExperimentConfig) -> ExperimentConfig:
    return _seeing_all(_silent(_with_agents(config, count=1, turns="parallel")))


def _memory_off(config: ExperimentConfig) -> ExperimentConfig:
    return _with_agents(config, memory=tuple(memory for memory in config.agents.memory if memory.kind == "stm"))


def _memories(**changes: object) -> Callable[[ExperimentConfig], ExperimentConfig]:
    """Return an override that changes settings of all memories that have them."""

    def change(config: ExperimentConfig) -> ExperimentConfig:
        memories = (m.model_copy(update=changes) if _has(m, *changes) else m for m in config.agents.memory)
        return _with_agents(config, memory=tuple(memories))

    return change


def _has(memory: MemorySection, *settings: str) -> bool:
    return set(settings) <= type(memory).model_fields.keys()


def _random(config: ExperimentConfig) -> ExperimentConfig:
    """Let agents act at random, charged the prompts of the base's model."""
    engine = config.agents.engine
    if isinstance(engine, RandomEngine):
        return config
    if not isinstance(engine, ModelEngine):
        return _with_agents(config, engine=RandomEngine())
    prompt: Literal["plain", "chat"] = "chat" if engine.chats else "plain"
    if isinstance(engine, OpenAIEngine):  # of its model there is only a tokenizer here
        return _with_agents(config, engine=RandomEngine(tokenizer=engine.tokenizer, prompt=prompt))
    return _with_agents(config, engine=RandomEngine(model=engine.model, prompt=prompt))


def _solo_split(config: ExperimentConfig) -> ExperimentConfig:
    told = _rules(_with_agents(config, count=2, turns="one_at_a_time"))
    return told.model_copy(update={"topology": TopologyConfig.model_validate({"kind": "star"})})


ARMS: dict[str, Arm] = {
    "solo": Arm(
        "solo, sees all",
        "Does the swarm beat one agent that sees everything?",
        _solo,
        "one agent with all the information and the same tokens does not get there",
        "splitting the work is not shown to help over one agent with all the information",
    ),
    "solo_split": Arm(
        "solo, told the split",
        "Does it beat one worker that is told the split and plays both halves in turn?",
        _solo_split,
        "knowing how to split the puzzle is not the whole gain",
        "many agents are not shown to add anything to knowing the split",
        needs_view=True,
    ),
    "time_slice": Arm(
        "one worker in turns",
        "Does it beat one worker that plays all of its agents in turn?",
        lambda config: _with_agents(config, turns="one_at_a_time"),
        "acting at the same time solves more, not only sooner",
        "acting at the same time is not shown to solve more; what it buys is fewer rounds",
    ),
    "independent": Arm(
        "best of N, sees all",
        "Does it beat as many agents that see everything and never talk (best of N)?",
        lambda config: _seeing_all(_silent(config)),
        "more tries alone do not explain the gain",
        "talking is not shown to add anything to as many silent tries",
        needs_view=True,
    ),
    "no_messages": Arm(
        "messages cut",
        "Does it need its messages?",
        _silent,
        "the messages matter",
        "a gain that survives without messages is not caused by them",
    ),
    "rules": Arm(
        "rules coordinator",
        "Is the coordinator at least as good as hand-written rules?",
        _rules,
        "the coordinator directs better than the hand-written rules",
        "the coordinator is not shown to direct better than the hand-written rules",
        needs_playbook=True,
    ),
    "swarm": Arm(
        "swarm",
        "The experiment as its file states it.",
        lambda config: config,
        "",
        "",
    ),
    "shuffled": Arm(
        "shuffled coordinator",
        "Does it matter who gets which directive (null control)?",
        _shuffled,
        "it matters who gets which directive",
        "a gain that survives the shuffled coordinator is not caused by its directives",
        needs_coordinator=True,
    ),
    "memory_off": Arm(
        "memory off",
        "Does it need its memory?",
        _memory_off,
        "the memory matters",
        "a gain that survives without memory is not caused by it",
        needs_memory=True,
    ),
    "solo_memory_off": Arm(
        "solo, memory off",
        "Does it beat one agent that sees everything and has no memory?",
        lambda config: _memory_off(_solo(config)),
        "one agent with the window alone does not get there",
        "splitting the work and remembering are not shown to help over one agent with the window alone",
        needs_memory=True,
    ),
    "private_memory": Arm(
        "memories private",
        "Does it matter that facts are shared?",
        _memories(shared=False),
        "sharing facts matters",
        "sharing facts is not shown to add anything to each agent's own",
        needs_setting="shared",
    ),
    "shuffled_memory": Arm(
        "memory shuffled",
        "Does it matter what the memory says (null control)?",
        _memories(control="shuffled"),
        "what the memory says matters",
        "a gain that survives a shuffled memory is not caused by what it holds",
        needs_setting="control",
    ),
    "capacity_1": Arm(
        "memory of one fact",
        "Does it matter how much the memory holds (null control)?",
        _memories(control="capacity_1"),
        "a memory of the last fact alone does not get there",
        "a gain that survives with room for one fact does not come from remembering",
        needs_setting="control",
    ),
    "random": Arm(
        "random policy",
        "Does it need trained agents (null control)?",
        _random,
        "trained agents matter: random legal actions do not get there",
        "a gain that survives random actions is not caused by the trained agents",
    ),
}
"""Every arm by name, in the order of tables; `swarm` is the base experiment itself."""


def arms_of(config: ExperimentConfig) -> dict[str, Arm]:
    """Return every arm that an experiment can be compared with: `ARMS`, then the rivals that its file names.

    Raises:
        SwarmError: a rival has the name of another arm, or its settings are none of the experiment's.
    """
    arms = dict(ARMS)
    for name, settings in (config.compare.rivals if config.compare is not None else {}).items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or name in ARMS:
            raise SwarmError(f"compare.rivals: {name!r} is no new name of letters, digits, - and _; choose another")
        if fixed := [key for key in settings if key.partition(".")[0] not in RIVALS_MAY_CHANGE]:
            raise SwarmError(
                f"compare.rivals.{name}: {fixed[0]} cannot differ, for all arms play the same puzzles at the same "
                f"budget; settings of {', '.join(RIVALS_MAY_CHANGE)} can"
            )
        if not settings:
            raise SwarmError(f"compare.rivals.{name} changes nothing; name settings, such as coordinator.kind: rules")
        changes = ", ".join(f"{key} {value}" for key, value in settings.items())
        override = partial(with_settings, settings=settings, where=f"compare.rivals.{name}")
        override(config)  # what cannot be is said before anything runs
        arms[name] = Arm(
            name.replace("_", " "),
            f"Does it beat the same with {changes}?",
            override,
            "its own settings are better",
            "its own settings are not shown to be better",
        )
    return arms


def with_settings(config: ExperimentConfig, settings: Mapping[str, object], where: str) -> ExperimentConfig:
    """Return an experiment in which other values stand at some dotted keys.

    Raises:
        SwarmError: a key is no setting of the experiment, or the values are not possible; `where` names their place.
    """
    document = Document(where, config.model_dump(mode="json"))
    for key, value in settings.items():
        set_key(document, key, value, where)
    return experiment_of(document)


def chosen_arms(names: Sequence[str], arms: Mapping[str, Arm] = ARMS) -> list[str]:
    """Return the named arms in the order of `arms`; no names means all.

    Raises:
        SwarmError: a name that is no arm.
    """
    for name in names:
        if name not in arms:
            near = difflib.get_close_matches(name, arms, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"arms: {', '.join(arms)}"
            raise SwarmError(f"unknown arm '{name}'; {hint}")
    return [name for name in arms if not names or name in names]


def not_applicable(arm: str, config: ExperimentConfig) -> str | None:
    """Return why the world of `config` cannot express this arm, or None when it can."""
    asked = arms_of(config)[arm]
    if asked.needs_view and _full_view(config) is None:
        return f"not applicable to {config.world.id}: its agents cannot be shown more (World.full_view)"
    if asked.needs_memory and [memory.kind for memory in config.agents.memory] == ["stm"]:
        return "not applicable: its agents have no memory beside their window (agents.memory)"
    if asked.needs_setting and not any(_has(memory, asked.needs_setting) for memory in config.agents.memory):
        return f"not applicable: its agents have no memory with the setting `{asked.needs_setting}`, such as facts"
    if asked.needs_coordinator and not config.coordinator.traits.directs:
        return "not applicable: it has no coordinator (coordinator.kind)"
    if asked.needs_playbook and load_playbook(config.world.id) is None:
        return f"not applicable to {config.world.id}: it has no playbook"
    return None


def equal_terms(config: ExperimentConfig, arm: str, seed: int, episodes: int) -> ExperimentConfig:
    """Return the experiment of one arm and seed, on terms that are equal for all arms.

    The limit on ticks is lifted: a tick is one call for one worker and N calls for N agents, so it would
    cut the single-worker arms short of the tokens that they are owed.

    Raises:
        SwarmError: the experiment has no token budget, so arms could not be compared at equal compute, its
            coordinator is a person, for whom a comparison cannot wait, or the seed is not possible.
    """
    if config.budget.tokens is None:
        raise SwarmError("a comparison at equal compute needs `budget.tokens`: set it in the file or with --set")
    config = with_settings(config, {"seed": seed}, "--seed")
    changed = arms_of(config)[arm].overrides(_without_tick_limit(config))
    if config.coordinator.traits.needs_terminal or changed.coordinator.traits.needs_terminal:
        raise SwarmError(
            "a comparison cannot wait for a person: set coordinator.kind to something else than human, "
            "such as --set coordinator.kind=rules"
        )
    return changed.model_copy(
        update={
            "name": f"{config.name}-{arm}",
            "episodes": episodes,
            "concurrency": config.concurrency or (1 if changed.agents.lasting else AT_ONCE),
            "compare": None,
        }
    )


def solo_config(config: ExperimentConfig) -> ExperimentConfig:
    """Return the single-agent baseline of an experiment: same puzzles, seed and budget."""
    solo = ARMS["solo"].overrides(_without_tick_limit(config))
    return solo.model_copy(update={"name": f"{config.name}-solo"})


def _without_tick_limit(config: ExperimentConfig) -> ExperimentConfig:
    if config.budget.tokens is None:
        return config
    return config.model_copy(update={"budget": config.budget.model_copy(update={"ticks": None})})


def _full_view(config: ExperimentConfig) -> WorldOptions | None:
    world = _world_of(config)
    return world.full_view(world.Options.model_validate(config.world.options))


def _world_of(config: ExperimentConfig) -> type[World]:
    try:
        return world_class(config.world.id)
    except WorldError as error:
        raise SwarmError(str(error)) from error
