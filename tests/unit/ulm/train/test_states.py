"""Training states: what goes on bit for bit, what is written, what survives damage and kills, what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ulm.config import preset
from ulm.files import sha256
from ulm.model import Decoder
from ulm.train.states import DamagedStateError, RollingStates, SavedState, StateError
from ulm.train.step import make_optimizer

pytestmark = pytest.mark.usefixtures("one_thread")

VOCAB = 300


class Training:
    """A tiny model and its optimizer; which step it takes depends on its number alone."""

    def __init__(self, seed: int = 0, optimizer: str = "adamw", **changes: Any) -> None:
        self.model = Decoder(preset("tiny", VOCAB, **changes), seed=seed)
        self.optimizer = make_optimizer(self.model, 1e-2, 0.05, (0.9, 0.98), optimizer)  # type: ignore[arg-type]

    def take(self, *steps: int) -> list[float]:
        """Take steps; the loss of each."""
        losses = []
        for step in steps:
            ids = torch.randint(0, VOCAB, (2, 5), generator=torch.Generator().manual_seed(step))
            self.optimizer.zero_grad()
            loss = self.model(ids).square().mean()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return losses

    def save(self, states: RollingStates, step: int) -> dict[str, Tensor]:
        """Save a state with a memory; everything that was saved."""
        states.save(step, self.model, self.optimizer, {"note": f"at {step}"}, {"row": torch.tensor([step])})
        return self.tensors()

    def tensors(self) -> dict[str, Tensor]:
        """Weights and moments."""
        moments = self.optimizer.state_dict()["state"]
        return {name: value.clone() for name, value in self.model.state_dict().items()} | {
            f"{number}.{key}": torch.as_tensor(value).clone()
            for number, state in moments.items()
            for key, value in state.items()
        }


def saved_steps(folder: Path, *steps: int, keep: int = 2) -> dict[int, dict[str, Tensor]]:
    """Train and save a state at every step; what each holds."""
    training, states = Training(), RollingStates(folder, keep)
    found = {}
    for step in steps:
        training.take(step)
        found[step] = training.save(states, step)
    return found


def loaded(folder: Path) -> tuple[SavedState, dict[str, Tensor], list[str]]:
    """Load in what stands for another process: the state, weights and moments, and warnings."""
    training, warnings = Training(seed=99), list[str]()
    found = RollingStates(folder).load(training.model, training.optimizer, warnings.append)
    assert found is not None
    return found, training.tensors(), warnings


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def manifest(folder: Path, step: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"step-{step:08d}.json").read_text())
    return found


def objects_of(folder: Path, step: int, part: str = "") -> set[str]:
    """Names of the objects of a state, or of a part of it: weight, optimizer or extra."""
    tensors = manifest(folder, step)["state"]["tensors"]
    return {name for key, entry in tensors.items() if part in key for name in entry["objects"]}


def stored(folder: Path) -> set[str]:
    return {path.name for path in (folder / "objects").iterdir()}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage(folder: Path, step: int, part: str = "weight") -> None:
    """Damage an object of a state that no older state needs."""
    older = [other for other in RollingStates(folder).steps() if other < step]
    own = objects_of(folder, step, part).difference(*(objects_of(folder, other) for other in older))
    flip(folder / "objects" / min(own))


# ---- one state


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_goes_on_bit_equal_from_a_saved_state(tmp_path: Path, optimizer: str) -> None:
    whole = Training(optimizer=optimizer)
    whole.take(0, 1, 2)
    RollingStates(tmp_path).save(3, whole.model, whole.optimizer, {"seconds": 0.1})
    expected = whole.take(3, 4, 5)

    fresh = Training(seed=99, optimizer=optimizer)
    saved = RollingStates(tmp_path).load(fresh.model, fresh.optimizer)
    assert saved == SavedState({"step": 3, "seconds": 0.1}, {})
    assert fresh.take(3, 4, 5) == expected
    assert equal(fresh.tensors(), whole.tensors())


def test_extra_tensors_come_back_bit_equal_with_their_types_and_shapes(tmp_path: Path) -> None:
    extra = {
        "memory.keys": torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)).transpose(0, 1),
        "memory.weight.embed": torch.full((2,), -1.5, dtype=torch.bfloat16),
        "seen_B": torch.tensor([7, 2**40]),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "large": torch.randn(70, 70, 70, generator=torch.Generator().manual_seed(1)),
    }
    one = Training()
    RollingStates(tmp_path).save(1, one.model, one.optimizer, {}, extra)
    found, tensors, _ = loaded(tmp_path)
    assert equal(found.extra, extra)
    assert all(found.extra[name].dtype == value.dtype for name, value in extra.items())
    assert equal(tensors, one.tensors())  # no extra tensor is taken for a weight


def test_progress_comes_back_as_json_has_it(tmp_path: Path) -> None:
    one = Training()
    RollingStates(tmp_path).save(1, one.model, one.optimizer, {"seen": {2: "b", 10: "a"}, "pair": (1, 0.1), "µ": None})
    found, *_ = loaded(tmp_path)
    assert found.progress == {"seen": {"2": "b", "10": "a"}, "pair": [1, 0.1], "µ": None, "step": 1}


def test_what_needs_no_gradient_is_neither_saved_nor_restored(tmp_path: Path) -> None:
    one, other = Training(), Training(seed=99)
    for training in (one, other):
        training.model.embed.requires_grad_(False)
    embedding = other.model.embed.weight.clone()
    states = RollingStates(tmp_path)
    states.save(1, one.model, one.optimizer, {})
    states.load(other.model)
    assert torch.equal(other.model.embed.weight, embedding)
    assert torch.equal(other.model.norm, one.model.norm)
    assert "weight.embed.weight" not in states.read(1)[0]


def test_moments_are_left_out_where_there_is_no_optimizer_to_receive_them(tmp_path: Path) -> None:
    saved_steps(tmp_path, 1)
    other = Training(seed=99)
    RollingStates(tmp_path).load(other.model)
    assert not other.optimizer.state


# ---- several states


@pytest.mark.parametrize("keep", [2, 3])
def test_the_last_few_states_are_kept_and_nothing_else(tmp_path: Path, keep: int) -> None:
    steps = [8, 9, 10, 100, 1000]
    for number in range(1, len(steps) + 1):
        saved_steps(tmp_path / "states", *steps[:number], keep=keep)
        kept = steps[max(0, number - keep) : number]
        assert RollingStates(tmp_path / "states").steps() == kept
        assert stored(tmp_path / "states") == set().union(*(objects_of(tmp_path / "states", step) for step in kept))
        shutil.rmtree(tmp_path / "states")


def test_the_newest_state_is_restored(tmp_path: Path) -> None:
    saved = saved_steps(tmp_path, 9, 10)
    found, tensors, warnings = loaded(tmp_path)
    assert found == SavedState({"note": "at 10", "step": 10}, {"row": torch.tensor([10])})
    assert equal(tensors, saved[10])
    assert warnings == []


def test_no_states_at_all_are_no_error(tmp_path: Path) -> None:
    states = RollingStates(tmp_path / "states")
    assert states.load(Training().model) is None
    assert states.steps() == []
    assert not (tmp_path / "states").exists()


def test_a_state_in_which_nothing_changed_is_a_manifest_and_no_more(tmp_path: Path) -> None:
    states, one = RollingStates(tmp_path), Training()
    one.take(1)
    for step in (1, 2):
        states.save(step, one.model, one.optimizer, {}, {"memory": torch.ones(400, 400)})
        if step == 1:
            before = {path: path.stat().st_ino for path in (tmp_path / "objects").iterdir()}
    assert {path: path.stat().st_ino for path in (tmp_path / "objects").iterdir()} == before
    assert objects_of(tmp_path, 1) == objects_of(tmp_path, 2)


def test_a_training_that_goes_on_writes_only_what_it_changes(tmp_path: Path) -> None:
    """The memory is large and stays; the process is another one."""
    extra = {"memory": torch.randn(600, 600, generator=torch.Generator().manual_seed(0))}
    one = Training()
    RollingStates(tmp_path).save(1, one.model, one.optimizer, {}, extra)
    large = {name: (tmp_path / "objects" / name).stat().st_ino for name in objects_of(tmp_path, 1, "extra")}
    states = RollingStates(tmp_path)
    states.load(one.model, one.optimizer)
    states.save(2, one.model, one.optimizer, {}, extra)
    assert {name: (tmp_path / "objects" / name).stat().st_ino for name in objects_of(tmp_path, 2, "extra")} == large


def test_bases_of_kept_states_are_kept(tmp_path: Path) -> None:
    """The state that wrote the whole table is long gone; those that differ from it need its objects."""
    states, one = RollingStates(tmp_path), Training()
    table = torch.randn(8192, 64, generator=torch.Generator().manual_seed(0))
    for step in range(1, 6):
        table[step::1000] += 1
        states.save(step, one.model, one.optimizer, {}, {"table": table})
    assert manifest(tmp_path, 5)["state"]["bases"]
    found, _, warnings = loaded(tmp_path)
    assert torch.equal(found.extra["table"], table)
    assert warnings == []


def test_a_training_that_goes_on_writes_differences_from_what_it_has_read(tmp_path: Path) -> None:
    one, table = Training(), torch.randn(8192, 64, generator=torch.Generator().manual_seed(0))
    RollingStates(tmp_path).save(1, one.model, one.optimizer, {}, {"table": table})
    states = RollingStates(tmp_path)
    states.load(one.model, one.optimizer)
    table[::1000] += 1
    states.save(2, one.model, one.optimizer, {}, {"table": table})
    assert set(manifest(tmp_path, 2)["state"]["bases"]) == set(
        manifest(tmp_path, 1)["state"]["tensors"]["extra.table"]["objects"]
    )
    assert torch.equal(loaded(tmp_path)[0].extra["table"], table)


# ---- damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def in_state_3(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """Change an object that state 3 alone needs."""
    return lambda folder: change(folder / "objects" / min(objects_of(folder, 3) - objects_of(folder, 2)))


def in_manifest_3(*change: str) -> Callable[[Path], object]:
    path = "step-00000003.json"
    return lambda folder: (folder / path).write_text((folder / path).read_text().replace(*change, 1))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped bit": in_state_3(flip),
    "cut object": in_state_3(cut),
    "empty object": in_state_3(lambda path: path.write_bytes(b"")),
    "missing object": in_state_3(Path.unlink),
    "other progress": in_manifest_3("at 3", "at 4"),
    "other object": in_manifest_3('"objects": ["', '"objects": ["0'),
    "no checksum": in_manifest_3("sha256", "sha"),
    "torn manifest": lambda folder: cut(folder / "step-00000003.json"),
    "empty manifest": lambda folder: (folder / "step-00000003.json").write_bytes(b""),
    "a list": lambda folder: (folder / "step-00000003.json").write_text("[1]"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_newest_state_is_named_and_the_one_before_restored(tmp_path: Path, name: str) -> None:
    saved = saved_steps(tmp_path, 1, 2, 3, keep=3)
    DAMAGE[name](tmp_path)
    found, tensors, warnings = loaded(tmp_path)
    assert found == SavedState({"note": "at 2", "step": 2}, {"row": torch.tensor([2])})
    assert equal(tensors, saved[2])
    assert len(warnings) == 1
    assert re.search(r"step-00000003\.json is damaged \(.+\); going back to the state before it$", warnings[0])
    assert RollingStates(tmp_path).steps() == [1, 2]
    assert (tmp_path / "damaged-00000003.json").exists()


def test_what_was_put_aside_keeps_its_objects(tmp_path: Path) -> None:
    saved_steps(tmp_path, 1, 2)
    damage(tmp_path, 2)
    needed = objects_of(tmp_path, 2)
    loaded(tmp_path)
    saved_steps(tmp_path, 3, 4, 5)
    assert needed <= stored(tmp_path)
    assert not any(path.name.startswith("step-00000002") for path in tmp_path.iterdir())


def test_a_damaged_state_is_whole_again_when_its_step_is_reached_again(tmp_path: Path) -> None:
    """The same bytes have the same names, and the damaged files have them already."""
    training = Training()
    training.take(1)
    training.save(RollingStates(tmp_path), 1)
    training.take(2)
    expected = training.save(RollingStates(tmp_path), 2)
    for name in objects_of(tmp_path, 2) - objects_of(tmp_path, 1):
        flip(tmp_path / "objects" / name)
    states, again = RollingStates(tmp_path), Training(seed=99)
    assert states.load(again.model, again.optimizer)
    again.take(2)
    again.save(states, 2)
    found, tensors, warnings = loaded(tmp_path)
    assert found.progress["step"] == 2
    assert equal(tensors, expected)
    assert warnings == []


def test_states_that_are_all_damaged_are_an_error_and_nothing_is_loaded(tmp_path: Path) -> None:
    saved_steps(tmp_path / "states", 1, 2)
    for step in (2, 1):
        damage(tmp_path / "states", step)
    other, warnings = Training(seed=99), list[str]()
    before = other.tensors()
    with pytest.raises(DamagedStateError, match=r"all 2 states in .*states are damaged; remove it to start over"):
        RollingStates(tmp_path / "states").load(other.model, other.optimizer, warnings.append)
    assert ["step-00000002" in warnings[0], "step-00000001" in warnings[1]] == [True, True]
    assert equal(other.tensors(), before)
    assert RollingStates(tmp_path / "states").steps() == [1, 2]  # nothing is put aside


def test_an_object_that_states_share_ends_all_of_them(tmp_path: Path) -> None:
    states, one = RollingStates(tmp_path), Training()
    states.save(1, one.model, one.optimizer, {})
    states.save(2, one.model, one.optimizer, {})
    flip(tmp_path / "objects" / min(objects_of(tmp_path, 1)))
    with pytest.raises(DamagedStateError, match="all 2 states"):
        RollingStates(tmp_path).load(Training().model)


# ---- memories alone are lost


def test_weights_go_on_without_memories_where_no_state_is_whole(tmp_path: Path) -> None:
    saved = saved_steps(tmp_path, 1, 2)
    for step in (1, 2):
        damage(tmp_path, step, "extra")
    found, tensors, warnings = loaded(tmp_path)
    assert found == SavedState({"note": "at 2", "step": 2}, {})
    assert equal(tensors, saved[2])
    assert len(warnings) == 3
    assert re.search(r"going on with weights and optimizer of step 2; memories are lost$", warnings[2])
    assert RollingStates(tmp_path).steps() == [1, 2]


def test_an_older_state_that_is_whole_goes_before_a_newer_one_without_memories(tmp_path: Path) -> None:
    saved = saved_steps(tmp_path, 1, 2)
    damage(tmp_path, 2, "extra")
    found, tensors, _ = loaded(tmp_path)
    assert found == SavedState({"note": "at 1", "step": 1}, {"row": torch.tensor([1])})
    assert equal(tensors, saved[1])


def test_a_newer_state_without_weights_is_put_aside_for_an_older_one_without_memories(tmp_path: Path) -> None:
    saved = saved_steps(tmp_path, 1, 2)
    damage(tmp_path, 1, "extra")
    damage(tmp_path, 2, "weight")
    found, tensors, _ = loaded(tmp_path)
    assert found == SavedState({"note": "at 1", "step": 1}, {})
    assert equal(tensors, saved[1])
    assert RollingStates(tmp_path).steps() == [1]


# ---- of another model or version


def test_a_newest_state_of_another_model_is_refused_without_going_back(tmp_path: Path) -> None:
    saved_steps(tmp_path, 1)
    Training(n_layer=1).save(RollingStates(tmp_path), 2)
    other = Training(seed=99)
    before = other.tensors()
    with pytest.raises(StateError, match=r"step-00000002 in .* is of another model") as caught:
        RollingStates(tmp_path).load(other.model, other.optimizer)
    assert not isinstance(caught.value, DamagedStateError)
    assert equal(other.tensors(), before)


def test_a_newest_state_of_a_newer_format_is_refused_without_going_back(tmp_path: Path) -> None:
    saved_steps(tmp_path, 1, 2)
    (tmp_path / "step-00000002.json").write_text('{"format": 4}')
    with pytest.raises(StateError, match="format 4, this version reads 2 and 3; remove it to start over") as caught:
        RollingStates(tmp_path).load(Training().model)
    assert not isinstance(caught.value, DamagedStateError)


# ---- format 2


def save_format_2(folder: Path, step: int, training: Training) -> dict[str, Tensor]:
    """Write a state as versions before format 3 did."""
    place = folder / f"step-{step:08d}"
    place.mkdir(parents=True)
    tensors = {"extra.row": torch.tensor([step])}
    for name, parameter in training.model.named_parameters():
        tensors[f"weight.{name}"] = parameter.detach()
        for key, value in training.optimizer.state[parameter].items():
            tensors[f"optimizer.{key}.{name}"] = value
    save_file(tensors, str(place / "state.safetensors"))
    record = {"format": 2, "sha256": sha256(place / "state.safetensors"), "progress": {"note": "old", "step": step}}
    (place / "progress.json").write_text(json.dumps(record))
    return training.tensors()


def test_a_state_of_format_2_is_read_and_goes_as_newer_ones_are_written(tmp_path: Path) -> None:
    old = Training()
    for step in (1, 2):
        old.take(step)
        expected = save_format_2(tmp_path, step, old)
    (tmp_path / "step-00000003.new").mkdir()  # by a kill
    found, tensors, warnings = loaded(tmp_path)
    assert found == SavedState({"note": "old", "step": 2}, {"row": torch.tensor([2])})
    assert equal(tensors, expected)
    assert warnings == []
    names = []
    for step in (3, 4):
        saved_steps(tmp_path, step)
        names.append(sorted(path.name for path in tmp_path.iterdir() if path.name != "objects"))
    assert names == [["step-00000002", "step-00000003.json"], ["step-00000003.json", "step-00000004.json"]]


def test_a_damaged_state_of_format_2_is_put_aside(tmp_path: Path) -> None:
    old = Training()
    old.take(1)
    expected = save_format_2(tmp_path, 1, old)
    save_format_2(tmp_path, 2, old)
    flip(tmp_path / "step-00000002" / "state.safetensors")
    found, tensors, warnings = loaded(tmp_path)
    assert found.progress["step"] == 1
    assert equal(tensors, expected)
    assert "step-00000002 is damaged (its checksum is wrong)" in warnings[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged-00000002", "step-00000001"]


def test_a_new_state_replaces_that_of_format_2_of_the_same_step(tmp_path: Path) -> None:
    old = Training()
    old.take(1)
    save_format_2(tmp_path, 1, old)
    saved_steps(tmp_path, 1)
    assert loaded(tmp_path)[0].progress == {"note": "at 1", "step": 1}
    assert not (tmp_path / "step-00000001").exists()


# ---- kills


@pytest.mark.parametrize("where", ["ulm.train.objects.sync", "ulm.train.states.write_whole"])
def test_a_kill_while_a_state_is_written_leaves_the_ones_before_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    saved = saved_steps(tmp_path, 1, 2)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, killed)
        with pytest.raises(KeyboardInterrupt):
            saved_steps(tmp_path, 3)
    (tmp_path / "objects" / f"{'0' * 64}.new").write_bytes(b"half an object")
    (tmp_path / ".step-00000003.json.1.new").write_bytes(b"half a manifest")
    assert stored(tmp_path) > objects_of(tmp_path, 1) | objects_of(tmp_path, 2)
    found, tensors, warnings = loaded(tmp_path)
    assert found.progress["step"] == 2
    assert equal(tensors, saved[2])
    assert warnings == []
    saved_steps(tmp_path, 4)
    assert stored(tmp_path) == objects_of(tmp_path, 2) | objects_of(tmp_path, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["objects", "step-00000002.json", "step-00000004.json"]
