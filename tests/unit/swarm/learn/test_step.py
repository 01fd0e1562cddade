"""A learning step is a pure function that moves a delta where its samples ask, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes.learning import write_base

from swarm.config.learning import LearningConfig
from swarm.learn.accept import at_most_below, not_worse
from swarm.learn.samples import Sample, Samples
from swarm.learn.step import Learned, as_generated, take_step
from ulm.checkpoint import Checkpoint, load_checkpoint
from ulm.delta import Delta, DeltaError
from ulm.model import IGNORE
from ulm.train.delta import DeltaModel
from ulm.train.pairs import collate

SETTINGS = LearningConfig(every=2, steps=20, batch=8, lr=0.01)
SUMS = Samples({"own": [Sample(f"tiles {n} target {n}\n", f"{n}\n") for n in range(1, 9)]})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(write_base(tmp_path_factory.mktemp("base") / "b"))


def nats(base: Checkpoint, delta: Delta, sample: Sample) -> float:
    tensors = collate([sample[:2]], base.tokenizer)
    wanted = tensors["labels"] != IGNORE
    with torch.no_grad():
        logits = DeltaModel(base.model, delta)(tensors["ids"], wanted)
    return float(torch.nn.functional.cross_entropy(logits, tensors["labels"][wanted]))


def test_the_same_arguments_give_the_same_bytes_and_leave_the_base_alone(base: Checkpoint) -> None:
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    found = [take_step(base, None, SUMS, SETTINGS, 3, base_sha256="b") for _ in range(2)]
    other = take_step(base, None, SUMS, SETTINGS, 4, base_sha256="b")
    names = [one.delta.sha256 for one in (*found, other) if one.delta]
    assert names[0] == names[1] != names[2]
    assert found[0].loss[1] < found[0].loss[0]
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.state_dict().items())


def test_weighed_attempts_become_likelier_or_less_likely_by_their_weight(base: Checkpoint) -> None:
    good, bad = Sample("tiles 1 target 1\n", "1\n", 1.0), Sample("tiles 1 target 1\n", "2\n", -1.0)
    settings = SETTINGS.model_copy(update={"method": "grpo", "steps": 4})
    learned = take_step(base, None, Samples({"own": [good, bad]}), settings, 3).delta
    assert learned is not None
    new = Delta.new(base.model, 1, 0)
    assert nats(base, learned, good) < nats(base, new, good)
    assert nats(base, learned, bad) > nats(base, new, bad)


@pytest.mark.parametrize("method", ["expert_iteration", "grpo"])
@pytest.mark.parametrize("kind", ["own", "hindsight"])
def test_what_the_world_appended_is_in_no_loss(base: Checkpoint, method: str, kind: str) -> None:
    def learned(answer: str, *spans: tuple[int, int]) -> Learned:
        told = [Sample("tiles 3 7\n", f"3*7={answer}:3*7\n", weight, 0, spans) for weight in (0.5, -0.25)]
        samples = Samples({kind: told})
        changes = {"method": method, "steps": 3, "batch": 2, "hindsight": float(kind == "hindsight")}
        return take_step(base, None, samples, SETTINGS.model_copy(update=changes), 3)

    count = len(base.tokenizer.encode("3*7=")) + len(base.tokenizer.encode(":3*7\n"))
    assert learned("21", (4, 6)).trained_tokens == 3 * 2 * count
    assert learned("21").trained_tokens > 3 * 2 * count


def test_tokens_that_were_appended_were_not_generated(base: Checkpoint) -> None:
    count = len(base.tokenizer.encode("3*7=")) + len(base.tokenizer.encode(":3*7\n"))
    own = [Sample("p\n", "3*7=21:3*7\n", 0.5, count, ((4, 6),))]
    assert as_generated(base, Samples({"own": own}), SETTINGS.model_copy(update={"method": "grpo"}))[1] == 0


def test_attempts_that_encode_otherwise_than_they_were_generated_are_left_out(base: Checkpoint) -> None:
    tokens = len(base.tokenizer.encode("1\n"))
    own = [Sample("p\n", "1\n", 0.5, tokens), Sample("p\n", "2\n", -0.5, tokens + 3), Sample("q\n", "1\n", 0.1, 0)]
    kept, dropped = as_generated(base, Samples({"own": own}), SETTINGS.model_copy(update={"method": "grpo"}))
    assert (kept.kinds["own"], dropped) == ([own[0], own[2]], 1)


def test_a_step_goes_on_from_its_parent_and_gains_rows(base: Checkpoint) -> None:
    first = take_step(base, None, SUMS, SETTINGS, 3, base_sha256="b").delta
    assert first is not None
    more = Samples({"own": [Sample("9 + 9\n", "9\n")]})
    second = take_step(base, first, more, SETTINGS, 4, base_sha256="b").delta
    assert second is not None
    assert set(first.ids_E.tolist()) < set(second.ids_E.tolist())
    sample = SUMS.kinds["own"][0]
    assert nats(base, second, sample) < nats(base, Delta.new(base.model, 1, 0), sample)
    anew = SETTINGS.model_copy(update={"begin": "base"})
    from_base = [take_step(base, parent, more, anew, 4, base_sha256="b").delta for parent in (first, None)]
    assert from_base[0] is not None
    assert from_base[0].sha256 == from_base[1].sha256  # type: ignore[union-attr]


def test_a_loss_that_is_not_finite_gives_nothing(base: Checkpoint) -> None:
    broken = take_step(base, None, SUMS, SETTINGS.model_copy(update={"lr": 1e30}), 3)
    assert broken.delta is None
    assert broken.note.startswith("rejected: loss")


def test_a_delta_of_another_base_is_refused(base: Checkpoint) -> None:
    parent = Delta.new(base.model, 2, 0, base="somebody else's")
    with pytest.raises(DeltaError, match="other weights"):
        take_step(base, parent, SUMS, SETTINGS, 3, base_sha256="ours")


def test_nothing_to_learn_from_is_said(base: Checkpoint) -> None:
    assert take_step(base, None, Samples({"own": []}), SETTINGS, 3).note.startswith("nothing to learn from")


def test_half_a_step_is_shorter(base: Checkpoint) -> None:
    settings = SETTINGS.model_copy(update={"steps": 1})
    norms = [take_step(base, None, SUMS, settings, 3, size=size).delta for size in (1.0, 0.5)]
    assert norms[0] is not None
    assert norms[1] is not None
    moved = [torch.cat([b.flatten() for _, b in one.factors.values()]).norm() for one in norms if one]
    assert moved[1] < 0.6 * moved[0]


def test_a_share_may_fall_by_its_limit_and_rewards_within_their_interval() -> None:
    assert at_most_below("probe", 0.9, 0.88, 0.02, 200)["passed"]
    assert not at_most_below("probe", 0.9, 0.87, 0.02, 200)["passed"]
    worse = [(1.0, 0.0)] * 20 + [(0.0, 0.0)] * 20
    assert not not_worse("tasks", worse)["passed"]
    assert not_worse("tasks", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])["passed"]


def test_samples_know_what_they_are_made_of() -> None:
    other = replace(SUMS, kinds={"own": SUMS.kinds["own"][:-1]})
    assert SUMS.digest == Samples(dict(SUMS.kinds)).digest != other.digest


def test_the_base_is_read_from_disk_once(tmp_path: Path) -> None:
    from swarm.learn.base import Manner, open_base

    folder = write_base(tmp_path / "b")
    assert open_base(str(folder), tmp_path, "x", Manner()) is open_base(str(folder), tmp_path, "x", Manner())


def test_only_the_last_layers_change_where_so_many_are_wanted(base: Checkpoint) -> None:
    last = base.model.config.n_layer - 1
    settings = LearningConfig.model_validate({**SETTINGS.model_dump(), "delta": {"layers": 1, "rows": 0, "rank": 4}})
    learned = take_step(base, None, SUMS, settings, 3)
    assert learned.delta is not None
    assert {name.split(".")[1] for name in learned.delta.factors} == {str(last)}
    assert learned.loss[1] < learned.loss[0]
    ids = torch.tensor([base.tokenizer.encode("tiles 1 target 1")])
    with torch.no_grad():
        before, after = base.model, learned.delta.applied(base.model)
        assert torch.equal(before.hidden(ids, last), after.hidden(ids, last))
        assert not torch.equal(before.hidden(ids), after.hidden(ids))
        assert torch.equal(before.logits(before.hidden(ids)), before(ids))
