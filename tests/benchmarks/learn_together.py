"""What one learns, all can have: arms of experiments/learn_together.yaml at equal trained tokens, regime by regime.

    python tests/benchmarks/learn_together.py --out runs/together --seeds 1 2 3

Resumes by the same command. For each arm: the share of exam puzzles that were hit within the exam's attempts, on
average over regimes; then by regime, and where an agent met the regime that it had learned (`own`). The gain is over
`frozen`, the base; `team` is one learner with everybody's data, `alone` are agents that share nothing, in `swapped`
they play the exam with each other's deltas. Rounds to half are those after which agents hit half as many more of the
puzzles that they play as in the last quarter of rounds.

In `row` one agent meets the four regimes one after the other, in as many steps as all agents together; `row-tested`
has the acceptance test on, learns at a lower rate and rehearses more. Those with `first` end after the first regime:
column `target 24`, beside theirs, says what is left of that.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from swarm.agents.ltm_files import MEMORY_FOLDER
from swarm.config.experiment import ExperimentConfig
from swarm.config.load import load_experiment
from swarm.learn.trial import Trial
from swarm.record.journal import JOURNAL_NAME, read_records
from swarm.record.records import Record
from swarm.run.experience import experience
from swarm.run.runner import start_run
from swarm.stats import format_interval, paired_difference, rate_interval

sys.path.insert(0, str(Path(__file__).parent))
from arms import arms_parser
from learn_signal import newest

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "learn_together.yaml"
Exam = tuple[int, int, str]
"""Seed, episode of the exam, agent."""

REGIMES = ["target 24", "target 200-299", "tiles 14-20", "five tiles"]
ALONE = ["learning.share=none", "learning.share_rate=1"]
TESTED = [
    "learning.lr=2e-3",
    "learning.hindsight=0.35",
    "learning.rehearse=0.45",
    "learning.test.on=true",
    "learning.test.probe=200",
    "learning.test.kl=20",
    "learning.test.kinds=[directed]",
]
"""Settings of rows with the acceptance test, which rejects all of the first regime at 3e-3 with .3 rehearsed."""

ARMS = {
    "frozen": [*ALONE, "learning.steps=0", "learning.explore=null", "learning.rehearse=0"],
    "alone": ALONE,
    "swapped": ALONE,
    "regmean": [],
    "mean": ["learning.share=mean", "learning.share_rate=2"],
    "concat": ["learning.share=concat", "learning.share_rate=0.25"],
    "data": ["learning.share=data", "learning.share_rate=1"],
    "team": [*ALONE, "learning.learner=team"],
    "row-first": ALONE,
    "row": ALONE,
    "row-tested-first": [*ALONE, *TESTED],
    "row-tested": [*ALONE, *TESTED],
}
"""Name -> settings; `team` and the rows take as many optimizer steps as all agents together take in the other arms."""


class Hit(NamedTuple):
    """A puzzle of an agent: which regime it is of, whether that is the agent's own, and whether it was hit."""

    regime: str
    is_own: bool
    hit: bool


def settings_of(arm: str, seed: int, overrides: Sequence[str]) -> ExperimentConfig:
    """Return the settings of an arm."""
    changes = [*overrides, *ARMS[arm], f"seed={seed}"]
    config = load_experiment(EXPERIMENT, changes)
    assert config.learning
    assert config.learning.exam
    everybody = config.agents.count
    if arm == "team" or arm.startswith("row"):
        changes.append(f"learning.steps={config.learning.steps * everybody}")
    if arm.startswith("row"):
        part = config.episodes // len(REGIMES)
        exam = config.learning.exam.episodes * everybody
        changes += ["agents.count=1", f"world.options.rotate={part}", f"learning.exam.episodes={exam}"]
        changes += [f"episodes={part}"] if arm.endswith("first") else []
        if explore := config.learning.explore:
            changes.append(f"learning.explore.attempts={explore.attempts * everybody}")
    return load_experiment(EXPERIMENT, changes)


def regime_of(observation: str) -> str:
    """Return which regime of the experiment a puzzle comes from."""
    left, _, target = observation.partition(" target ")
    tiles = [int(tile) for tile in left.split()[1:]]
    if len(tiles) == 5:
        return "five tiles"
    if min(tiles) >= 14:
        return "tiles 14-20"
    return "target 24" if target == "24" else "target 200-299"


def hits(run_dir: Path) -> Mapping[tuple[int, str], Hit]:
    """Return (episode, agent) -> what became of its puzzle."""
    found: dict[tuple[int, str], Hit] = {}
    for call in experience(run_dir):
        episode, _, agent = call.key
        if call.role == "agent":
            regime, before = regime_of(call.observation), found.get((episode, agent))
            is_own = REGIMES[int(agent[1:]) % len(REGIMES)] == regime
            found[episode, agent] = Hit(regime, is_own, call.reward > 0 or bool(before and before.hit))
    return found


def swapped(run_dir: Path, config: ExperimentConfig, exam: Mapping[tuple[int, str], Hit]) -> dict[tuple[int, str], Hit]:
    """Return what becomes of the exam's puzzles where each agent has what the next one learned."""
    learned = newest(run_dir)
    agents = sorted(learned, key=str)
    deltas = {agent: learned[following] for agent, following in zip(agents, agents[1:] + agents[:1], strict=True)}
    hit: set[tuple[int, str]] = set()

    def take(record: Record) -> None:
        if record["kind"] == "tick":
            hit.update((record["episode"], one["agent"]) for one in record["agents"] if one["reward"] > 0)

    played = config.of_episode(config.episodes).model_copy(update={"episodes": config.all_episodes})
    trial = Trial(played, EXPERIMENT.parent, run_dir / MEMORY_FOLDER, deltas)
    trial.watch(dict.fromkeys(range(config.episodes, config.all_episodes), 0), {}, take)
    return {at: one._replace(hit=at in hit) for at, one in exam.items()}


def by_round(found: Mapping[tuple[int, str], Hit], config: ExperimentConfig) -> list[float]:
    """Return the share of puzzles that were hit in each round of play."""
    assert config.learning
    rounds: dict[int, list[bool]] = defaultdict(list)
    for (episode, _), one in found.items():
        if episode < config.episodes:
            rounds[episode // config.learning.every].append(one.hit)
    return [sum(some) / len(some) for _, some in sorted(rounds.items())]


def rounds_to_half(shares: Sequence[float], base: float) -> int:
    """Return after how many rounds half of the gain of the last quarter of rounds was there."""
    last = shares[-max(1, len(shares) // 4) :]
    half = base + (sum(last) / len(last) - base) / 2
    return next(number for number, share in enumerate(shares) if share >= half)


def share_of_gain(of: Mapping[Exam, bool], exams: Mapping[str, Mapping[Exam, bool]]) -> str:
    """Return how much of one learner's gain an arm has, with a bootstrap interval over puzzles."""
    team, base = exams.get("team", {}), exams["frozen"]
    if of is team or of.keys() != team.keys():
        return ""
    gains_2N = np.array([[some[at] - float(base[at]) for at in of] for some in (of, team)])
    generator = np.random.default_rng(0)
    drawn_RN = generator.integers(0, gains_2N.shape[1], (2000, gains_2N.shape[1]))
    ratio_R = gains_2N[0][drawn_RN].sum(1) / gains_2N[1][drawn_RN].sum(1)
    low, high = np.quantile(ratio_R, (0.025, 0.975))
    return f"  of one learner's {gains_2N[0].sum() / gains_2N[1].sum():.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Run all arms, or go on with them, and print the table."""
    asked = arms_parser(__doc__, ARMS).parse_args()
    exams: dict[str, dict[Exam, bool]] = defaultdict(dict)
    for seed in asked.seeds:
        base: float | None = None
        for arm in asked.arms:
            config = settings_of(arm, seed, asked.overrides)
            run = "alone" if arm == "swapped" else arm
            outcome = start_run(config, EXPERIMENT, asked.out / f"{run}-s{seed}")
            found = hits(outcome.run_dir)
            shares, exam = by_round(found, config), {at: one for at, one in found.items() if at[0] >= config.episodes}
            if arm == "swapped":
                exam = swapped(outcome.run_dir, config, exam)
            exams[arm] |= {(seed, at[0] - config.episodes, at[1]): one.hit for at, one in exam.items()}
            base = sum(shares) / len(shares) if arm == "frozen" else base
            changes = [r for r in read_records(outcome.run_dir / JOURNAL_NAME) if r["kind"] == "change"]
            learned = [r for r in changes if r["cause"] == "learn"]
            trained = sum(r["cost"].get("trained_tokens", 0) for r in learned)
            columns = {
                "all": [one.hit for one in exam.values()],
                "own": [one.hit for one in exam.values() if one.is_own],
            }
            columns |= {regime: [one.hit for one in exam.values() if one.regime == regime] for regime in REGIMES}
            told = [f"{name} {sum(some) / len(some):.3f}" for name, some in columns.items()]
            if trained:
                told.append(f"trained tokens {trained:,}, steps rejected {sum(not r['accepted'] for r in learned)}")
            if trained and base is not None:
                told.append(f"rounds to half {rounds_to_half(shares, base)}")
            print(f"seed {seed} {arm:>10}: {'  '.join(told)}", flush=True)
    for arm, of in exams.items():
        print(f"{arm:>10}: {format_interval(rate_interval(list(of.values())))} (n = {len(of)})")
        if "frozen" in exams and arm != "frozen" and of.keys() == exams["frozen"].keys():
            gain = paired_difference(list(of.values()), [exams["frozen"][at] for at in of])
            print(f"{'':>10}  gain {format_interval(gain, signed=True)}{share_of_gain(of, exams)}")


if __name__ == "__main__":
    main()
