"""Turns the outcomes of all arms into rows, flags and verdicts: what is shown, and where it is not fair.

Owns the numbers of `swarm compare`: solve rates at marks of the budget with intervals, paired differences,
cost per puzzle, the checks that all arms saw the same puzzles and spent the same budget, and one plain
sentence per question. It refuses to run experiments and to draw or write anything.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from swarm.compare.arm import Arm
from swarm.compare.arms import ARMS, BUILT_IN
from swarm.compare.learned import break_even
from swarm.record.outcomes import PuzzleOutcome, RunOutcomes
from swarm.stats import (
    Interval,
    NonInferiority,
    format_interval,
    format_rate,
    non_inferiority,
    paired_difference,
    rate_interval,
)

MARKS = (1.0, 0.5, 0.25)
"""Shares of the token budget at which solve rates are reported."""
MARGIN = 0.05
"""How much worse than rules, or than a rival, the swarm may be and still count as not worse."""

Outcome = Literal["beats", "ties with", "loses to"]
Key = tuple[int, int]
"""(run seed, episode): names one puzzle across arms."""


@dataclass(frozen=True)
class Difference:
    """Reference arm minus another arm at one mark of the budget, over the puzzles that both arms ended."""

    mark: float
    interval: Interval
    outcome: Outcome


@dataclass
class ArmRow:
    """One arm in the table; means are per puzzle, None where there is nothing to say.

    Attributes:
        n: ended puzzles over all seeds.
        rates: solve rate within each mark of the budget, keyed by the mark.
        differences: reference minus this arm at each mark; empty for the reference.
        tokens_until_solved, rounds: means over solved puzzles.
        rounds_ratio: this arm's rounds / the reference's, over the puzzles that both solved.
        gflop_agents, gflop_coordinator: 2 x parameters x tokens; None where the size of the model is not
            known.
        wall_s: seconds of the arm's runs; None without telemetry.
        flags: where the arm departs from equal terms.
        question: what the arm asks.
        coverage: tokens at the solution of each puzzle, None where it was not solved.
    """

    arm: str
    title: str
    n: int
    rates: dict[float, Interval]
    differences: list[Difference]
    tokens: float
    tokens_until_solved: float | None
    rounds: float | None
    rounds_ratio: float | None
    calls: float
    gflop_agents: float | None
    gflop_coordinator: float | None
    wall_s: float | None
    flags: list[str] = field(default_factory=list)
    coverage: list[int | None] = field(default_factory=list)
    question: str = ""


@dataclass(frozen=True)
class Verdict:
    """One question answered: reference against `arm`."""

    arm: str
    question: str
    outcome: Outcome
    text: str


@dataclass
class Comparison:
    """The whole result.

    Attributes:
        reference: the arm that others are measured against: `swarm` where it ran.
        budget: tokens per puzzle.
        skipped: arm -> why it does not apply to this world.
        setbacks: every mark at which the reference does not beat an arm, as sentences.
        not_worse: whether the swarm is not worse than rules and than each rival, by arm.
        learns: whether puzzles are those of an exam, their tokens with a share of what learning took.
        break_even: arm -> tokens a puzzle from which on the reference has solved more, None where it ends no higher;
            empty where nobody learns.
    """

    name: str
    world: str
    reference: str
    budget: int
    seeds: list[int]
    episodes: int
    resamples: int
    rows: list[ArmRow]
    verdicts: list[Verdict]
    setbacks: list[str]
    skipped: dict[str, str]
    not_worse: dict[str, NonInferiority]
    learns: bool = False
    break_even: dict[str, int | None] = field(default_factory=dict)


def analyse(
    name: str,
    runs: Mapping[str, Sequence[RunOutcomes]],
    *,
    budget: int,
    seeds: Sequence[int],
    episodes: int,
    resamples: int = 10_000,
    skipped: Mapping[str, str],
    parameters: Callable[[str], int | None],
    arms: Mapping[str, Arm] = ARMS,
) -> Comparison:
    """Compare all arms.

    Args:
        name: of the experiment.
        runs: arm -> its runs, one per seed, in the order of `seeds`.
        budget: tokens per puzzle.
        seeds: run seeds.
        episodes: puzzles per seed that were asked for.
        resamples: bootstrap resamples.
        skipped: arm -> why it does not apply.
        parameters: checkpoint path as the config names it -> parameter count, None if unknown.
        arms: every arm by name; what is not among `BUILT_IN` is a rival.
    """
    reference = "swarm" if "swarm" in runs else next(iter(runs))
    learns = runs[reference][0].config.get("learning") is not None
    outcomes = {arm: _by_key(arm_runs, seeds) for arm, arm_runs in runs.items()}
    flags = _flags(runs, outcomes, reference, None if learns else budget, len(seeds) * episodes)
    base = outcomes[reference]
    rows = [
        _row(arm, arms[arm], puzzles, base, runs[arm], budget, resamples, parameters, flags[arm])
        for arm, puzzles in outcomes.items()
    ]
    bounded = [arm for arm in outcomes if reference == "swarm" and (arm == "rules" or arm not in BUILT_IN)]
    pairs = {arm: _pairs(base, outcomes[arm], budget) for arm in bounded}
    not_worse = {
        arm: non_inferiority(*found, margin=MARGIN, resamples=resamples) for arm, found in pairs.items() if found[0]
    }
    return Comparison(
        name=name,
        world=runs[reference][0].config["world"]["id"],
        reference=reference,
        budget=budget,
        seeds=list(seeds),
        episodes=episodes,
        resamples=resamples,
        rows=rows,
        verdicts=[_verdict(reference, row, arms[row.arm], not_worse.get(row.arm)) for row in rows if row.differences],
        setbacks=_setbacks(reference, rows),
        skipped=dict(skipped),
        not_worse=not_worse,
        learns=learns,
        break_even=break_even({row.arm: row.coverage for row in rows}, reference) if learns else {},
    )


def _by_key(runs: Sequence[RunOutcomes], seeds: Sequence[int]) -> dict[Key, PuzzleOutcome]:
    return {
        (seed, puzzle.episode): puzzle
        for seed, run in zip(seeds, runs, strict=True)
        for puzzle in sorted(run.puzzles, key=lambda puzzle: puzzle.episode)
    }


def _within(puzzle: PuzzleOutcome, tokens: float) -> bool:
    return puzzle.solved and puzzle.tokens <= tokens


def _pairs(
    base: Mapping[Key, PuzzleOutcome], other: Mapping[Key, PuzzleOutcome], tokens: float
) -> tuple[list[bool], list[bool], list[str]]:
    """Return both arms' solve indicators and the puzzle (cluster) of each pair that both arms ended."""
    keys = [key for key in base if key in other]
    a = [_within(base[key], tokens) for key in keys]
    b = [_within(other[key], tokens) for key in keys]
    return a, b, [base[key].puzzle for key in keys]


def _differences(
    base: Mapping[Key, PuzzleOutcome], other: Mapping[Key, PuzzleOutcome], budget: int, resamples: int
) -> list[Difference]:
    pairs = {mark: _pairs(base, other, mark * budget) for mark in MARKS if base.keys() & other.keys()}
    found = {mark: paired_difference(*pairs[mark], resamples=resamples) for mark in pairs}
    return [Difference(mark, interval, _outcome(interval)) for mark, interval in found.items()]


def _outcome(interval: Interval) -> Outcome:
    return "beats" if interval.low > 0 else "loses to" if interval.high < 0 else "ties with"


def _row(
    arm: str,
    asked: Arm,
    puzzles: Mapping[Key, PuzzleOutcome],
    base: Mapping[Key, PuzzleOutcome],
    runs: Sequence[RunOutcomes],
    budget: int,
    resamples: int,
    parameters: Callable[[str], int | None],
    flags: list[str],
) -> ArmRow:
    ended = list(puzzles.values())
    solved = [puzzle for puzzle in ended if _within(puzzle, budget)]
    # The reference's states name the puzzles: an arm whose world shows other views hashes other states.
    clusters = [base[key].puzzle if key in base else str(key) for key in puzzles]
    both = [key for key in puzzles if _within(puzzles[key], budget) and key in base and _within(base[key], budget)]
    agents, coordinator = runs[0].config["agents"], runs[0].config["coordinator"]
    return ArmRow(
        arm=arm,
        title=asked.title,
        n=len(ended),
        rates={
            mark: rate_interval([_within(p, mark * budget) for p in ended], clusters, resamples=resamples)
            for mark in MARKS
            if ended
        },
        differences=[] if puzzles is base else _differences(base, puzzles, budget, resamples),
        tokens=_mean([puzzle.tokens for puzzle in ended]) or 0.0,
        tokens_until_solved=_mean([puzzle.tokens for puzzle in solved]),
        rounds=_mean([puzzle.rounds for puzzle in solved]),
        rounds_ratio=_ratio([puzzles[key].rounds for key in both], [base[key].rounds for key in both]),
        calls=_mean([puzzle.calls for puzzle in ended]) or 0.0,
        gflop_agents=_gflop(
            agents["engine"].get("model") if agents["engine"]["kind"] != "random" else None,
            [puzzle.agent_tokens for puzzle in ended],
            parameters,
        ),
        gflop_coordinator=_gflop(
            coordinator["engine"]["model"] if coordinator["engine"] else None,
            [puzzle.coordinator_tokens for puzzle in ended],
            parameters,
        ),
        wall_s=sum(run.telemetry.wall_s for run in runs) or None,
        flags=flags,
        coverage=[puzzle.tokens if puzzle.solved else None for puzzle in ended],
        question=asked.question,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _ratio(a: Sequence[float], b: Sequence[float]) -> float | None:
    return sum(a) / sum(b) if sum(b) else None


def _gflop(model: str | None, tokens: Sequence[int], parameters: Callable[[str], int | None]) -> float | None:
    """Return the mean GFLOP per puzzle: 0 where no model runs, None where its size is unknown."""
    if model is None:
        return 0.0
    size, mean = parameters(model), _mean(tokens)
    return None if size is None or mean is None else 2e-9 * size * mean


def _flags(
    runs: Mapping[str, Sequence[RunOutcomes]],
    outcomes: Mapping[str, Mapping[Key, PuzzleOutcome]],
    reference: str,
    budget: int | None,
    wanted: int,
) -> dict[str, list[str]]:
    """Return for every arm where it departs from equal terms; empty lists mean a fair comparison."""
    hashes = {path: digest for run in runs[reference] for path, digest in run.checkpoints.items()}
    base, base_config = outcomes[reference], runs[reference][0].config
    flags: dict[str, list[str]] = {arm: [] for arm in outcomes}
    for arm, puzzles in outcomes.items():
        found, config = flags[arm], runs[arm][0].config
        if arm != reference and {**config, "name": ""} == {**base_config, "name": ""}:
            found.append(f"the same experiment as {reference}: there is nothing to compare")
        # Where the world is set up alike, its whole state must agree; else the seed and the goal must.
        alike = config["world"] == base_config["world"] and config["agents"]["count"] == base_config["agents"]["count"]
        moved = sum(
            (puzzle.seed, puzzle.goal) != (base[key].seed, base[key].goal)
            or (alike and puzzle.puzzle != base[key].puzzle)
            for key, puzzle in puzzles.items()
            if key in base
        )
        if moved:
            found.append(f"{moved} puzzles differ from those of {reference}: the pairs are not pairs")
        if len(puzzles) < wanted:
            ends = sorted({str(run.end_reason) for run in runs[arm] if run.end_reason != "finished"})
            found.append(f"only {len(puzzles)} of {wanted} puzzles ended (run ended by {', '.join(ends) or '?'})")
        found += [] if budget is None else _budget_flags(list(puzzles.values()), budget)
        if faults := sum(run.num_faults for run in runs[arm]):
            found.append(f"{faults} faults were recorded")
        changed = {
            path
            for run in runs[arm]
            for path, digest in run.checkpoints.items()
            if hashes.setdefault(path, digest) != digest
        }
        if changed:
            found.append(f"other weights than {reference} under the same name: {', '.join(sorted(changed))}")
    return flags


def _budget_flags(puzzles: Sequence[PuzzleOutcome], budget: int) -> list[str]:
    found = []
    unsolved = [puzzle for puzzle in puzzles if not puzzle.solved]
    short = [p.tokens for p in unsolved if p.reason == "budget: tokens" and p.tokens < 0.98 * budget]
    if short:
        found.append(f"{len(short)} unsolved puzzles ended below 98 % of the budget (least {min(short):,} tokens)")
    over = [p.tokens - budget for p in puzzles if p.tokens > budget + p.largest_call]
    if over:
        found.append(f"{len(over)} puzzles overshot the budget by more than one call (most {max(over):,} tokens)")
    if late := sum(puzzle.solved and puzzle.tokens > budget for puzzle in puzzles):
        found.append(f"{late} puzzles were solved past the budget and count as unsolved")
    others = Counter(puzzle.reason for puzzle in unsolved if puzzle.reason != "budget: tokens")
    return found + [
        f"{count} unsolved puzzles ended by '{reason}', before their tokens were spent"
        for reason, count in sorted(others.items())
    ]


def _verdict(reference: str, row: ArmRow, arm: Arm, not_worse: NonInferiority | None) -> Verdict:
    full = row.differences[0]
    size = format_interval(full.interval, signed=True)
    text = f"{reference} {full.outcome} {row.arm} " + (f"({size})" if full.outcome == "ties with" else f"by {size}")
    if reference == "swarm":
        text += f": {arm.won if full.outcome == 'beats' else arm.not_won}"
        if not_worse is not None:
            word = "not worse" if not_worse.holds else "not shown to be no worse"
            text += f"; {word} than {row.arm} within a margin of {format_rate(not_worse.margin)}"
    if row.flags:
        text += " (see the flags of this arm)"
    question = arm.question if reference == "swarm" else f"Does {reference} solve more than {row.arm}?"
    return Verdict(row.arm, question, full.outcome, text)


def _setbacks(reference: str, rows: Sequence[ArmRow]) -> list[str]:
    """Return every mark of the budget at which the reference does not beat an arm."""
    names = {1.0: "the full budget", 0.5: "1/2 of the budget", 0.25: "1/4 of the budget"}
    return [
        f"{reference} {difference.outcome} {row.arm} at {names[difference.mark]}: "
        f"{format_interval(difference.interval, signed=True)}"
        for row in rows
        for difference in row.differences
        if difference.outcome != "beats"
    ]
