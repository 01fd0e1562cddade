"""From nothing: experiments/learn_scratch.yaml against lessons from random weights, in equal training seconds.

    python tests/benchmarks/learn_scratch.py --out runs/scratch --seeds 1 2 3 --puzzles 500
    python tests/benchmarks/learn_scratch.py --out runs/scratch --pace 24

Resumes by the same command, in the same working folder. Both policies meet the same held-out puzzles, drawn by the
world and judged by its reward: one greedy attempt, and 16 at temperature 1. Non-inferior within .05 is the target.
`--pace` trains nothing to its end: it prints the processor seconds of a step of each way, taken in turn, of a round of
attempts, and how many steps of lessons take as long as all of `reward`.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from swarm.learn.reward import RewardObjective
from swarm.learn.rollouts import Rollouts
from swarm.stats import format_interval, format_rate, non_inferiority
from swarm.train.recipe import RewardRecipe, load_recipe
from swarm.train.training import open_training, train_policy
from ulm.checkpoint import load_checkpoint
from ulm.decode.engine import Engine
from ulm.train.step import Objective, Worker, train_step

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
WAYS: dict[str, tuple[Path, list[str]]] = {
    "reward": (EXPERIMENTS / "learn_scratch.yaml", []),
    "lessons": (EXPERIMENTS / "train_numbers_agent.yaml", ["init=null", "optimizer.steps=1360"]),
}
"""File and settings of each way; the steps were fitted to equal seconds (experiments/LOG.md)."""

TRIES = {"single attempt": (1, 0.0), "16 attempts": (16, 1.0)}
SCORED = 1000
"""Added to the seed of a training for that of its puzzles: no training asks for them, which are held out anyway."""


def pace(steps: int) -> None:
    """Print what a step of each way and a round of attempts take, on one thread."""
    torch.set_num_threads(1)
    objectives: dict[str, Objective] = {}
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for way, (file, settings) in WAYS.items():
            training = open_training(load_recipe(file, settings), EXPERIMENTS)
            training.prepare(Path(folder))
            objectives[way] = training.objective(Path(folder), Worker(0, 1, torch.device("cpu"), print))
    learner = objectives["reward"]
    assert isinstance(learner, RewardObjective)
    began_s = time.process_time()
    learner.batch(0)
    first_s = time.process_time() - began_s
    for step in range(steps):
        for way, objective in objectives.items():
            began_s = time.process_time()
            train_step(objective, step, 1e-3)
            took[way].append(time.process_time() - began_s)
    began_s = time.process_time()
    learner.gather(1)
    round_s = time.process_time() - began_s
    recipe = learner.recipe
    means = {way: sum(some[steps // 3 :]) / len(some[steps // 3 :]) for way, some in took.items()}  # caches are warm
    for way, mean in means.items():
        print(f"{way:>7}: {mean:.3f} s a step, {recipe.optimizer.batch_size / mean:.0f} examples/s")
    num_rounds = -(-recipe.optimizer.steps // recipe.every)
    total = recipe.optimizer.steps * means["reward"] + first_s + (num_rounds - 1) * round_s
    print(f"rounds: {first_s:.1f} s for the first, {round_s:.1f} s for the second; {num_rounds} in all")
    print(f"reward takes {total:.0f} s, as {total / means['lessons']:.0f} steps of lessons")


def main() -> None:
    """Train both ways, or go on with them, and print what is solved and whether it is not inferior."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--puzzles", type=int, default=500)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--pace", type=int, metavar="STEPS", help="measure so many steps of each way, and stop")
    asked = parser.parse_args()
    if asked.pace:
        pace(asked.pace)
        return
    solved: dict[str, dict[str, list[bool]]] = {tries: {way: [] for way in WAYS} for tries in TRIES}
    clusters: list[str] = []
    for seed in asked.seeds:
        recipe = load_recipe(WAYS["reward"][0], [f"seed={SCORED + seed}", f"score_examples={asked.puzzles}"])
        assert isinstance(recipe, RewardRecipe)
        rollouts = Rollouts(recipe, EXPERIMENTS)
        clusters += rollouts.scoring
        for way, (file, settings) in WAYS.items():
            out = asked.out / f"{way}-s{seed}"
            changes = [*settings, f"seed={seed}", f"name=scratch-{way}-s{seed}", *asked.overrides]
            found = load_checkpoint(train_policy(file, changes, out=out))
            engine = Engine(found.model, found.tokenizer)
            for tries, (count, temperature) in TRIES.items():
                now = rollouts.solved(engine, count, temperature)
                solved[tries][way] += now
                print(f"seed {seed} {way:>7}, {tries}: {format_rate(sum(now) / len(now))} of {len(now)}", flush=True)
            print(f"seed {seed} {way:>7}: {found.meta['examples']:,} examples in {found.meta['training_seconds']} s")
    for tries, by_way in solved.items():
        result = non_inferiority(by_way["reward"], by_way["lessons"], clusters, margin=0.05)
        word = "non-inferior" if result.holds else "not shown to be non-inferior"
        difference = format_interval(result.difference, signed=True)
        print(f"{tries}: reward - lessons {difference}, n = {len(clusters)}: {word} within .05")


if __name__ == "__main__":
    main()
