"""A policy for a world that has no lessons: random weights that have read random play, and a tokenizer of its texts.

What agents learn in play stands beside such a base as beside any other. Nothing but the rules of the world goes into
it: it says what is legal, and has learned by heart what random agents happened to say, which is neither good nor bad.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from swarm.config.experiment import ExperimentConfig, WorldConfig
from swarm.errors import SwarmError
from swarm.process.progress import counted
from swarm.prompt import STOP, agent_prompt
from swarm.run.episode import open_world
from swarm.train.recipe import ModelSection
from ulm.checkpoint import FILES, save_checkpoint
from ulm.files import TakenError, refuse_taken
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer
from ulm.train.pairs import PairObjective
from ulm.train.step import Worker, learning_rate, make_optimizer, train_step
from worlds.results import WorldFaultError
from worlds.seeds import DerivedRandom, derive_seed

EPISODES = 400
MOST_STEPS = 20
"""Of an episode that is read."""

TURNS = 800
"""Turns that are learned, the first ones."""

BATCH, RATE = 128, 5e-3


class Turn(NamedTuple):
    """What an agent read, did, and was told, each with its end of line."""

    read: str
    did: str
    told: str


def write_untrained(
    config: ExperimentConfig, base_dir: Path, model: ModelSection, seed: int, out: Path, steps: int = 0
) -> Decoder:
    """Write a checkpoint that an experiment's agents can learn beside.

    Args:
        config: the experiment, for its world and how many agents act in it.
        base_dir: its folder.
        model: shape and tokenizer.
        seed: of weights and texts.
        out: folder to write; new, or one with an earlier checkpoint.
        steps: of learning to play at random; with 0 its weights are random.

    Returns:
        The model.

    Raises:
        SwarmError: the world is not there or refuses its options, or the folder cannot be written.
    """
    try:
        refuse_taken(out, FILES)
        turns = list(random_play(config.world, config.agents.count, base_dir, seed))
        tokenizer = Tokenizer.train(map("".join, turns), model.vocab_size)
        tokenizer = tokenizer.spelled() if model.spell_numbers else tokenizer
        found = spread(Decoder(model.config(tokenizer.vocab_size), seed=seed))
        play_at_random(found, tokenizer, turns, seed, steps)
        recipe = {"kind": "untrained", "world": config.world.id, "seed": seed, "steps": steps}
        recipe["model"] = model.model_dump(mode="json")
        save_checkpoint(out, found, tokenizer, {"recipe": recipe}, dtype=torch.bfloat16)
    except (TakenError, ValueError) as error:
        raise SwarmError(f"the policy cannot be written: {error}") from error
    return found


@torch.no_grad()
def spread(model: Decoder) -> Decoder:
    """Scale a new model's matrices so that what it answers depends on what it reads, and return it.

    With the small weights from which training starts, all prompts have nearly the same most likely answer, and play has
    nothing to choose from. Their deviation becomes one over the root of the inputs (LeCun et al. 1998).
    """
    for block in model.blocks:
        for parameter in block.parameters():
            if parameter.dim() > 1:
                parameter.mul_(parameter.shape[1] ** -0.5 / float(parameter.std()))
    return model


def play_at_random(model: Decoder, tokenizer: Tokenizer, turns: Sequence[Turn], seed: int, steps: int) -> None:
    """Train a model to act as random agents did; few turns, so it learns them by heart and answers vary."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same bits whatever else the machine does
    try:
        model.requires_grad_(True)
        optimizer = make_optimizer(model, RATE, 0.0, (0.9, 0.98))
        some = turns[:TURNS]
        order = DerivedRandom(seed, "untrained", "order")

        def pair(number: int) -> tuple[str, str]:
            read, did, _ = some[order.randrange(len(some))]
            return read, did

        alone = Worker(0, 1, torch.device("cpu"), lambda record: None)
        objective = PairObjective(model, optimizer, alone, tokenizer, pair, batch_size=BATCH)
        for step in counted("learning to play at random", range(steps), steps, "steps"):
            train_step(objective, step, learning_rate(step, peak=RATE, warmup=min(20, steps), steps=steps))
    finally:
        torch.set_num_threads(threads)


def random_play(world: WorldConfig, num_agents: int, base_dir: Path, seed: int) -> Iterator[Turn]:
    """Yield what agents read, do and are told when they act at random."""
    opened = open_world(world, num_agents, base_dir)
    try:
        for number in range(EPISODES):
            rng = DerivedRandom(seed, "untrained", number)
            observations, _ = opened.reset(derive_seed(seed, "untrained", number), {"episode": number, "level": 0})
            for _ in range(MOST_STEPS):
                if not opened.agents:
                    break
                actions = {agent: opened.sample_action(agent, "", rng) for agent in opened.agents}
                result = opened.step(actions)
                for agent, action in actions.items():
                    told = f"{result.infos[agent]['feedback']}{STOP}"
                    yield Turn(agent_prompt(observations[agent]), f"{action}{STOP}", told)
                observations = {**observations, **result.observations}
    except WorldFaultError as error:
        raise SwarmError(str(error)) from error
