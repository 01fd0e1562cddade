"""Agents that find a language: experiments/signal.yaml, what they understand, and where nothing can be understood.

    swarm new policy experiments/signal.yaml --preset tiny
    python tests/benchmarks/learn_signal.py --out runs/signal --seeds 1 2 3
    python tests/benchmarks/learn_signal.py --out runs/signal --arms population

Resumes by the same command. `pair` are two agents; of a `population` of eight each is trained with four of the others.
When a run is over its agents play again, greedily, and nothing is learned: objects that were seen and that were held
out, partners that met and strangers, and with the channel cut or, where there are several pairs, shuffled (null
controls). For each: the share of attributes that were right, and of objects with all of them right.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swarm.agents.ltm_files import MEMORY_FOLDER
from swarm.config.experiment import ExperimentConfig
from swarm.config.load import load_experiment
from swarm.learn.trial import Trial
from swarm.learn.undo import held
from swarm.run.runner import start_run
from swarm.stats import format_interval, rate_interval

sys.path.insert(0, str(Path(__file__).parent))
from arms import arms_parser

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "signal.yaml"
ARMS = {"pair": [], "population": ["agents.count=8", "world.options.partners=met", "learning.every=2048"]}
OPEN: dict[str, dict[str, Any]] = {
    "seen": {"split": "train"},
    "held out": {"split": "held_out"},
    "held out, channel cut": {"split": "held_out", "channel": "cut"},
}
SEVERAL: dict[str, dict[str, Any]] = {
    "held out, strangers": {"split": "held_out", "partners": "strangers"},
    "held out, shuffled": {"split": "held_out", "channel": "shuffled"},
}
"""What is played again: name -> options of the world; the second where there are several pairs."""


def newest(run_dir: Path) -> dict[str | None, str]:
    """Return agent -> what it has learned in the end."""
    return {agent: versions[-1] for agent, versions in held(run_dir).versions.items() if versions}


def played(
    config: ExperimentConfig, run_dir: Path, options: Mapping[str, Any], episodes: int
) -> tuple[list[float], list[float]]:
    """Return for each game, or round of games, the shares of attributes and of objects that were right."""
    assert config.learning
    found = []
    for reward in ("attributes", "all"):
        world = config.world.model_copy(update={"options": {**config.world.options, **options, "reward": reward}})
        agents = config.agents.model_copy(update={"temperature": 0.0})
        learning = config.learning.model_copy(update={"method": "expert_iteration", "group": 1})
        changed = config.model_copy(update={"world": world, "agents": agents, "learning": learning})
        trial = Trial(changed, EXPERIMENT.parent, run_dir / MEMORY_FOLDER, newest(run_dir))
        rewards, _ = trial.play(dict.fromkeys(range(episodes), 0), {})
        found.append(list(rewards.values()))
    return found[0], found[1]


def shown(shares: Sequence[float], each: int) -> str:
    """Return the share of all with its interval; each episode has so many, and is drawn as a whole."""
    right = [number < round(share * each) for share in shares for number in range(each)]
    return format_interval(rate_interval(right, [episode for episode in range(len(shares)) for _ in range(each)]))


def report(config: ExperimentConfig, run_dir: Path, episodes: int) -> None:
    """Print what the agents of a run understand."""
    conditions = OPEN | (SEVERAL if config.agents.count > 2 else {})
    for name, options in conditions.items():
        attributes, objects = played(config, run_dir, options, episodes)
        pairs = config.agents.count // 2
        told = f"attributes {shown(attributes, 4 * pairs)}  objects {shown(objects, pairs)}"
        print(f"  {name:>22}: {told} (n = {pairs * len(objects)} objects)", flush=True)


def main() -> None:
    """Run all arms, or go on with them, and print what became of them."""
    parser = arms_parser(__doc__, ARMS)
    parser.set_defaults(arms=["pair"])
    parser.add_argument("--games", type=int, default=500, help="episodes of each condition")
    asked = parser.parse_args()
    for arm in asked.arms:
        for seed in asked.seeds:
            config = load_experiment(EXPERIMENT, [*ARMS[arm], *asked.overrides, f"seed={seed}"])
            outcome = start_run(config, EXPERIMENT, asked.out / f"{arm}-s{seed}")
            print(f"{arm}, seed {seed}: {config.episodes:,} episodes, {outcome.tokens:,} tokens")
            report(config, outcome.run_dir, asked.games)


if __name__ == "__main__":
    main()
