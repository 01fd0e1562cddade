"""The arms of a comparison: what each changes in the experiment, what it asks, and what a tie means.

Owns the overrides from one base experiment to every arm, all with the same puzzles, seeds and token budget.
It refuses to run anything and to know how a result is measured (`swarm.compare.runs`, `swarm.compare.analysis`).
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial

from swarm.compare.arm import Arm, changed
from swarm.compare.learned import LEARNING_ARMS, exam_of
from swarm.config.coordinator import CoordinatorConfig
from swarm.config.document import Document, set_key
from swarm.config.engine import ModelEngine, OpenAIEngine, RandomEngine
from swarm.config.experiment import ExperimentConfig, TopologyConfig
from swarm.config.load import experiment_of
from swarm.config.memory import MemorySection
from swarm.errors import SwarmError, did_you_mean
from worlds.checked import other_options
from worlds.protocol import WorldError, WorldOptions
from worlds.registry import load_playbook, world_class

AT_ONCE = 50
"""Episodes in flight at once, where the file does not say: they share batches, not results."""

RIVALS_MAY_CHANGE = ("agents", "coordinator", "topology", "world")
"""Sections of an experiment in which a rival may differ."""


def _seeing_all(config: ExperimentConfig) -> ExperimentConfig:
    """Show every agent everything, where the world can; other worlds stay as they are."""
    wide = _full_view(config)
    return (
        config if wide is None else changed(config, "world", options=wide.model_dump(mode="json", exclude_unset=True))
    )


def _silent(config: ExperimentConfig) -> ExperimentConfig:
    return config.model_copy(update={"coordinator": CoordinatorConfig(), "topology": TopologyConfig(kind="none")})


def _rules(config: ExperimentConfig) -> ExperimentConfig:
    return changed(
        config,
        "coordinator",
        kind="rules",
        engine=None,
        options={},
        shuffled=False,
        menu=None,
        answers="picks",
        reoffer_declined=False,
    )


def _solo(config: ExperimentConfig) -> ExperimentConfig:
    return _seeing_all(_silent(changed(config, "agents", count=1, turns="parallel")))


def _memory_off(config: ExperimentConfig) -> ExperimentConfig:
    return changed(config, "agents", memory=tuple(memory for memory in config.agents.memory if memory.kind == "stm"))


def _with_memories(config: ExperimentConfig, setting: str, value: object) -> ExperimentConfig:
    """Change a setting of all memories that have it."""
    memories = (m.model_copy(update={setting: value}) if _has(m, setting) else m for m in config.agents.memory)
    return changed(config, "agents", memory=tuple(memories))


def _has(memory: MemorySection, setting: str) -> bool:
    return setting in type(memory).model_fields


def _random(config: ExperimentConfig) -> ExperimentConfig:
    """Let agents act at random, charged the prompts of the base's model."""
    engine, random = config.agents.engine, RandomEngine()
    if isinstance(engine, RandomEngine):
        return config
    if isinstance(engine, OpenAIEngine):  # of its model there is only a tokenizer here
        random = RandomEngine(tokenizer=engine.tokenizer, prompt="chat" if engine.chats else "plain")
    elif isinstance(engine, ModelEngine):
        random = RandomEngine(
            model=engine.model,
            prompt="chat" if engine.chats else "plain",
            chat_template_kwargs=engine.chat_template_kwargs,
        )
    return changed(config, "agents", engine=random)


def _solo_split(config: ExperimentConfig) -> ExperimentConfig:
    told = _rules(changed(config, "agents", count=2, turns="one_at_a_time"))
    return told.model_copy(update={"topology": TopologyConfig(kind="star")})


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
        needs="view",
    ),
    "time_slice": Arm(
        "one worker in turns",
        "Does it beat one worker that plays all of its agents in turn?",
        lambda config: changed(config, "agents", turns="one_at_a_time"),
        "acting at the same time solves more, not only sooner",
        "acting at the same time is not shown to solve more; what it buys is fewer rounds",
    ),
    "independent": Arm(
        "best of N, sees all",
        "Does it beat as many agents that see everything and never talk (best of N)?",
        lambda config: _seeing_all(_silent(config)),
        "more tries alone do not explain the gain",
        "talking is not shown to add anything to as many silent tries",
        needs="view",
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
        needs="playbook",
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
        lambda config: changed(config, "coordinator", shuffled=True),
        "it matters who gets which directive",
        "a gain that survives the shuffled coordinator is not caused by its directives",
        needs="coordinator",
    ),
    "memory_off": Arm(
        "memory off",
        "Does it need its memory?",
        _memory_off,
        "the memory matters",
        "a gain that survives without memory is not caused by it",
        needs="memory",
    ),
    "solo_memory_off": Arm(
        "solo, memory off",
        "Does it beat one agent that sees everything and has no memory?",
        lambda config: _memory_off(_solo(config)),
        "one agent with the window alone does not get there",
        "splitting the work and remembering are not shown to help over one agent with the window alone",
        needs="memory",
    ),
    "private_memory": Arm(
        "memories private",
        "Does it matter that facts are shared?",
        lambda config: _with_memories(config, "shared", False),
        "sharing facts matters",
        "sharing facts is not shown to add anything to each agent's own",
        needs="shared",
    ),
    "shuffled_memory": Arm(
        "memory shuffled",
        "Does it matter what the memory says (null control)?",
        lambda config: _with_memories(config, "control", "shuffled"),
        "what the memory says matters",
        "a gain that survives a shuffled memory is not caused by what it holds",
        needs="control",
    ),
    "capacity_1": Arm(
        "memory of one fact",
        "Does it matter how much the memory holds (null control)?",
        lambda config: _with_memories(config, "control", "capacity_1"),
        "a memory of the last fact alone does not get there",
        "a gain that survives with room for one fact does not come from remembering",
        needs="control",
    ),
    "random": Arm(
        "random policy",
        "Does it need trained agents (null control)?",
        _random,
        "trained agents matter: random legal actions do not get there",
        "a gain that survives random actions is not caused by the trained agents",
    ),
}
"""Every arm of experiments that do not learn, in the order of tables; `swarm` is the base experiment itself."""

BUILT_IN = {**LEARNING_ARMS, **ARMS}
"""Every arm that no file has to name."""


def arms_of(config: ExperimentConfig) -> dict[str, Arm]:
    """Return every arm that an experiment can be compared with, then the rivals that its file names.

    Those are `LEARNING_ARMS` where agents learn, else `ARMS`.

    Raises:
        SwarmError: a rival has the name of another arm, or its settings are none of the experiment's.
    """
    arms = dict(ARMS if config.learning is None else LEARNING_ARMS)
    may_change = (*RIVALS_MAY_CHANGE, *([] if config.learning is None else ["learning"]))
    for name, settings in (config.compare.rivals if config.compare is not None else {}).items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or name in BUILT_IN:
            raise SwarmError(f"compare.rivals: {name!r} is no new name of letters, digits, - and _; choose another")
        if fixed := [key for key in settings if key.partition(".")[0] not in may_change]:
            raise SwarmError(
                f"compare.rivals.{name}: {fixed[0]} cannot differ, for all arms play the same puzzles at the same "
                f"budget; settings of {', '.join(may_change)} can"
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
            raise SwarmError(f"unknown arm '{name}'{did_you_mean(name, arms, '; arms: ' + ', '.join(arms))}")
    return [name for name in arms if not names or name in names]


def not_applicable(arm: str, config: ExperimentConfig) -> str | None:
    """Return why the world of `config` cannot express this arm, or None when it can."""
    memories = config.agents.memory
    match arms_of(config)[arm].needs:
        case "view" if _full_view(config) is None:
            return f"not applicable to {config.world.id}: its agents cannot be shown more (World.full_view)"
        case "playbook" if load_playbook(config.world.id) is None:
            return f"not applicable to {config.world.id}: it has no playbook"
        case "coordinator" if not config.coordinator.traits.directs:
            return "not applicable: it has no coordinator (coordinator.kind)"
        case "memory" if [memory.kind for memory in memories] == ["stm"]:
            return "not applicable: its agents have no memory beside their window (agents.memory)"
        case "learners" if config.learning is not None and (
            config.agents.count == 1 or config.learning.learner == "team"
        ):
            return "not applicable: one learns alone (agents.count, learning.learner)"
        case "own deltas" if config.learning is not None and (
            config.agents.count == 1 or not config.learning.has_own_deltas
        ):
            return "not applicable: agents have no deltas of their own (agents.count, learning.learner, learning.share)"
        case "shared" | "control" as setting if not any(_has(memory, setting) for memory in memories):
            return f"not applicable: its agents have no memory with the setting `{setting}`, such as facts"
    if config.learning is not None and arm != "swarm" and arms_of(config)[arm].overrides(config) == config:
        return "not applicable: it is what the file states"
    return None


def equal_terms(config: ExperimentConfig, arm: str, seed: int, episodes: int) -> ExperimentConfig:
    """Return the experiment of one arm and seed, on terms that are equal for all arms.

    The limit on ticks is lifted: a tick is one call for one worker and N calls for N agents, so it would
    cut the single-worker arms short of the tokens that they are owed. Where agents learn, an arm plays its rounds and
    its exam, whose limits are those of the file.

    Raises:
        SwarmError: the experiment has no token budget, so arms could not be compared at equal compute, it learns and
            has no exam, its coordinator is a person, for whom a comparison cannot wait, or the seed is not possible.
    """
    if config.learning is not None:
        exam_of(config)
    elif config.budget.tokens is None:
        raise SwarmError("a comparison at equal compute needs `budget.tokens`: set it in the file or with --set")
    config = with_settings(config, {"seed": seed}, "--seed")
    of_arm = arms_of(config)[arm].overrides(config if config.learning is not None else _without_tick_limit(config))
    if config.coordinator.traits.needs_terminal or of_arm.coordinator.traits.needs_terminal:
        raise SwarmError(
            "a comparison cannot wait for a person: set coordinator.kind to something else than human, "
            "such as --set coordinator.kind=rules"
        )
    return of_arm.model_copy(
        update={
            "name": f"{config.name}-{arm}",
            "episodes": episodes if config.learning is None else of_arm.episodes,
            "concurrency": config.concurrency or (1 if of_arm.agents.lasting else AT_ONCE),
            "compare": None,
        }
    )


def solo_config(config: ExperimentConfig) -> ExperimentConfig:
    """Return the single-agent baseline of an experiment: same puzzles, seed and budget."""
    solo = ARMS["solo"].overrides(_without_tick_limit(config))
    return solo.model_copy(update={"name": f"{config.name}-solo"})


def _without_tick_limit(config: ExperimentConfig) -> ExperimentConfig:
    return config if config.budget.tokens is None else changed(config, "budget", ticks=None)


def _full_view(config: ExperimentConfig) -> WorldOptions | None:
    try:
        world = world_class(config.world.id)
        return other_options(world, "full_view", world.Options.model_validate(config.world.options))
    except WorldError as error:
        raise SwarmError(str(error)) from error
