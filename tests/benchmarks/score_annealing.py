"""A run on the shipped scorer of score-v0 beside plain annealing, at equal evaluations and at equal seconds.

    python tests/benchmarks/score_annealing.py RUN [SEEDS]        a run folder
    python tests/benchmarks/score_annealing.py EVALUATIONS:SECONDS [SEEDS]

Seconds are those that the run took, learning included; annealing has one process, however many the run had.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from worlds.score import golomb
from worlds.score.annealing import Annealed, anneal


def _of_run(run_dir: Path) -> tuple[int, float, float]:
    """Return evaluations, seconds and best score of a run."""
    from swarm.record.journal import read_records
    from swarm.record.outcomes import read_run

    entries = (e for r in read_records(run_dir / "journal.jsonl") if r["kind"] == "tick" for e in r["agents"])
    rewards = [entry["reward"] for entry in entries]
    return len(rewards), read_run(run_dir).telemetry.wall_s, max(rewards)


def _anneal(seeds: int, evaluations: int | None = None, seconds: float | None = None) -> list[Annealed]:
    return [anneal(golomb.score, golomb.sample, golomb.change, seed, evaluations, seconds) for seed in range(seeds)]


def main(what: str, seeds: int = 3) -> None:
    if Path(what).is_dir():
        evaluations, seconds, best = _of_run(Path(what))
        print(
            f"{'run':<24} best {best:.4f} (length {golomb.OPTIMUM / best:.1f})  {evaluations:,} texts  {seconds:.1f} s"
        )
    else:
        evaluations, seconds = int(what.partition(":")[0]), float(what.partition(":")[2])
    rulers = max(golomb.score(golomb.sample(seed)) for seed in range(evaluations))
    print(f"{'random rulers':<24} best {rulers:.4f} (length {golomb.OPTIMUM / rulers:.1f})  {evaluations:,} texts")
    for name, found in (
        ("annealing, evaluations", _anneal(seeds, evaluations=evaluations)),
        ("annealing, seconds", _anneal(seeds, seconds=seconds)),
    ):
        scores = [one.score for one in found]
        lengths = ", ".join(f"{golomb.OPTIMUM / score:.0f}" for score in scores)
        print(
            f"{name:<24} best {max(scores):.4f}, median {median(scores):.4f} (lengths {lengths})  "
            f"{found[0].evaluations:,} texts  {found[0].wall_s:.1f} s"
        )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
