"""Training through real Ray Train: interrupted or not, on one worker or two, it ends with the same policy."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakes.ray_workers import workers
from safetensors.torch import load_file

from swarm.errors import SwarmError
from swarm.train import policy as training
from swarm.train.policy import TrainConfig, train
from ulm.checkpoint import load_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEPS, SAVE_EVERY = 12, 5


def recipe(**changes: Any) -> TrainConfig:
    return TrainConfig(
        **{
            "name": "tiny",
            "world": "split-numbers-v0",
            "task": "puzzle-agent",
            "preset": "tiny",
            "vocab_size": 300,
            "steps": STEPS,
            "batch_size": 8,
            "micro_batches": 2,
            "warmup": 4,
            "save_every": SAVE_EVERY,
            "log_every": 1,
            "threads": 1,
            "device": "cpu",
            "score_examples": 4,
            "out": "unused",
            **changes,
        }
    )


pytestmark = pytest.mark.usefixtures("one_ray")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that nothing disturbed; its checkpoint is in `policy`."""
    root = tmp_path_factory.mktemp("whole")
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        # The real corpus takes a minute; the tokenizer is not what is tested here.
        patch.setattr("worlds.split_numbers.lessons.CORPUS", 20)
        train(recipe(), root / "work", root / "policy", lines.append)
    (root / "echo.txt").write_text("\n".join(lines))
    return root


def begin_like(whole: Path, work: Path) -> Path:
    """Lay out a folder as it is after recipe and tokenizer were written and before the first step."""
    work.mkdir()
    for name in ("recipe.json", "tokenizer.json"):
        shutil.copy(whole / "work" / name, work / name)
    return work


def state(work: Path) -> dict[str, torch.Tensor]:
    return load_file(str(work / "state" / "state.safetensors"))


def step_of(work: Path) -> int:
    try:
        return int(json.loads((work / "state" / "progress.json").read_text())["progress"]["step"])
    except (OSError, ValueError):
        return 0


def losses(work: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


def interrupt(config: TrainConfig, work: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Run the workers' loop in this process and stop it in the middle of a step."""
    import ray.train

    real, taken = training.train_step, []

    def step(*args: Any, **kwargs: Any) -> Any:
        if len(taken) == after:
            raise KeyboardInterrupt
        taken.append(1)
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_step", step)
        context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
        patch.setattr(ray.train, "get_context", lambda: context)
        with pytest.raises(KeyboardInterrupt):
            training._loop({"config": config.model_dump(mode="json"), "folder": str(work)})


def test_checkpoint_holds_the_recipe_and_its_scores(whole: Path) -> None:
    checkpoint = load_checkpoint(whole / "policy")
    assert checkpoint.meta["recipe"] == recipe().model_dump(mode="json")
    assert checkpoint.meta["examples"] == STEPS * 8
    assert checkpoint.meta["training_seconds"] > 0
    assert set(checkpoint.meta["scores"]) >= {"directed", "free", "four", "six"}
    for score in checkpoint.meta["scores"].values():
        assert score["n"] == 4
        assert 0 <= score["greedy"] <= 1
        assert 0 <= score["sampled"] <= 1
    trained = state(whole / "work")
    for name, value in checkpoint.model.state_dict().items():
        assert torch.equal(value, trained[f"weight.{name}"].to(torch.bfloat16).float())


def test_training_lowers_the_loss_and_says_how_far_it_is(whole: Path) -> None:
    seen = losses(whole / "work")
    assert list(seen) == list(range(1, STEPS + 1))
    assert seen[STEPS] < seen[1] - 0.3
    assert "score of four" in (whole / "echo.txt").read_text()


def test_interrupted_and_resumed_training_ends_bit_equal(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = begin_like(whole, tmp_path / "work")
    interrupt(recipe(), work, monkeypatch, after=8)
    assert step_of(work) == SAVE_EVERY  # steps 6 to 8 are lost and have to be taken again
    assert not all(torch.equal(value, state(work)[name]) for name, value in state(whole / "work").items())

    train(recipe(), work, tmp_path / "policy", lambda line: None, resume=True)
    expected, resumed = state(whole / "work"), state(work)
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())
    assert losses(work) == losses(whole / "work")
    policies = [(root / "policy" / "model.safetensors").read_bytes() for root in (whole, tmp_path)]
    assert policies[0] == policies[1]


def test_two_workers_one_of_which_is_killed_learn_what_one_worker_learns(whole: Path, tmp_path: Path) -> None:
    work = begin_like(whole, tmp_path / "work")
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and step_of(work) < STEPS:
            if step_of(work) >= 2:
                killed.extend(workers()[:1])
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.005)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    # Saving every second step leaves the killer time.
    train(recipe(workers=2, save_every=2), work, tmp_path / "policy", lambda line: None, resume=True)
    killer.join()
    assert killed
    alone, together = losses(whole / "work"), losses(work)
    assert together.keys() == alone.keys()
    for step, loss in alone.items():
        assert together[step] == pytest.approx(loss, abs=1e-4)
    for name, value in state(whole / "work").items():
        if name.startswith("weight."):
            torch.testing.assert_close(state(work)[name], value, atol=1e-4, rtol=0)


# ---- refusals, all before a worker starts


@pytest.fixture
def no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*args: Any) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(training, "_fit", fit)


def refused(config: TrainConfig, work: Path, out: Path, message: str, resume: bool = False) -> None:
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    with pytest.raises(SwarmError, match=message) as caught:
        train(config, work, out, lambda line: None, resume)
    assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before
    assert not out.exists()


@pytest.mark.usefixtures("no_fit")
def test_earlier_training_is_not_overwritten_without_resume(whole: Path, tmp_path: Path) -> None:
    refused(recipe(), whole / "work", tmp_path / "out", "add --resume")


@pytest.mark.usefixtures("no_fit")
@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"batch_size": 4}, {"lr": 0.5}, {"preset": "1m"}, {"task": "puzzle-coordinator"}]
)
def test_another_recipe_is_not_mixed_into_a_training(whole: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    refused(recipe(**changes), whole / "work", tmp_path / "out", "another recipe", resume=True)


@pytest.mark.usefixtures("no_fit")
def test_damaged_recipe_is_one_clear_line(whole: Path, tmp_path: Path) -> None:
    work = begin_like(whole, tmp_path / "work")
    (work / "recipe.json").write_text('{"seed": ')
    refused(recipe(), work, tmp_path / "out", "damaged", resume=True)


@pytest.mark.usefixtures("no_fit")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "chess"}, "no task 'chess'; available: puzzle-agent"),
        ({"preset": "7t"}, "unknown preset '7t'; available: tiny"),
    ],
)
def test_impossible_recipes_are_refused_with_what_to_do(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    refused(recipe(**changes), tmp_path / "work", tmp_path / "out", message)


def test_more_workers_than_processors_are_refused_instead_of_waiting_for_ever(whole: Path, tmp_path: Path) -> None:
    work = begin_like(whole, tmp_path / "work")
    with pytest.raises(SwarmError, match="lower `workers`"):
        train(recipe(workers=8), work, tmp_path / "out", lambda line: None, resume=True)


def test_a_training_can_start_from_a_checkpoint_and_says_so(whole: Path, tmp_path: Path) -> None:
    out = train(recipe(init=str(whole / "policy"), steps=1, lr=1e-9), tmp_path / "work", tmp_path / "out", print)
    child, parent = load_checkpoint(out), load_checkpoint(whole / "policy")
    assert child.tokenizer.to_json() == parent.tokenizer.to_json()
    for name, weight in parent.model.state_dict().items():
        assert torch.allclose(child.model.state_dict()[name], weight, atol=1e-6)
    assert child.meta["started_from"]["meta"] == parent.meta
    assert child.meta["recipe"]["init"] == "policy"


@pytest.mark.usefixtures("no_fit")
@pytest.mark.parametrize(
    ("changes", "message"), [({"preset": "1m"}, "no 1m"), ({"window": 64}, "window 64"), ({}, "init: ")]
)
def test_a_checkpoint_of_another_shape_or_none_is_no_start(
    whole: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    init = whole / "policy" if changes else tmp_path / "nowhere"
    refused(recipe(init=str(init), **changes), tmp_path / "work", tmp_path / "out", message)


def test_a_training_that_diverges_ends_at_once_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worlds.split_numbers.lessons.CORPUS", 20)
    work = tmp_path / "work"
    with pytest.raises(SwarmError, match=r"diverged at step \d: .*nan.*set a lower lr"):
        train(recipe(lr=1e30, warmup=1, save_every=1), work, tmp_path / "policy", lambda line: None)
    assert step_of(work) >= 1  # the last good state
    assert not (tmp_path / "policy").exists()
