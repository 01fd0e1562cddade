"""Attempts of `kind: reward`: one agent alone at puzzles that a world draws, judged by the world.

- A puzzle follows from (seed, purpose, number), whoever plays it, so workers share a round by its numbers.
- Random attempts may follow an episode; each own attempt is the first action of one.
- Puzzles that the result is scored on, and those that the world holds out, are known by their text and never learned.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from swarm.config.experiment import WorldConfig
from swarm.errors import SwarmError
from swarm.learn.attempts import random_attempts
from swarm.learn.imitated import Judged
from swarm.prompt import STOP, agent_prompt
from swarm.run.episode import open_world
from swarm.seeds import derive_seed
from swarm.train.recipe import RewardRecipe
from ulm.decode.engine import Engine, GenerationRequest
from worlds.protocol import Info, World, WorldError
from worlds.registry import world_class
from worlds.seeds import DerivedRandom

CORPUS = 200
"""Puzzles whose random attempts a tokenizer is trained on."""

CORPUS_ATTEMPTS = 40
"""Attempts at each of them."""

AT_ONCE = 512
"""Answers that are written at once."""


class Place(NamedTuple):
    """Where a puzzle comes from: what it is for, and its number."""

    purpose: str
    number: int


class Rollouts:
    """The puzzles of a recipe, and attempts at them.

    Args:
        recipe: names the world.
        beside: folder of its file.

    Raises:
        SwarmError: there is no such world, or it refuses its options.
    """

    def __init__(self, recipe: RewardRecipe, beside: Path) -> None:
        self.recipe = recipe
        self._scored = self._open(WorldConfig(id=recipe.world, options=recipe.options), beside)
        self._cls = world_class(recipe.world)
        self._options = self._scored.options
        taught = self._cls.for_training(self._options)
        self._trained = self._scored
        if taught is not None:
            options = taught.model_dump(mode="json", exclude_unset=True)
            self._trained = self._open(WorldConfig(id=recipe.world, options=options), beside)

    @staticmethod
    def _open(world: WorldConfig, beside: Path) -> World:
        return open_world(world, 1, beside, check=False)

    @cached_property
    def scoring(self) -> list[str]:
        """What is seen of the puzzles that the result is scored on."""
        return [self.observed(place) for place in self._scored_places()]

    @cached_property
    def _never(self) -> frozenset[str]:
        return frozenset(self.scoring)

    def _scored_places(self) -> list[Place]:
        return [Place("score", number) for number in range(self.recipe.score_examples)]

    def is_barred(self, observation: str) -> bool:
        """Return whether nothing may be learned about a puzzle."""
        return observation in self._never or self._cls.holds_out(self._options, observation)

    def observed(self, place: Place) -> str:
        """Return what the agent sees of a puzzle."""
        with self._guarded():
            return self._reset(place)[1]

    def explored(self, place: Place, count: int) -> list[Judged]:
        """Return random legal attempts at a puzzle."""
        with self._guarded():
            world, options = self._world(place), {"episode": place.number, "level": 0}
            rng = DerivedRandom(self.recipe.seed, "explore", *place)
            return [
                self._judged(one.observation, one.answer, one.reward, one.feedback, one.valid)
                for one in random_attempts(world, self._seed(place), options, count, rng)
            ]

    def tried(self, engine: Engine, places: Sequence[Place], count: int, temperature: float) -> list[list[Judged]]:
        """Return a policy's own attempts at puzzles, in their order."""
        seen = [self.observed(place) for place in places]
        seeds = [derive_seed(self.recipe.seed, "own", *place, turn) for place in places for turn in range(count)]
        texts = self._written(engine, [prompt for prompt in seen for _ in range(count)], seeds, temperature)
        with self._guarded():
            return [[self._act(place, text) for text in texts[at * count :][:count]] for at, place in enumerate(places)]

    def solved(self, engine: Engine, count: int, temperature: float) -> list[bool]:
        """Return for each puzzle that is scored whether one of so many attempts at it earned something."""
        found = self.tried(engine, self._scored_places(), count, temperature)
        return [any(one.right for one in some) for some in found]

    def texts(self) -> Iterator[str]:
        """Yield texts of random attempts, for a tokenizer."""
        for number in range(CORPUS):
            for one in self.explored(Place("corpus", number), CORPUS_ATTEMPTS):
                for observation, answer in one.told or [(one.observation, one.answer)]:
                    if not self.is_barred(observation):
                        yield agent_prompt(observation) + answer + STOP

    def _seed(self, place: Place) -> int:
        return derive_seed(self.recipe.seed, *place)

    def _world(self, place: Place) -> World:
        return self._scored if place.purpose == "score" else self._trained

    def _reset(self, place: Place) -> tuple[World, str]:
        world = self._world(place)
        observations, _ = world.reset(self._seed(place), {"episode": place.number, "level": 0})
        return world, observations[world.possible_agents[0]]

    def _act(self, place: Place, action: str) -> Judged:
        world, seen = self._reset(place)
        (agent,) = world.possible_agents
        result = world.step({agent: action})
        info, reward = result.infos[agent], float(result.rewards[agent])
        return self._judged(seen, action, reward, info["feedback"], info["valid"])

    def _judged(self, seen: str, action: str, reward: float, feedback: str, valid: bool) -> Judged:
        told: list[tuple[str, str]] = []
        if valid and self.recipe.hindsight:
            told = self._cls.relabel(self._trained.options, seen, action, Info(feedback=feedback, valid=True))
        return Judged(agent_prompt(seen), seen, action, reward > 0, told)

    def _written(self, engine: Engine, seen: Iterable[str], seeds: Sequence[int], temperature: float) -> list[str]:
        requests = [
            GenerationRequest(agent_prompt(one), seed, self.recipe.max_new_tokens, temperature, stop=(STOP,))
            for one, seed in zip(seen, seeds, strict=True)
        ]
        parts = (requests[at : at + AT_ONCE] for at in range(0, len(requests), AT_ONCE))
        return [result.text for part in parts for result in engine.generate(part)]

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn what a world raises, which may be anybody's code, into one line."""
        try:
            yield
        except WorldError as error:
            raise SwarmError(str(error)) from error
        except Exception as error:
            raise SwarmError(f"world {self.recipe.world} failed: {type(error).__name__}: {error}") from error
