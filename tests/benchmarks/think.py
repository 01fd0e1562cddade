"""Thoughts against plain attempts at equal test tokens: experiments/think.yaml and what it is held against.

    python tests/benchmarks/think.py --out runs/think --seeds 1 2 3

Resumes by the same command. `plain` is puzzle-solo, of equal size and training tokens. In `wrong` the thinker's steps
are answered by other numbers (null); in `unanswered` it has to know results itself. All arms meet the same puzzles. For
each: the share that was solved within the budget, its difference from `plain`, tokens and actions per puzzle. A budget
lets an action begin that ends beyond it; what is solved so, and thoughts are long, does not count here.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from swarm.config.load import load_experiment
from swarm.record.outcomes import read_run
from swarm.run.runner import start_run
from swarm.stats import format_interval, paired_difference, rate_interval
from worlds.numbers.world import ExpressionWorld
from worlds.seeds import DerivedRandom

sys.path.insert(0, str(Path(__file__).parent))
from arms import arms_parser

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "think.yaml"
PLAIN = ["agents.engine.model=policies/puzzle-solo", "agents.inline=false", "agents.max_new_tokens=24"]
ARMS = {"plain": PLAIN, "thinks": [], "wrong": [], "unanswered": ["agents.inline=false"]}
MOST_WRONG = 9  # a wrong answer is off by 1 to so much


@contextmanager
def answering_wrongly(wrongly: bool) -> Iterator[None]:
    """Let steps be answered by other numbers than they come to, where asked to."""
    right = ExpressionWorld.inline

    def wrong(observation: str, text: str) -> str | None:
        found = right(observation, text)
        if found is None or not found.isdigit():
            return found
        rng = DerivedRandom(0, "wrong", text.encode().hex())
        return str(abs(int(found) + rng.choice((-1, 1)) * rng.randint(1, MOST_WRONG)))

    if wrongly:
        ExpressionWorld.inline = staticmethod(wrong)  # type: ignore[method-assign]
    try:
        yield
    finally:
        ExpressionWorld.inline = staticmethod(right)  # type: ignore[method-assign]


def played(arm: str, seed: int, out: Path, overrides: Sequence[str]) -> tuple[list[bool], int, int]:
    """Return which puzzles an arm solves, its tokens and its actions."""
    config = load_experiment(EXPERIMENT, [*overrides, *ARMS[arm], f"seed={seed}"])
    with answering_wrongly(arm == "wrong"):
        run_dir = start_run(config, EXPERIMENT, out / f"{arm}-s{seed}").run_dir
    puzzles = sorted(read_run(run_dir).puzzles, key=lambda one: one.episode)
    limit = config.budget.tokens or float("inf")
    solved = [one.solved and one.tokens <= limit for one in puzzles]
    return solved, sum(one.tokens for one in puzzles), sum(one.actions for one in puzzles)


def main() -> None:
    """Play all arms, or go on with them, and print the table."""
    asked = arms_parser(__doc__, ARMS).parse_args()
    solved: dict[str, list[bool]] = {}
    for arm in asked.arms:
        found = [played(arm, seed, asked.out, asked.overrides) for seed in asked.seeds]
        solved[arm] = [one for puzzles, _, _ in found for one in puzzles]
        n = len(solved[arm])
        tokens, actions = (sum(one[place] for one in found) / n for place in (1, 2))
        told = f"{arm:>10}: {format_interval(rate_interval(solved[arm]))} (n = {n})"
        if "plain" in solved and arm != "plain":
            told += f"  minus plain {format_interval(paired_difference(solved[arm], solved['plain']), signed=True)}"
        print(f"{told}  {tokens:.0f} tokens, {actions:.1f} actions per puzzle", flush=True)


if __name__ == "__main__":
    main()
