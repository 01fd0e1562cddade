"""What learning would cost: the tokens that are trained on and the time, from a few steps on random attempts."""

import random
import time
from pathlib import Path
from typing import NamedTuple

from swarm.check.plan import Plan, about
from swarm.config.experiment import ExperimentConfig
from swarm.config.learning import LearningConfig, TestSettings
from swarm.errors import SwarmError
from swarm.learn.accept import TRAINED_TOKEN
from swarm.learn.samples import Sample, Samples
from swarm.process.machine import cores
from swarm.process.progress import progress
from swarm.prompt import STOP, agent_prompt
from swarm.run.episode import Episode, world_of
from worlds.results import WorldFaultError

EXAMPLES = 64
STEPS = 3
"""Optimizer steps that are timed, after one that is not: it brings the library up."""


class StepPace(NamedTuple):
    """What an optimizer step of learning takes: seconds on one core, and tokens that are trained on."""

    seconds: float
    tokens: float


def tell_learning(plan: Plan, config: ExperimentConfig, base_dir: Path) -> None:
    """Tell how often and from how much agents would learn, and about what that costs."""
    settings = config.learning
    if settings is None:
        return
    learners = 1 if settings.learner == "team" else config.agents.count
    steps = config.num_rounds * learners
    each = f"{settings.steps:,} optimizer steps of {settings.batch:,} examples"
    plan.tell("learns", f"{config.num_rounds:,} rounds x {learners:,} learners, each {each}")
    if settings.exam is not None:
        plan.tell("exam", f"{settings.exam.episodes:,} episode(s) after the last round")
    plan.tell("", *_tests(settings.test))
    if plan.missing:
        return
    with plan.noting("learning: "):
        pace = step_pace(config, settings, base_dir)
        tokens = steps * settings.steps * pace.tokens
        at_once = min(learners, cores())
        seconds = config.num_rounds * -(-learners // at_once) * settings.steps * pace.seconds
        plan.tell("", f"about {tokens:,.0f} tokens are trained on, charged as {TRAINED_TOKEN * tokens:,.0f}")
        plan.tell("", about(seconds, "as a few steps on random attempts went; tests, and steps that fail, come on top"))


def _tests(test: TestSettings) -> list[str]:
    """Return what a step must pass, in words."""
    told = [f"probe of {test.probe:,}"] if test.probe else []
    told += [f"{test.tasks:.0%} of the puzzles kept out"] if test.tasks else []
    return ["no test" if not test.on else "each step is tested", *told]


def step_pace(config: ExperimentConfig, settings: LearningConfig, base_dir: Path) -> StepPace:
    """Take a few steps from random legal attempts at the first puzzles, and forget them.

    Raises:
        SwarmError: the base cannot be read, or the world offers no attempts.
    """
    import torch

    from swarm.learn.base import agents_base, agents_hash
    from swarm.learn.step import take_step

    plain = {"method": "expert_iteration", "hindsight": 0.0, "rehearse": 0.0, "predict": 0.0}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with progress("taking the first learning steps"):
            base = agents_base(config, base_dir, agents_hash(config, base_dir))
            samples = base.samples(Samples({"own": list(_attempts(config, base_dir))}))
            for steps in (1, STEPS):
                began_s = time.monotonic()
                learned = take_step(
                    base.checkpoint, None, samples, settings.model_copy(update={**plain, "steps": steps}), 0
                )
                took_s = time.monotonic() - began_s
    finally:
        torch.set_num_threads(before)
    return StepPace(took_s / STEPS, learned.trained_tokens / STEPS)


def _attempts(config: ExperimentConfig, base_dir: Path) -> list[Sample]:
    """Return attempts that know the rules of the world and nothing else."""
    found: list[Sample] = []
    try:
        for index in range(min(EXAMPLES, config.episodes)):
            episode = Episode(index, config, world_of(config, base_dir))
            for agent in episode.world.agents:
                answer = episode.world.sample_action(agent, "", random.Random(index))  # noqa: S311
                found.append(Sample(agent_prompt(episode.observations[agent]), answer + STOP))
            if len(found) >= EXAMPLES:
                break
    except WorldFaultError as error:
        raise SwarmError(str(error)) from error
    return found
