"""Training through real Ray Train: it ends as in one process, even after a kill, or says at once why it cannot."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from fakes.ray_workers import workers
from fakes.training import saved_tensors, tiny_recipe, train_tokenizers_on_little, without_ray

from swarm.errors import SwarmError
from swarm.train.progress import read_metrics
from swarm.train.training import train_policy
from ulm.train.states import RollingStates

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("one_ray")]

RECIPE = tiny_recipe(
    optimizer={"steps": 12, "batch_size": 8, "micro_batches": 2, "warmup": 4, "weight_decay": 0.05},
    place={"device": "cpu", "threads": 1},
)


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training file; the working folder is empty, and tokenizers are trained on little."""
    monkeypatch.chdir(tmp_path)
    train_tokenizers_on_little(monkeypatch)
    Path("train.yaml").write_text(json.dumps(RECIPE))


def train(*overrides: str, workers: int | None = None) -> list[str]:
    lines: list[str] = []
    train_policy(Path("train.yaml"), overrides, workers=workers, echo=lines.append)
    return lines


def state(name: str) -> dict[str, torch.Tensor]:
    return saved_tensors(Path("runs", f"train-{name}", "states"))


def losses(name: str) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(Path("runs", f"train-{name}", "metrics.jsonl"))}


def test_ctrl_c_ends_a_training_also_where_ray_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at a7f87d3: SystemExit, with exit code 0, from the handler that Ray Train puts in place of Python's."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press() -> None:
        states, deadline = RollingStates(Path("runs/train-stopped/states").resolve()), time.monotonic() + 120
        while time.monotonic() < deadline and not states.steps():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    try:
        threading.Thread(target=press, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            train("name=stopped", "optimizer.steps=100000")
    finally:
        signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 30
    while workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not workers()


def test_workers_one_of_which_is_killed_learn_what_this_process_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as here:
        without_ray(here)
        train("name=here")
    train("name=one")
    assert all(torch.equal(value, state("one")[name]) for name, value in state("here").items())
    assert losses("one") == losses("here")

    killed: list[int] = []

    def kill() -> None:
        states = RollingStates(Path("runs/train-two/states").resolve())
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and not killed:
            if states.steps():
                killed.extend(workers()[:1])
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    train("name=two", workers=2)
    killer.join()
    assert killed
    for step, loss in losses("here").items():
        assert losses("two")[step] == pytest.approx(loss, abs=1e-4)
    for name, value in state("here").items():
        if name.startswith("weight."):
            torch.testing.assert_close(state("two")[name], value, atol=1e-4, rtol=0)


def test_workers_share_the_attempts_of_a_reward_training_and_all_learn_from_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = {"puzzles": 12, "explore": 6, "attempts": 1, "every": 3, "max_new_tokens": 6, "score_examples": 4}
    options = {"count": 2, "high": 6, "target_low": 0, "target_high": 36}
    recipe = {**RECIPE, **changes, "kind": "reward", "world": "numbers-v0", "options": options}
    recipe = {name: value for name, value in recipe.items() if name != "task"}
    Path("train.yaml").write_text(json.dumps({**recipe, "optimizer": {"steps": 5, "batch_size": 8, "warmup": 2}}))
    with monkeypatch.context() as here:
        without_ray(here)
        train("name=here")
    train("name=two", workers=2)
    there, here_too = state("two"), state("here")
    assert torch.equal(there["extra.pool"], here_too["extra.pool"])
    for name, value in here_too.items():
        if name.startswith("weight."):
            torch.testing.assert_close(there[name], value, atol=1e-4, rtol=0)


def test_more_workers_than_processors_are_refused_instead_of_waiting_for_ever() -> None:
    with pytest.raises(SwarmError, match="lower `workers`"):
        train(workers=8)


def test_a_training_that_diverges_ends_at_once_and_says_so() -> None:
    on_interrupt = signal.getsignal(signal.SIGINT)
    with pytest.raises(SwarmError, match=r"diverged at step \d+ .*nan.*set a lower lr"):
        train("optimizer.lr=1e30", "optimizer.warmup=1", "optimizer.clip=1e30", "save_every=1")
    assert signal.getsignal(signal.SIGINT) is on_interrupt, "Ray Train's handler outlives the training"
    assert RollingStates(Path("runs/train-tiny/states")).steps()  # the last good state
    assert not Path("policy").exists()
