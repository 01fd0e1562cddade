"""Training states: what goes on bit for bit, what survives a kill, what is damaged or of another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ulm.config import preset
from ulm.model import Decoder
from ulm.train.states import DamagedStateError, RollingStates, SavedState, StateError
from ulm.train.step import make_optimizer

pytestmark = pytest.mark.usefixtures("one_thread")

VOCAB = 300


def model_and_optimizer(
    seed: int = 0, optimizer: str = "adamw", **changes: Any
) -> tuple[Decoder, torch.optim.Optimizer]:
    model = Decoder(preset("tiny", VOCAB, **changes), seed=seed)
    return model, make_optimizer(model, 1e-2, 0.05, (0.9, 0.98), optimizer)  # type: ignore[arg-type]


def train(model: Decoder, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        ids = torch.randint(0, VOCAB, (2, 5), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = model(ids).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def weights(model: Decoder) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same_moments(a: torch.optim.Optimizer, b: torch.optim.Optimizer) -> bool:
    a_states, b_states = a.state_dict()["state"], b.state_dict()["state"]
    return (
        len(a_states) > 0
        and a_states.keys() == b_states.keys()
        and all(equal(a_states[index], b_states[index]) for index in a_states)
    )


def flip_a_byte_of_the_tensor_data(folder: Path) -> None:
    path = folder / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    assert load_file(str(path))  # safetensors does not notice


def no_warning(message: str) -> None:
    pytest.fail(message)


# ---- one state


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_goes_on_bit_equal_from_a_saved_state(tmp_path: Path, optimizer: str) -> None:
    model, moments = model_and_optimizer(optimizer=optimizer)
    train(model, moments, range(3))
    RollingStates(tmp_path).save(3, model, moments, {"seconds": 0.1})
    expected = train(model, moments, range(3, 7))

    fresh, fresh_moments = model_and_optimizer(seed=99, optimizer=optimizer)
    saved = RollingStates(tmp_path).load(fresh, fresh_moments)
    assert saved == SavedState({"step": 3, "seconds": 0.1}, {})
    assert train(fresh, fresh_moments, range(3, 7)) == expected
    assert equal(weights(fresh), weights(model))
    assert same_moments(moments, fresh_moments)


def test_extra_tensors_come_back_bit_equal_with_their_types_and_shapes(tmp_path: Path) -> None:
    extra = {
        "memory.keys": torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)).transpose(0, 1),
        "memory.weight.embed": torch.full((2,), -1.5, dtype=torch.bfloat16),
        "seen_B": torch.tensor([7, 2**40]),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
    }
    before = {name: tensor.clone() for name, tensor in extra.items()}
    RollingStates(tmp_path).save(1, *model_and_optimizer(), {}, extra)
    model, optimizer = model_and_optimizer(seed=99)
    saved = RollingStates(tmp_path).load(model, optimizer)
    assert saved is not None
    assert equal(saved.extra, before)
    assert {name: tensor.dtype for name, tensor in saved.extra.items()} == {k: v.dtype for k, v in before.items()}
    assert equal(weights(model), weights(model_and_optimizer()[0]))  # no extra tensor is taken for a weight
    assert not optimizer.state


def test_what_needs_no_gradient_is_neither_saved_nor_restored(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    model.embed.requires_grad_(False)
    RollingStates(tmp_path).save(1, model, optimizer, {})
    other, _ = model_and_optimizer(seed=99)
    embedding = other.embed.weight.detach().clone()
    other.embed.requires_grad_(False)
    RollingStates(tmp_path).load(other)
    assert torch.equal(other.embed.weight, embedding)
    assert torch.equal(other.norm, model.norm)
    assert "weight.embed.weight" not in load_file(str(tmp_path / "step-00000001" / "state.safetensors"))


@pytest.mark.parametrize(
    "damage",
    ["truncated", "emptied", "no weights", "no progress", "torn progress", "a list", "flipped", "no checksum"],
)
def test_damaged_state_is_a_clear_error_and_nothing_is_loaded(tmp_path: Path, damage: str) -> None:
    RollingStates(tmp_path).save(1, *model_and_optimizer(), {})
    folder = tmp_path / "step-00000001"
    tensors, progress = folder / "state.safetensors", folder / "progress.json"
    if damage == "truncated":
        tensors.write_bytes(tensors.read_bytes()[:-100])
    elif damage == "emptied":
        tensors.write_bytes(b"")
    elif damage == "no weights":
        tensors.unlink()
    elif damage == "no progress":
        progress.unlink()
    elif damage == "torn progress":
        progress.write_text('{"step": ')
    elif damage == "a list":
        progress.write_text("[1]")
    elif damage == "flipped":
        flip_a_byte_of_the_tensor_data(folder)
    else:
        progress.write_text('{"format": 2, "progress": {"step": 1}}')
    model, optimizer = model_and_optimizer(seed=99)
    before = weights(model)
    warnings: list[str] = []
    with pytest.raises(DamagedStateError, match=r"all 1 states in .* are damaged; remove it to start over"):
        RollingStates(tmp_path).load(model, optimizer, warnings.append)
    assert "step-00000001 is damaged" in warnings[0]
    assert equal(weights(model), before)


# ---- several states


def save_steps(states: RollingStates, *steps: int) -> dict[int, dict[str, Tensor]]:
    """Train and save a state at every step; the weights at each."""
    model, optimizer = model_and_optimizer()
    found = {}
    for step in steps:
        train(model, optimizer, range(step, step + 1))
        states.save(step, model, optimizer, {"note": f"at {step}"}, {"row": torch.tensor([step])})
        found[step] = weights(model)
    return found


@pytest.mark.parametrize("keep", [2, 3])
def test_the_last_few_states_are_kept(tmp_path: Path, keep: int) -> None:
    states = RollingStates(tmp_path / "states", keep)
    steps = [8, 9, 10, 100, 1000]
    for number, step in enumerate(steps, 1):
        save_steps(states, step)
        assert states.steps() == steps[max(0, number - keep) : number]
    assert len(list((tmp_path / "states").iterdir())) == keep


def test_the_newest_state_is_restored_with_its_step(tmp_path: Path) -> None:
    states = RollingStates(tmp_path)
    saved = save_steps(states, 9, 10)
    model, optimizer = model_and_optimizer(seed=99)
    found = states.load(model, optimizer, no_warning)
    assert found == SavedState({"note": "at 10", "step": 10}, {"row": torch.tensor([10])})
    assert equal(weights(model), saved[10])


def test_no_states_at_all_are_no_error(tmp_path: Path) -> None:
    assert RollingStates(tmp_path / "states").load(*model_and_optimizer(), no_warning) is None
    assert RollingStates(tmp_path / "states").steps() == []


def test_a_damaged_newest_state_is_named_and_the_one_before_restored(tmp_path: Path) -> None:
    states = RollingStates(tmp_path, keep=3)
    saved = save_steps(states, 1, 2, 3)
    flip_a_byte_of_the_tensor_data(tmp_path / "step-00000003")
    warnings: list[str] = []
    model, optimizer = model_and_optimizer(seed=99)
    found = states.load(model, optimizer, warnings.append)
    assert found is not None
    assert found.progress["step"] == 2
    assert equal(weights(model), saved[2])
    assert len(warnings) == 1
    assert "step-00000003 is damaged" in warnings[0]
    assert "checksum" in warnings[0]
    assert warnings[0].endswith("going back to the state before it")


def test_a_damaged_state_is_replaced_when_its_step_is_reached_again(tmp_path: Path) -> None:
    states = RollingStates(tmp_path)
    save_steps(states, 1, 2)
    flip_a_byte_of_the_tensor_data(tmp_path / "step-00000002")
    saved = save_steps(states, 2)
    model, optimizer = model_and_optimizer(seed=99)
    found = states.load(model, optimizer, no_warning)
    assert found is not None
    assert equal(weights(model), saved[2])
    assert states.steps() == [1, 2]


def test_states_that_are_all_damaged_are_an_error(tmp_path: Path) -> None:
    states = RollingStates(tmp_path / "states")
    save_steps(states, 1, 2)
    for name in ("step-00000001", "step-00000002"):
        flip_a_byte_of_the_tensor_data(tmp_path / "states" / name)
    warnings: list[str] = []
    with pytest.raises(DamagedStateError, match=r"all 2 states in .*states are damaged; remove it to start over"):
        states.load(*model_and_optimizer(), warnings.append)
    assert ["step-00000002" in warnings[0], "step-00000001" in warnings[1]] == [True, True]


def test_a_newest_state_of_another_model_is_refused_without_going_back(tmp_path: Path) -> None:
    states = RollingStates(tmp_path)
    save_steps(states, 1)
    states.save(2, *model_and_optimizer(n_layer=1), {})
    model, optimizer = model_and_optimizer(seed=99)
    before = weights(model)
    with pytest.raises(StateError, match="step-00000002 is damaged or of another model") as caught:
        states.load(model, optimizer, no_warning)
    assert not isinstance(caught.value, DamagedStateError)
    assert equal(weights(model), before)


def test_a_newest_state_of_a_newer_format_is_refused_without_going_back(tmp_path: Path) -> None:
    states = RollingStates(tmp_path)
    save_steps(states, 1, 2)
    (tmp_path / "step-00000002" / "progress.json").write_text('{"format": 3}')
    with pytest.raises(StateError, match="format 3, this version reads 2"):
        states.load(*model_and_optimizer(), no_warning)


def test_a_kill_while_a_state_is_written_leaves_the_ones_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = RollingStates(tmp_path)
    save_steps(states, 1, 2)

    def killed(tensors: dict[str, Tensor], path: str) -> None:
        save_file(tensors, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ulm.train.states.save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            save_steps(states, 3)
    assert states.steps() == [1, 2]
    found = states.load(*model_and_optimizer(), no_warning)
    assert found is not None
    assert found.progress["step"] == 2
    save_steps(states, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]
