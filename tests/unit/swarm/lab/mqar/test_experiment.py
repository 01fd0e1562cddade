"""MQAR: what is asked can be known from the sequence alone, and a model is scored on just that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.training import alone

import swarm.lab.mqar.experiment
from swarm.config.training import OptimizerSection
from swarm.errors import SwarmError
from swarm.lab.mqar.config import MqarConfig
from swarm.lab.mqar.experiment import run_mqar, summary
from swarm.train.loop import run_training
from ulm.config import LTMConfig, ModelConfig
from ulm.model import IGNORE, Decoder
from ulm.streaming import read_document
from ulm.train.mqar import MqarBatch, MqarObjective, MqarTask, score_mqar
from ulm.train.step import make_optimizer, train_step

pytestmark = pytest.mark.thorough

TASKS = [
    MqarTask(vocab_size=64, length=40, pairs=6),
    MqarTask(vocab_size=64, length=60, pairs=6, reassigned=4),
    MqarTask(vocab_size=64, length=49, pairs=6, reassigned=6, power=1.0),
    MqarTask(vocab_size=64, length=80, pairs=6, noise=True),
]
LTM: dict[str, Any] = {"layers": [0], "n_head": 1, "head_size": 16, "segment": 8, "threshold_bits": 0.5}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def told(task: MqarTask, ids: np.ndarray) -> dict[int, tuple[int, int]]:
    """Key -> (value, position) as the part before the queries has it; the last one counts."""
    found = {}
    for place in range(1, 1 + 2 * (task.pairs + task.reassigned), 2):
        found[int(ids[place])] = (int(ids[place + 1]), place)
    return found


@pytest.mark.parametrize("task", TASKS)
def test_every_key_is_asked_once_and_its_last_value_follows(task: MqarTask) -> None:
    batch = task.batch(generator(), 32)
    assert batch.ids_BT.shape == (32, task.length)
    for ids, asked, lag in zip(batch.ids_BT, batch.asked_BQ, batch.lag_BQ, strict=True):
        pairs = told(task, ids)
        assert len(pairs) == task.pairs
        assert sorted(ids[asked].tolist()) == sorted(pairs)
        assert (asked > max(place for _, place in pairs.values())).all()
        for place, far in zip(asked, lag, strict=True):
            assert (int(ids[place + 1]), int(place - far)) == pairs[int(ids[place])]


@pytest.mark.parametrize("task", TASKS)
def test_a_key_that_is_told_again_has_another_value(task: MqarTask) -> None:
    for ids in task.batch(generator(1), 32).ids_BT:
        first = {int(ids[place]): int(ids[place + 1]) for place in range(1, 1 + 2 * task.pairs, 2)}
        changed = [key for key, (value, _) in told(task, ids).items() if first[key] != value]
        assert len(changed) == task.reassigned


def test_filler_is_quiet_or_noise() -> None:
    for noise in (False, True):
        task = MqarTask(vocab_size=64, length=200, pairs=3, noise=noise)
        batch = task.batch(generator(), 8)
        free = np.ones(batch.ids_BT.shape, dtype=bool)
        free[:, :7] = False
        np.put_along_axis(free, batch.asked_BQ, False, 1)
        np.put_along_axis(free, batch.asked_BQ + 1, False, 1)
        assert len(set(batch.ids_BT[free].tolist())) == (62 if noise else 1)


def test_queries_stand_near_the_pairs_unless_they_are_spread() -> None:
    near, even = (MqarTask(512, 400, 4, power=power).batch(generator(), 200).asked_BQ.mean() for power in (0.01, 1.0))
    assert even == pytest.approx((9 + 400) / 2, abs=8)
    assert near < even - 50


def test_sequences_are_those_of_their_seed() -> None:
    one, same, other = (TASKS[1].batch(generator(seed), 4).ids_BT for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"pairs": 0}, "1 pair or more"),
        ({"pairs": 4, "reassigned": 5}, "5 of 4 pairs reassigned"),
        ({"vocab_size": 64, "pairs": 31}, "a vocab_size of 66"),
        ({"power": 0.0}, "power must be above 0 and at most 1"),
        ({"length": 100, "pairs": 32}, "a length of 1"),
    ],
)
def test_a_task_that_cannot_be_drawn_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        MqarTask(**fields)


def test_the_length_that_is_named_is_enough_and_the_least() -> None:
    with pytest.raises(ValueError, match="need a length of 129"):
        MqarTask(length=100, pairs=32)
    assert MqarTask(length=129, pairs=32).batch(generator(), 2).ids_BT.shape == (2, 129)
    with pytest.raises(ValueError, match="length"):
        MqarTask(length=128, pairs=32)


def model(ltm: bool = True) -> Decoder:
    shape = ModelConfig(64, 1, 1, 1, 32, 64, window=16, ltm=LTMConfig.from_dict(LTM) if ltm else None)
    return Decoder(shape, seed=1)


def test_labels_are_the_next_tokens_and_the_values_asked_for_are_marked() -> None:
    batch = MqarBatch(np.array([[1, 5, 40, 0, 5, 40]]), np.array([[4]]), np.array([[3]]))
    ids_BT, labels_BT, at_BQ = batch.tensors()
    assert labels_BT.tolist() == [[5, 40, 0, 5, 40, IGNORE]]
    assert ids_BT.gather(1, at_BQ).tolist() == [[5]]
    assert labels_BT.gather(1, at_BQ).tolist() == [[40]]


def test_scores_are_those_of_plain_reading() -> None:
    task = TASKS[1]
    scored, lags = score_mqar(model().eval(), task, 5, seed=3, batch_rows=2)
    assert scored.recalled.shape == lags.shape == scored.hit.shape == (5, task.pairs)
    draws = generator_of_scores(3)
    for start, rows in ((0, 2), (2, 2), (4, 1)):
        batch = task.batch(draws, rows)
        ids_BT = torch.from_numpy(batch.ids_BT)
        guessed = read_document(model().eval(), ids_BT[:, :-1]).all_logits().argmax(-1)
        at = torch.from_numpy(batch.asked_BQ)
        right = guessed.gather(1, at) == ids_BT.gather(1, at + 1)
        assert scored.recalled[start : start + rows].tolist() == right.tolist()
        assert lags[start : start + rows].tolist() == batch.lag_BQ.tolist()


def generator_of_scores(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, 1]))


def test_training_is_deterministic_and_learns_what_follows() -> None:
    task = MqarTask(vocab_size=16, length=24, pairs=2)
    asked = []
    for _ in range(2):
        built, records = model(), []
        objective = MqarObjective(
            built, make_optimizer(built, 0.01, 0.0, (0.9, 0.98)), alone(records), task, batch_size=16, seed=5
        )
        run_training(objective, OptimizerSection(steps=30, lr=0.01, warmup=2), log_every=1)
        asked.append([record["asked"] for record in records])
    assert asked[0] == asked[1]
    assert asked[0][-1] < asked[0][0] - 0.5


# ---- the command's runs


def config(**changes: Any) -> MqarConfig:
    return MqarConfig.model_validate(
        {
            "name": "test",
            "seeds": [1, 2],
            "tasks": {"plain": {"vocab_size": 64, "length": 64, "pairs": 4, "power": 1.0}},
            "model": {"n_layer": 1, "n_head": 1, "d_model": 32, "d_ff": 64, "window": 16, "ltm": LTM},
            "optimizer": {"steps": 2, "batch_size": 2, "warmup": 1},
            "eval": {"sequences": 3},
            **changes,
        }
    )


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run tasks here, and note their titles."""
    ran: list[str] = []

    def run_tasks(work: Any, calls: Any, done: Any, *, titles: Any, device: str) -> None:
        for index, call in enumerate(calls):
            ran.append(titles[index].removeprefix("training and scoring "))
            done(index, json.loads(json.dumps(work(*call, "cpu"))))

    monkeypatch.setattr("swarm.lab.measurements.run_tasks", run_tasks)
    return ran


def test_every_task_arm_and_seed_is_run_once(in_this_process: list[str], tmp_path: Path) -> None:
    lines: list[str] = []
    results = run_mqar(config(), tmp_path, lines.append)
    assert in_this_process == [f"plain, {arm}, seed {seed}" for arm in ("baseline", "with_ltm") for seed in (1, 2)]
    assert json.loads((tmp_path / "results.json").read_text()) == results
    plain = results["tasks"]["plain"]
    assert plain["chance"] == 1 / 4
    sizes = [arm["parameters"] for arm in plain["arms"].values()]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)
    assert set(plain["arms"]["baseline"]["conditions"]) == {"none"}
    assert set(plain["arms"]["with_ltm"]["conditions"]) == {
        "none", "shuffled_values", "random_writes", "capacity_1", "no_reads",
    }  # fmt: skip
    assert plain["arms"]["with_ltm"]["queries"] == 2 * 3 * 4
    in_this_process.clear()
    assert run_mqar(config(), tmp_path, lines.append) == results
    assert in_this_process == []
    (tmp_path / "plain-with_ltm-s2.json").write_text("torn")
    run_mqar(config(), tmp_path, lines.append)
    assert in_this_process == ["plain, with_ltm, seed 2"]
    text = "\n".join(summary(results))
    assert "no_reads" in text
    assert "beyond the window" in text


def test_other_settings_are_refused_and_results_kept(in_this_process: list[str], tmp_path: Path) -> None:
    run_mqar(config(seeds=[1]), tmp_path, lambda line: None)
    before = (tmp_path / "results.json").read_bytes()
    in_this_process.clear()
    with pytest.raises(SwarmError, match=r"other settings \(optimizer.steps is 2 there and 3 here\); choose another"):
        run_mqar(config(seeds=[1], optimizer={"steps": 3, "batch_size": 2, "warmup": 1}), tmp_path, lambda line: None)
    assert in_this_process == []
    assert (tmp_path / "results.json").read_bytes() == before


def test_the_folder_of_a_lab_is_refused(in_this_process: list[str], tmp_path: Path) -> None:
    for name in ("lab.json", "results.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(SwarmError, match="holds something else"):
        run_mqar(config(), tmp_path, lambda line: None)
    assert in_this_process == []


def test_recall_is_split_at_the_window() -> None:
    recalled = np.array([[[1, 1, 0, 0], [1, 1, 1, 0]]])
    far = np.array([[[False, False, True, True], [False, True, True, True]]])
    reach = np.array([[[False, False, False, True], [False, False, False, False]]])
    found = swarm.lab.mqar.experiment._recall(recalled, far, reach)
    assert found["recall"]["estimate"] == 5 / 8
    assert found["beyond_window"]["estimate"] == 2 / 5
    assert found["beyond_reach"]["estimate"] == 0
    assert found["recall_by_seed"] == [5 / 8]
    assert swarm.lab.mqar.experiment._recall(recalled, np.zeros_like(far), reach)["beyond_window"] is None


def test_a_run_that_failed_is_an_error_after_the_others_are_done(
    in_this_process: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = train_step

    def fail(objective: MqarObjective, *arguments: Any) -> Any:
        if objective.model.ltm is None:
            raise FloatingPointError("loss is nan")
        return real(objective, *arguments)

    monkeypatch.setattr("swarm.train.loop.train_step", fail)
    with pytest.raises(SwarmError) as error:
        run_mqar(config(), tmp_path, lambda line: None)
    assert str(error.value).splitlines() == [
        f"plain, baseline, seed {seed}: training diverged at step 0 (loss is nan); set a lower lr" for seed in (1, 2)
    ]
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["plain-with_ltm-s1.json", "plain-with_ltm-s2.json"]


def test_other_controls_do_not_train_the_baseline_again(in_this_process: list[str], tmp_path: Path) -> None:
    run_mqar(config(seeds=[1]), tmp_path, lambda line: None)
    in_this_process.clear()
    run_mqar(config(seeds=[1], eval={"sequences": 3, "controls": ["no_reads"]}), tmp_path, lambda line: None)
    assert in_this_process == ["plain, with_ltm, seed 1"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"tasks": {"a b": {}}}, "letters, digits"),
        ({"tasks": {"a": {"pairs": 500}}}, "need a length of"),
        ({"model": {"ltm": {"capacity": 3}}}, "layers must be a list"),
        ({"model": {"ltm": {"layers": [0], "gamma": "x"}}}, "gamma must be a number, got 'x'"),
        ({"model": {"ltm": {"layers": [0], "threshold_bits": float("nan")}}}, "threshold_bits must be a number"),
        ({"model": {"ltm": {"layers": [0.5]}}}, "rising block numbers"),
        ({"model": {"ltm": {"layers": [0], "write_budget": 1.5}}}, "write_budget must be a whole number"),
        ({"model": {"n_layer": 1, "ltm": {"layers": [1]}}}, "layer 1 of a model of 1 layers"),
    ],
)
def test_a_file_that_cannot_be_run_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config(**changes)
