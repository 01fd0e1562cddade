"""A learning step and its acceptance test: nothing that was learned is taken on trust.

The test has up to three parts: the probe of what the base could do, against the base's own score and not the last one;
the distance from the base on the new task; and the reward on puzzles of the round that were kept out of learning. A
step that fails is taken once more at half the length, then rejected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch

from swarm.agents.delta import delta_path
from swarm.config.experiment import ExperimentConfig
from swarm.config.learning import LearningConfig
from swarm.errors import SwarmError
from swarm.files import make_folder, write_whole
from swarm.learn import ordinary
from swarm.learn.base import Base, agents_base, open_base
from swarm.learn.ordinary import bits_per_byte
from swarm.learn.samples import Sample, Samples
from swarm.learn.step import Learned, take_step
from swarm.learn.taught import KL_TEXTS, Taught, distance, first_score, rehearsal, score
from swarm.learn.trial import Trial, Worth
from swarm.record.records import TestEntry
from swarm.run.skills import Scores
from ulm.checkpoint import Checkpoint
from ulm.delta import Delta

FEW_TEXTS = 16
"""Texts that the distance of a pretrained model is measured on, for it is slow to read."""

TRAINED_TOKEN = 3
"""What a trained token costs, in generated ones: forward and backward."""


@dataclass(frozen=True)
class StepTask:
    """All that a learning step and its test depend on.

    Attributes:
        config: the experiment. base_dir: its folder.
        base_sha256: of the frozen weights.
        memory: folder of the run's memories, where deltas are.
        learner: whose delta changes.
        parent: sha256 of the delta before, "" for none.
        samples: what is learned. seed: of all randomness.
        deltas: whose delta is which in the round that is over.
        kept_out: episode of the round that was kept out -> its level, and the reward under these deltas.
        skills: what agents could do as the round began.
        probe: episodes so far of puzzles that are kept out -> level, for bases without lessons.
    """

    config: ExperimentConfig
    base_dir: Path
    base_sha256: str
    memory: Path
    learner: str | None
    parent: str
    samples: Samples
    seed: int
    deltas: Mapping[str | None, str] = field(default_factory=dict)
    kept_out: Mapping[int, tuple[int, float]] = field(default_factory=dict)
    skills: Scores = field(default_factory=dict)
    probe: Mapping[int, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"learning step of {self.learner or 'the team'}"

    def compute(self) -> Outcome:
        """Do it."""
        return learn(self)

    @property
    def settings(self) -> LearningConfig:
        """How it learns."""
        if self.config.learning is None:
            raise AssertionError
        return self.config.learning


@dataclass(frozen=True)
class Outcome:
    """What a step and its test came to.

    Attributes:
        result: sha256 of the new delta, "" where there is none; its file is in the folder of deltas.
        accepted: whether it holds.
        size: how long the step was.
        tests: parts of the test.
        cost: `tokens` as they are charged, and what they were made of.
        note: why it was rejected or nothing was learned; otherwise how the loss went.
    """

    result: str
    accepted: bool
    size: float
    tests: tuple[TestEntry, ...]
    cost: Mapping[str, int]
    note: str


def learn(task: StepTask) -> Outcome:
    """Take a step and test it.

    It computes on the CPU with one thread, whatever else there is: the same bits everywhere.
    """
    torch.set_num_threads(1)
    settings, base = task.settings, agents_base(task.config, task.base_dir, task.base_sha256)
    samples, parent = base.samples(task.samples), held_delta(task.memory, task.parent)
    read = 0
    if settings.rehearse:
        rehearsed, read = _rehearsed(task, base)
        samples = Samples({**samples.kinds, "rehearse": rehearsed}, samples.counts)
    return tried(
        lambda size: take_step(
            base.checkpoint, parent, samples, settings, task.seed, base_sha256=task.base_sha256, size=size
        ),
        lambda delta: tested(task, base, delta, samples),
        task.memory,
        settings.test.on,
        read,
    )


def _rehearsed(task: StepTask, base: Base) -> tuple[Sequence[Sample], int]:
    """Return what is rehearsed, and the tokens that it cost.

    Raises:
        SwarmError: the base has no lessons, and cannot be asked anything else.
    """
    if (taught := Taught.of(base.checkpoint.meta)) is not None:
        return rehearsal(base.checkpoint, taught, tuple(task.settings.test.kinds))
    if base.chat is None:
        raise SwarmError(
            "learning.rehearse: the agents' model was taught no lessons and has no chat format; leave it out"
        )
    name: str = getattr(task.config.agents.engine, "model", "")
    return ordinary.rehearsed(open_base(name, task.base_dir, task.base_sha256, ordinary.MANNER))


def tried(
    take: Callable[[float], Learned],
    test: Callable[[Delta], tuple[list[TestEntry], int]],
    memory: Path,
    is_on: bool = True,
    read: int = 0,
) -> Outcome:
    """Take a step and test it; at half the length where it fails, and no more after that.

    Args:
        take: takes a step of a length.
        test: returns the parts of its test, and the tokens that they used.
        memory: folder of memories, for the delta.
        is_on: whether what fails is rejected.
        read: tokens that were used before.
    """
    result, note, size, accepted, trained, tested = "", "", 1.0, False, 0, read
    tests: list[TestEntry] = []
    for size in (1.0, 0.5):
        learned = take(size)
        trained += learned.trained_tokens
        if learned.delta is None:
            result, tests, note, accepted = "", [], learned.note, False
            break
        result = keep_delta(memory, learned.delta)
        tests, tokens = test(learned.delta)
        tested += tokens
        failed = [part["name"] for part in tests if not part["passed"]]
        accepted = not failed or not is_on
        said = [f"loss {learned.loss[0]:.3f} to {learned.loss[1]:.3f}"] if learned.loss else []
        said += [learned.note] if learned.note else []
        note = "; ".join([*said, f"failed: {', '.join(failed)}"] if failed else said)
        if accepted:
            break
    cost = {"tokens": TRAINED_TOKEN * trained + tested, "trained_tokens": trained, "test_tokens": tested}
    return Outcome(result, accepted, size, tuple(tests), cost, note)


def held_delta(memory: Path, sha256: str) -> Delta | None:
    """Return a delta of a folder of memories, None for ""."""
    return Delta.from_bytes(delta_path(memory, sha256).read_bytes()) if sha256 else None


def keep_delta(memory: Path, delta: Delta) -> str:
    """Write a delta to the run's folder, whole and durable; return its sha256."""
    path = delta_path(memory, delta.sha256)
    make_folder(path.parent)
    write_whole(path, delta.to_bytes())
    return delta.sha256


def tested(task: StepTask, base: Base, delta: Delta, samples: Samples) -> tuple[list[TestEntry], int]:
    """Return the parts of the test of a delta that the task's learner is to have, and the tokens that they used.

    The samples are the task's, laid out as the base reads them.
    """
    settings = task.settings.test
    own = samples.kinds.get("own") or samples.kinds.get("hindsight", ())
    found, tokens = _probe(task, base.checkpoint, delta)
    kl, n = distance(base.checkpoint, delta, own, FEW_TEXTS if base.is_pretrained else KL_TEXTS)
    found.append(entry("kl", 0.0, kl, settings.kl, n, kl <= settings.kl))
    if base.is_pretrained:
        (before, n), (after, _) = bits_per_byte(base, None), bits_per_byte(base, delta)
        found.append(entry("text", before, after, settings.text, n, after <= before * (1 + settings.text)))
        tokens += 2 * n
    if task.kept_out:
        deltas = {**task.deltas, task.learner: delta.sha256}
        levels = {index: level for index, (level, _) in task.kept_out.items()}
        rewards, used = Trial(task.config, task.base_dir, task.memory, deltas).play(levels, task.skills)
        tokens += used
        found.append(not_worse("tasks", [(task.kept_out[index][1], reward) for index, reward in rewards.items()]))
    return found, tokens


def _probe(task: StepTask, checkpoint: Checkpoint, delta: Delta) -> tuple[list[TestEntry], int]:
    """Return the probe of what the base could do, if there is one, and the tokens that it used.

    Without lessons it is the base's own greedy answers to first prompts of earlier episodes: 1 says that the world
    makes as much of the new ones, each that it makes less of costs 1 / n, each that it makes more of brings that back.
    """
    settings, taught = task.settings.test, Taught.of(checkpoint.meta)
    if not settings.probe:
        return [], 0
    if taught is not None:
        asked = taught, settings.probe, tuple(settings.kinds)
        before, after = first_score(checkpoint, *asked), score(checkpoint, delta, *asked)
        part = at_most_below("probe", before.share, after.share, settings.drop, len(after.right))
        return [part], before.tokens + after.tokens
    if not task.probe:
        return [], 0
    old, read = _answers_of_base(task.config.model_dump_json(), task.base_dir, tuple(task.probe.items()), task.memory)
    trial = Trial(task.config, task.base_dir, task.memory, {task.learner: delta.sha256})
    new, written = trial.first_answers(task.probe)
    pairs = [(old[key], new[key]) for key in old if key in new and task.learner in (None, key[1])]
    n = len(pairs)
    kept = 1.0 + sum((one < other) - (other < one) for one, other in pairs) / max(1, n)
    return [at_most_below("probe", 1.0, min(1.0, kept), settings.drop, n)], read + written


@lru_cache(maxsize=2)
def _answers_of_base(
    settings: str, base_dir: Path, episodes: tuple[tuple[int, int], ...], memory: Path
) -> tuple[dict[tuple[int, str], Worth], int]:
    """Return what the world makes of the base's answers, as `Trial.first_answers` does."""
    return Trial(ExperimentConfig.model_validate_json(settings), base_dir, memory, {}).first_answers(dict(episodes))


def entry(name: str, before: float, after: float, limit: float, n: int, passed: bool) -> TestEntry:
    """Return a part of a test; figures to four places."""
    before, after, limit = round(before, 4), round(after, 4), round(limit, 4)
    return {"name": name, "before": before, "after": after, "limit": limit, "n": n, "passed": passed}


def at_most_below(name: str, before: float, after: float, limit: float, n: int) -> TestEntry:
    """Return a part that passes where a share fell by at most `limit`."""
    return entry(name, before, after, limit, n, after >= before - limit - 1e-9)


def not_worse(name: str, pairs: Sequence[tuple[float, float]]) -> TestEntry:
    """Return a part that passes unless the mean of paired rewards fell beyond its 95 % interval."""
    n = len(pairs)
    before, after = (sum(values) / n for values in zip(*pairs, strict=True))
    mean = after - before
    deviation = math.sqrt(sum((new - old - mean) ** 2 for old, new in pairs) / max(1, n - 1))
    half = 1.96 * deviation / math.sqrt(n)
    return entry(name, before, after, half, n, mean + half >= 0)
