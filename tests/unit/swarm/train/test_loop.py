"""The training loop without Ray: it goes on bit for bit, reports, and says why it cannot go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.training import alone, damage_newest_state, interrupt_after

from swarm.config.training import OptimizerSection
from swarm.errors import SwarmError
from swarm.train.loop import run_training
from ulm.config import preset
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer
from ulm.train.pairs import PairObjective
from ulm.train.states import RollingStates
from ulm.train.step import make_optimizer

OPTIMIZER = OptimizerSection(steps=12, batch_size=4, micro_batches=2, lr=0.01, warmup=2)


def objective(records: list[dict[str, Any]] | None = None, seed: int = 0) -> PairObjective:
    torch.set_num_threads(1)
    tokenizer = Tokenizer.bytes()
    model = Decoder(preset("tiny", tokenizer.vocab_size), seed=seed)
    optimizer = make_optimizer(model, 0.01, 0.1, (0.9, 0.95), "muon")
    return PairObjective(
        model, optimizer, alone(records), tokenizer, lambda n: (f"{n}\n", f"{n % 7}\n"), batch_size=4, parts=2
    )


def weights(here: PairObjective) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in here.model.state_dict().items()}


def losses(records: list[dict[str, Any]]) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in records if "step" in record}


def test_a_training_needs_nothing_but_a_worker() -> None:
    records: list[dict[str, Any]] = []
    progress = run_training(objective(records), OPTIMIZER, log_every=4)
    assert list(losses(records)) == [4, 8, 12]
    assert records[-1]["loss"] < records[0]["loss"] - 0.3
    assert {"lr", "grad_norm", "tokens_per_s", "eta_s", "seconds"} <= set(records[0])
    assert 10 < records[0]["rss_mb"] < 1e6
    assert progress["step"] == 12
    assert progress["tokens"] == 12 * 4 * 2
    assert progress["schedule"] == [{"from_step": 0, "steps": 12}]


def test_an_interrupted_training_ends_bit_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records: list[dict[str, Any]] = []
    whole = objective(records)
    run_training(whole, OPTIMIZER, log_every=1)

    states = RollingStates(tmp_path)
    again: list[dict[str, Any]] = []
    interrupt_after(8, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run_training(objective(again), OPTIMIZER, states=states, save_every=5, log_every=1)
    assert states.steps() == [5]  # steps 6 to 8 are lost and have to be taken again

    resumed = objective(again, seed=99)
    progress = run_training(resumed, OPTIMIZER, states=states, save_every=5, log_every=1)
    assert {"notice": "going on from step 5"} in again
    assert losses(again) == losses(records)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    assert progress["tokens"] == 12 * 4 * 2
    assert states.steps() == [10, 12]


def test_a_longer_training_goes_on_and_tells_from_which_step(tmp_path: Path) -> None:
    states = RollingStates(tmp_path)
    run_training(objective(), OPTIMIZER, states=states)
    longer = OPTIMIZER.model_copy(update={"steps": 15})
    progress = run_training(objective(), longer, states=states)
    assert progress["schedule"] == [{"from_step": 0, "steps": 12}, {"from_step": 12, "steps": 15}]


def test_a_damaged_state_is_told_and_the_one_before_taken(tmp_path: Path) -> None:
    states = RollingStates(tmp_path)
    whole = objective()
    run_training(whole, OPTIMIZER, states=states, save_every=5)
    assert damage_newest_state(tmp_path) == "step-00000012.json"
    records: list[dict[str, Any]] = []
    again = objective(records)
    run_training(again, OPTIMIZER, states=states)
    assert "step-00000012.json is damaged" in records[0]["notice"]
    assert records[1] == {"notice": "going on from step 10"}
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())


def test_states_of_another_model_end_the_training(tmp_path: Path) -> None:
    states = RollingStates(tmp_path)
    model = Decoder(preset("1m", 300))
    states.save(3, model, make_optimizer(model, 0.01, 0.1, (0.9, 0.95)), {})
    with pytest.raises(SwarmError, match="another model"):
        run_training(objective(), OPTIMIZER, states=states)


def test_a_training_that_diverges_says_so_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    here = objective()
    states = RollingStates(tmp_path)
    run_training(here, OPTIMIZER.model_copy(update={"steps": 3}), states=states)
    here = objective()
    here.model.norm.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(SwarmError, match=r"diverged at step 3 \(loss is .*nan.*last good state is kept in .*lower lr"):
        run_training(here, OPTIMIZER, states=states)
    assert states.steps() == [3]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: 9 bytes")]
)
def test_a_full_memory_names_the_settings_that_help(monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr("swarm.train.loop.train_step", full)
    with pytest.raises(SwarmError, match=r"out of memory at step 0; raise optimizer.micro_batches, or lower"):
        run_training(objective(), OPTIMIZER)


def test_a_fault_in_the_code_is_no_settings_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("swarm.train.loop.train_step", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        run_training(objective(), OPTIMIZER)
