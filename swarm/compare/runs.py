"""Runs every arm of a comparison over the same puzzles and seeds, then writes the result.

Owns the order of the runs, each in its own folder, what is reused or resumed, and progress lines. A
comparison that was killed continues when the same command is given again: finished runs are kept, an
interrupted one is resumed. It refuses to know how a run works (`swarm.run.runner`), how results are computed
(`swarm.compare.analysis`) and how they are written (`swarm.compare.report`).
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from swarm.compare.analysis import Comparison, analyse
from swarm.compare.arms import BUILT_IN, arms_of, chosen_arms, equal_terms, not_applicable
from swarm.compare.learned import MORE_ATTEMPTS, exam_of, exam_outcomes, with_exam_tokens
from swarm.compare.report import provenance, table_text, write_comparison
from swarm.config.experiment import CompareConfig, ExperimentConfig
from swarm.config.section import logical_settings
from swarm.config.shipped import find_file
from swarm.errors import SwarmError, WorkFailedError
from swarm.identity import refuse_other, work_folder
from swarm.process.progress import Work, duration, progress
from swarm.record.journal import JOURNAL_NAME, JournalReader, read_header
from swarm.record.outcomes import RunOutcomes, read_run


def compare_arms(
    config: ExperimentConfig,
    source: Path,
    out: Path | None = None,
    arms: Sequence[str] = (),
    seeds: Sequence[int] = (),
    echo: Callable[[str], None] = print,
) -> Comparison:
    """Run what is missing of a comparison, write table, plots and report, and return the result.

    Args:
        config: the base experiment; `compare` in it gives puzzles per seed.
        source: the file it came from, the base of relative paths, or the name of a shipped one.
        out: folder of the comparison, one run folder per arm and seed in it; None means runs/<name>-compare.
        arms: names of arms; none means those of the experiment, or all.
        seeds: run seeds; none means those of the experiment.
        echo: receives progress lines and, at the end, the table.

    Raises:
        SwarmError: an unknown arm, no token budget, or a folder that holds other runs.
        WorkFailedError: a run failed.
        Outage: models could not be asked any more; the same call goes on.
    """
    out, source = out or Path("runs") / f"{config.name}-compare", find_file(source)
    plan = config.compare or CompareConfig()
    seeds = list(dict.fromkeys(seeds or plan.seeds))
    known = arms_of(config)
    names = chosen_arms(arms or plan.arms, known)
    skipped = {arm: reason for arm in names if (reason := not_applicable(arm, config)) is not None}
    names = [arm for arm in names if arm not in skipped]
    if not names:
        raise SwarmError(f"no arm is left to run: {'; '.join(f'{arm} is {why}' for arm, why in skipped.items())}")
    planned = [(arm, seed, equal_terms(config, arm, seed, plan.episodes)) for arm in names for seed in seeds]
    learns = config.learning is not None
    episodes = exam_of(config).episodes if learns else plan.episodes
    if learns and MORE_ATTEMPTS in names and "swarm" not in names:
        raise SwarmError(f"{MORE_ATTEMPTS} spends what the arm swarm has spent; run both")
    for arm, reason in skipped.items():
        echo(f"{arm}: {reason}")
    _check_rivals([arm_config for arm, seed, arm_config in planned if arm not in BUILT_IN and seed == seeds[0]], source)
    runs: dict[str, list[RunOutcomes]] = {arm: [] for arm in names}
    began_s, num_kept = time.monotonic(), 0
    with work_folder(out, "compare"):
        total = sum(arm_config.all_episodes for _, _, arm_config in planned)
        with progress(f"comparing {config.name}", total, "puzzles", say=None) as whole:
            before = 0
            for number, (arm, seed, arm_config) in enumerate(planned, start=1):
                label = f"[{number}/{len(planned)}] {arm} seed {seed}"
                run_began_s = time.monotonic()
                if arm == MORE_ATTEMPTS and learns:
                    arm_config = with_exam_tokens(arm_config, runs["swarm"][seeds.index(seed)])
                run, reused = _finished_run(arm_config, source, out / f"{arm}-s{seed}", label, echo, whole)
                runs[arm].append(run)
                before += arm_config.all_episodes
                took = " (kept from before)"
                if reused:
                    num_kept += 1
                    whole.skip(arm_config.all_episodes)
                else:
                    whole.update(before)
                    left_s = whole.left_s()
                    eta = f"; about {duration(left_s)} left" if left_s else ""
                    took = f" in {duration(time.monotonic() - run_began_s)}{eta}"
                shown = exam_outcomes(run).puzzles if learns else run.puzzles
                echo(f"{label}: solved {sum(puzzle.solved for puzzle in shown)} of {len(shown)}{took}")
        from swarm.agents.models import num_parameters

        if learns:
            runs = {arm: [exam_outcomes(run) for run in arm_runs] for arm, arm_runs in runs.items()}
        spent = [puzzle.tokens for arm_runs in runs.values() for run in arm_runs for puzzle in run.puzzles]
        with progress("analysing the runs"):
            comparison = analyse(
                config.name,
                runs,
                budget=max(spent, default=0) if learns else config.budget.tokens or 0,
                seeds=seeds,
                episodes=episodes,
                skipped=skipped,
                parameters=lambda model: num_parameters(model, source.resolve().parent),
                arms=known,
            )
            write_comparison(out, comparison, runs, provenance())
    echo("")
    echo(table_text(comparison))
    puzzles = [puzzle for arm_runs in runs.values() for run in arm_runs for puzzle in run.puzzles]
    kept = f", {num_kept} of them from before" if num_kept else ""
    echo(
        f"\n{len(planned)} runs{kept}: {len(puzzles):,} puzzles, {sum(puzzle.tokens for puzzle in puzzles):,} tokens, "
        f"in {duration(time.monotonic() - began_s)}"
    )
    if broken := [run for arm_runs in runs.values() for run in arm_runs if run.failure is not None]:
        raise WorkFailedError(
            f"{broken[0].failure} in {', '.join(str(run.run_dir) for run in broken)} (most often "
            f"{broken[0].tally.worst}): the table holds what there is; find the reason with `swarm replay`, delete "
            f"what is broken, and give the same command to run it again"
        )
    return comparison


def _check_rivals(configs: Sequence[ExperimentConfig], source: Path) -> None:
    """Find what is wrong with rivals' models now: they run last, and a comparison may take hours."""
    from swarm.run.runner import check_files

    for config in configs:
        try:
            check_files(config, source)
        except SwarmError as error:
            raise SwarmError(f"compare.rivals ({config.name}): {error}") from error


def _finished_run(
    config: ExperimentConfig, source: Path, run_dir: Path, label: str, echo: Callable[[str], None], whole: Work
) -> tuple[RunOutcomes, bool]:
    """Return the outcomes of a finished run, which is part of a whole, and whether nothing had to be run for them."""
    from swarm.run.runner import start_run

    journal = run_dir / JOURNAL_NAME
    before = _read_own(config, run_dir) if journal.is_file() and read_header(journal) is not None else None
    if before is not None and before.end_reason is not None:
        _check_weights(before, source)
        return before, True
    done = 0 if before is None else len(before.puzzles)
    if journal.exists():
        echo(f"{label}: resuming after {done} of {config.all_episodes} puzzles")
    whole.skip(done)
    ended = partial(_ended, JournalReader(journal, verify=False), [0], whole, whole.done - done)
    with progress(label, config.all_episodes, "puzzles", done=done, poll=ended, say=echo) as work:
        outcome = start_run(config, source, run_dir, lambda run_dir: work.restart(done))
    run = _read_own(config, run_dir)
    if run.end_reason is None:
        raise SwarmError(f"{label} stopped before its end ({outcome.reason}); give the same command to continue")
    return run, False


def _read_own(config: ExperimentConfig, run_dir: Path) -> RunOutcomes:
    """Return what is in `run_dir`.

    Raises:
        SwarmError: the folder holds a run of another experiment.
    """
    run = read_run(run_dir)
    refuse_other(run_dir, run.config, logical_settings(config))
    return run


def _check_weights(run: RunOutcomes, source: Path) -> None:
    """Refuse a finished run whose checkpoint is here by now with other weights; a missing one cannot contradict it."""
    from swarm.agents.models import current_hash

    for path, digest in run.checkpoints.items():
        current = current_hash(path, source.resolve().parent)
        if current is not None and current != digest:
            raise SwarmError(
                f"{run.run_dir} was made with other weights than {path} holds now: "
                "choose another folder with --out, or delete it"
            )


def _ended(reader: JournalReader, count: list[int], whole: Work, before: float) -> int:
    """Return how many puzzles have ended in a journal that is being written, and tell the whole of them.

    Args:
        reader: of the journal.
        count: holds the number so far.
        whole: the comparison.
        before: puzzles of it that other runs have played.
    """
    count[0] += sum(record["kind"] == "episode_end" for record in reader.poll())
    whole.done = max(whole.done, before + count[0])
    return count[0]
