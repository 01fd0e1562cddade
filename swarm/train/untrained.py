"""An untrained policy for a world that has no lessons: random weights, and a tokenizer of the world's own texts.

What agents learn in play stands beside such a base as beside any other. Its texts are those of random play, so nothing
but the rules of the world goes into it.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from swarm.config.experiment import ExperimentConfig, WorldConfig
from swarm.errors import SwarmError
from swarm.prompt import STOP, agent_prompt
from swarm.run.episode import open_world
from swarm.train.recipe import ModelSection
from ulm.checkpoint import FILES, save_checkpoint
from ulm.files import TakenError, refuse_taken
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer
from worlds.results import WorldFaultError
from worlds.seeds import DerivedRandom, derive_seed

EPISODES = 400
MOST_STEPS = 20
"""Of an episode that is read."""


def write_untrained(config: ExperimentConfig, base_dir: Path, model: ModelSection, seed: int, out: Path) -> Decoder:
    """Write a checkpoint with random weights that an experiment's agents can learn beside.

    Args:
        config: the experiment, for its world and how many agents act in it.
        base_dir: its folder.
        model: shape and tokenizer.
        seed: of weights and texts.
        out: folder to write; new, or one with an earlier checkpoint.

    Returns:
        The model.

    Raises:
        SwarmError: the world is not there or refuses its options, or the folder cannot be written.
    """
    try:
        refuse_taken(out, FILES)
        texts = list(random_play(config.world, config.agents.count, base_dir, seed))
        tokenizer = Tokenizer.train(texts, model.vocab_size)
        tokenizer = tokenizer.spelled() if model.spell_numbers else tokenizer
        found = Decoder(model.config(tokenizer.vocab_size), seed=seed)
        recipe = {"kind": "untrained", "world": config.world.id, "seed": seed, "model": model.model_dump(mode="json")}
        save_checkpoint(out, found, tokenizer, {"recipe": recipe}, dtype=torch.bfloat16)
    except (TakenError, ValueError) as error:
        raise SwarmError(f"the policy cannot be written: {error}") from error
    return found


def random_play(world: WorldConfig, num_agents: int, base_dir: Path, seed: int) -> Iterator[str]:
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
                    yield f"{agent_prompt(observations[agent])}{action}{STOP}{result.infos[agent]['feedback']}{STOP}"
                observations = {**observations, **result.observations}
    except WorldFaultError as error:
        raise SwarmError(str(error)) from error
