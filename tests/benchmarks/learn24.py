"""A goal that nobody taught: experiments/learn24.yaml fold by fold, its null controls, and what was forgotten.

    python tests/benchmarks/learn24.py --out runs/24 --runs 0 1 2 3 4 0/2 0/3 0/permuted 0/wins

A run is a fold, a fold and another seed, or a fold and a control. Resumes by the same command. For each run: the share
of held-out puzzles that were solved within the budget of the exam, at the first attempt of the exam, and by the greedy
answer of the first agent; beside it random legal expressions, as many. Then the probe of what the base could do, and
the seconds that it all took, where it was not interrupted.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from swarm.agents.delta import KIND
from swarm.agents.ltm_files import MEMORY_FOLDER
from swarm.config.load import load_experiment
from swarm.learn.accept import held_delta
from swarm.learn.base import Manner, hash_of, open_base
from swarm.learn.taught import Taught, answers
from swarm.prompt import agent_prompt
from swarm.record.journal import JOURNAL_NAME, read_records
from swarm.run.experience import experience
from swarm.run.runner import start_run
from swarm.stats import format_interval, rate_interval
from worlds.numbers.arithmetic import ExpressionError, parse
from worlds.numbers.puzzles import Puzzle, is_held_out, read_puzzles
from worlds.numbers.solver import random_expression
from worlds.seeds import DerivedRandom

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "learn24.yaml"
POLICY = EXPERIMENT.parent / "policies" / "puzzle-agent"
FOLDS = 5
CONTROLS = {
    "": [],
    "permuted": ["learning.control=permuted"],
    "wins": ["learning.hindsight=0"],
    "untested": ["learning.test.on=false"],
    "frozen": ["learning.steps=0", "learning.explore=null"],
}
"""Name -> settings: goals permuted among attempts; only what was right; no acceptance test; nothing learned."""


class Run(NamedTuple):
    """What is run: a fold, a seed and a control, written `0`, `0/2` or `0/permuted`."""

    fold: int
    seed: int
    control: str

    @classmethod
    def of(cls, text: str) -> "Run":
        """Read one."""
        fold, _, more = text.partition("/")
        return cls(int(fold), int(more) if more.isdigit() else 1, "" if more.isdigit() else more)

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"fold{self.fold}-s{self.seed}" + (f"-{self.control}" if self.control else "")

    @property
    def puzzles(self) -> list[Puzzle]:
        """The puzzles that it holds out."""
        file = EXPERIMENT.parent / "puzzles" / "game24.csv"
        every = read_puzzles(file, "numbers", "target", None)
        return [puzzle for puzzle in every if is_held_out(puzzle.tiles, puzzle.target, (self.fold, FOLDS))]


def measured(run: Run, out: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Play a run to its end and return its figures, by puzzle."""
    puzzles = run.puzzles
    changes = [f"world.options.fold=[{run.fold},{FOLDS}]", f"learning.exam.episodes={len(puzzles)}", f"seed={run.seed}"]
    config = load_experiment(EXPERIMENT, [*overrides, *CONTROLS[run.control], *changes])
    assert config.learning
    assert config.learning.exam
    attempts = config.learning.exam.budget["actions"] or 0
    began_s = time.monotonic()
    outcome = start_run(config, EXPERIMENT, out / run.name)
    took_s = time.monotonic() - began_s
    solved, first = [False] * len(puzzles), [False] * len(puzzles)
    places = {puzzle.text(): place for place, puzzle in enumerate(puzzles)}
    for call in experience(outcome.run_dir):
        if call.key[0] >= config.episodes and call.role == "agent":
            place = places[call.observation]
            solved[place] |= call.reward > 0
            first[place] |= call.reward > 0 and call.key[1] == 0
    steps = [r for r in read_records(outcome.run_dir / JOURNAL_NAME) if r["kind"] == "change" and r["memory"] == KIND]
    last = next((step["result"] for step in reversed(steps) if step["accepted"]), "")
    return {
        "run": run.name,
        "n": len(puzzles),
        "solved": solved,
        "first": first,
        "greedy": greedy(puzzles, outcome.run_dir / MEMORY_FOLDER, last),
        "random": by_chance(puzzles, attempts, run.seed),
        "steps": [[step["accepted"], step["note"], step["tests"], dict(step["cost"])] for step in steps],
        "tokens": outcome.tokens,
        "seconds": round(took_s) if outcome.played else None,
    }


def greedy(puzzles: Sequence[Puzzle], memory: Path, delta: str) -> list[bool]:
    """Return which puzzles the most likely answer solves."""
    base = open_base(str(POLICY), Path(), hash_of(str(POLICY), Path()), Manner())
    taught, prompts = Taught.of(base.checkpoint.meta), [agent_prompt(puzzle.text()) for puzzle in puzzles]
    assert taught
    said, _ = answers(base.checkpoint, held_delta(memory, delta), prompts, taught)
    return [_hits(puzzle, text) for puzzle, text in zip(puzzles, said, strict=True)]


def _hits(puzzle: Puzzle, text: str) -> bool:
    try:
        found = parse(text)
        return sorted(found.literals) == list(puzzle.tiles) and found.value() == puzzle.target
    except ExpressionError:
        return False


def by_chance(puzzles: Sequence[Puzzle], attempts: int, seed: int) -> list[bool]:
    """Return which puzzles random legal expressions solve, as many as an agent may try."""
    found = []
    for place, puzzle in enumerate(puzzles):
        rng = DerivedRandom(seed, "chance", place)
        found.append(any(_hits(puzzle, random_expression(puzzle.tiles, rng)) for _ in range(attempts)))
    return found


def shown(name: str, values: Sequence[bool]) -> str:
    """Return a rate with its interval."""
    found = rate_interval(values)
    return f"{name} {format_interval(found)}"


def main() -> None:
    """Measure all runs, or go on with them, and print them one by one, then the folds together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=[str(fold) for fold in range(FOLDS)])
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    asked = parser.parse_args()
    together: dict[str, list[bool]] = {"solved": [], "first": [], "greedy": [], "random": []}
    for run in map(Run.of, asked.runs):
        kept = asked.out / f"{run.name}.json"
        if not kept.is_file():
            found = measured(run, asked.out, asked.overrides)
            kept.write_text(json.dumps(found), encoding="utf-8")
        found = json.loads(kept.read_text(encoding="utf-8"))
        print(f"{run.name}: n = {found['n']}, {found['seconds']} s, {found['tokens']:,} tokens")
        print("  " + "  ".join(shown(name, found[name]) for name in together))
        for accepted, note, tests, cost in found["steps"]:
            parts = "  ".join(f"{part['name']} {part['before']} -> {part['after']}" for part in tests)
            print(f"  {'accepted' if accepted else 'rejected'}: {note}; {parts}; {cost['tokens']:,} tokens", flush=True)
        if run.seed == 1 and not run.control:
            for name, values in together.items():
                values += found[name]
    if together["solved"]:
        print(f"folds together: n = {len(together['solved'])}")
        print("  " + "  ".join(shown(name, values) for name, values in together.items()))


if __name__ == "__main__":
    main()
