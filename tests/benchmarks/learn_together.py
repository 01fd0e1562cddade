"""What one learns, all can have: arms of experiments/learn_together.yaml at equal trained tokens, regime by regime.

    python tests/benchmarks/learn_together.py --out runs/together --seeds 1 2 3

Resumes by the same command. For each arm: the share of exam puzzles that were hit, by regime, on average over agents;
`frozen` is the base. Gain is over `frozen`; that of `team` is one learner's with everybody's data.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from swarm.config.load import load_experiment
from swarm.run.experience import experience
from swarm.run.runner import start_run

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "learn_together.yaml"
ARMS = {
    "frozen": ["learning.steps=0", "learning.share=none", "learning.explore=null"],
    "none": ["learning.share=none"],
    "mean": ["learning.share=mean"],
    "concat": ["learning.share=concat"],
    "data": ["learning.share=data"],
    "team": ["learning.share=none", "learning.learner=team"],
}
"""Name -> settings; `team` takes as many optimizer steps as all agents together take in the other arms."""


def regime_of(observation: str) -> str:
    """Return which regime of the experiment a puzzle comes from."""
    left, _, target = observation.partition(" target ")
    tiles = [int(tile) for tile in left.split()[1:]]
    if len(tiles) == 5:
        return "five tiles"
    if min(tiles) >= 14:
        return "tiles 14-20"
    return "target 24" if target == "24" else "target 200-299"


def exam(run_dir: Path, first: int) -> Mapping[str, float]:
    """Return the share of exam puzzles that were hit, by regime."""
    hits: dict[str, dict[tuple[int, str], float]] = defaultdict(dict)
    for call in experience(run_dir):
        episode, _, agent = call.key
        if episode >= first and call.role == "agent":
            of = hits[regime_of(call.observation)]
            of[episode, agent] = max(of.get((episode, agent), 0.0), call.reward)
    return {name: sum(found.values()) / len(found) for name, found in sorted(hits.items())}


def main() -> None:
    """Run all arms, or go on with them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    asked = parser.parse_args()
    for seed in asked.seeds:
        for arm in asked.arms:
            changes = [*asked.overrides, *ARMS[arm], f"seed={seed}"]
            config = load_experiment(EXPERIMENT, changes)
            if arm == "team":
                steps = config.learning.steps * config.agents.count
                config = load_experiment(EXPERIMENT, [*changes, f"learning.steps={steps}"])
            outcome = start_run(config, EXPERIMENT, asked.out / f"{arm}-s{seed}")
            found = exam(outcome.run_dir, config.episodes)
            shown = "  ".join(f"{name} {share:.3f}" for name, share in found.items())
            mean = sum(found.values()) / len(found)
            print(f"seed {seed} {arm:>7}: mean {mean:.3f}  {shown}  tokens {outcome.tokens:,}", flush=True)


if __name__ == "__main__":
    main()
