"""Does it help to predict what the world answers? Two worlds, with and without, and three quarters of the episodes.

    swarm new policy experiments/signal.yaml --preset tiny
    python tests/benchmarks/learn_predict.py --out runs/predict

Resumes by the same command. `plain` learns in all episodes. The others have three quarters of them: `fewer` learns the
same way, in `predict` a fifth of what is learned are the world's answers to an agent's own actions, and in `permuted`,
the null control, answers to other actions. For each: the share of the exam that was solved, and how far that is from
`plain`.

`numbers` is learn_together.yaml with one agent and puzzles of five tiles, of which its base knows neither the rules nor
the way; there are no random attempts, so all that it learns from is what it did. `signal` is signal.yaml with fewer
rounds.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from swarm.config.experiment import ExperimentConfig
from swarm.config.load import load_experiment
from swarm.record.journal import JOURNAL_NAME, read_records
from swarm.run.runner import start_run
from swarm.stats import format_interval, paired_difference, rate_interval

sys.path.insert(0, str(Path(__file__).parent))
from arms import arms_parser

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
WORLDS = {
    "numbers": (
        "learn_together.yaml",
        [
            "agents.count=1",
            "world.options.regimes=[{count: 5}]",
            "episodes=256",
            "learning.every=16",
            "learning.steps=40",
            "learning.hindsight=0.5",
            "learning.rehearse=0",
            "learning.explore=null",
            "learning.share=none",
            "learning.share_rate=1",
            "learning.exam.episodes=400",
        ],
    ),
    "signal": ("signal.yaml", ["episodes=131072"]),
}
"""Name -> file and settings of the plain run."""

ARMS = {
    "plain": (1.0, []),
    "fewer": (0.75, []),
    "predict": (0.75, ["learning.predict=0.2"]),
    "permuted": (0.75, ["learning.predict=0.2", "learning.control=answers"]),
}
"""Name -> its share of the plain run's episodes, and settings."""


def settings_of(world: str, arm: str, seed: int, overrides: Sequence[str]) -> ExperimentConfig:
    """Return the settings of an arm."""
    file, settings = WORLDS[world]
    part, more = ARMS[arm]
    changes = [*settings, *overrides, *more, f"seed={seed}"]
    config = load_experiment(EXPERIMENTS / file, changes)
    return load_experiment(EXPERIMENTS / file, [*changes, f"episodes={round(part * config.episodes)}"])


def solved_in_exam(run_dir: Path, config: ExperimentConfig) -> dict[int, bool]:
    """Return the number of each episode of the exam -> whether it was solved."""
    ends = (record for record in read_records(run_dir / JOURNAL_NAME) if record["kind"] == "episode_end")
    return {end["episode"] - config.episodes: end["solved"] for end in ends if end["episode"] >= config.episodes}


def main() -> None:
    """Run all arms, or go on with them, and print the table."""
    parser = arms_parser(__doc__, ARMS)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    asked = parser.parse_args()
    for world in asked.worlds:
        solved: dict[str, dict[tuple[int, int], bool]] = {}
        for arm in asked.arms:
            found = solved.setdefault(arm, {})
            for seed in asked.seeds:
                config = settings_of(world, arm, seed, asked.overrides)
                outcome = start_run(config, EXPERIMENTS / WORLDS[world][0], asked.out / f"{world}-{arm}-s{seed}")
                exam = solved_in_exam(outcome.run_dir, config)
                found |= {(seed, episode): is_solved for episode, is_solved in exam.items()}
            told = f"solved {format_interval(rate_interval(list(found.values())))} (n = {len(found)})"
            if arm != "plain" and (plain := solved.get("plain")):
                minus = paired_difference(list(found.values()), [plain[at] for at in found])
                told += f"  minus plain {format_interval(minus, signed=True)}"
            print(f"{world:>8} {arm:>9}: {config.episodes:,} episodes a seed, {told}", flush=True)


if __name__ == "__main__":
    main()
