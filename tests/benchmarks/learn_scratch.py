"""From nothing: experiments/learn_scratch.yaml against lessons from random weights, in equal training seconds.

    python tests/benchmarks/learn_scratch.py --out runs/scratch --seeds 1 2 3 --puzzles 500

Resumes by the same command, in the same working folder. Both policies meet the same held-out puzzles, drawn by the
world and judged by its reward: one greedy attempt, and 16 at temperature 1. Non-inferior within .05 is the target.
"""

import argparse
from pathlib import Path

from swarm.learn.rollouts import Rollouts
from swarm.stats import format_interval, format_rate, non_inferiority
from swarm.train.recipe import RewardRecipe, load_recipe
from swarm.train.training import train_policy
from ulm.checkpoint import load_checkpoint
from ulm.decode.engine import Engine

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
WAYS = {
    "reward": (EXPERIMENTS / "learn_scratch.yaml", []),
    "lessons": (EXPERIMENTS / "train_numbers_agent.yaml", ["init=null", "optimizer.steps=1600"]),
}
"""File and settings of each way; the steps were fitted to equal seconds (experiments/LOG.md)."""

TRIES = {"single attempt": (1, 0.0), "16 attempts": (16, 1.0)}
SCORED = 1000
"""Added to the seed of a training for that of its puzzles: no training asks for them, which are held out anyway."""


def main() -> None:
    """Train both ways, or go on with them, and print what is solved and whether it is not inferior."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--puzzles", type=int, default=500)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    asked = parser.parse_args()
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
