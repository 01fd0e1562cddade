"""Learned rows of entities: growth changes nothing that was there, and a killed writer leaves a state to go on from."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ulm.engram.optimizer import EngramAdam
from ulm.memory.registry import EntityRegistry
from ulm.memory.registry.slots import EntitySlots
from ulm.train.muon import Muon

OLD, NEW = [1, 2, 3, 7], [4, 5, 6, *range(8, 60)]
OPTIMIZERS = {
    "adamw": lambda slots: torch.optim.AdamW(slots.parameters(), lr=0.1),
    "muon beside": lambda slots: Muon([], slots.parameters(), lr=0.1),
    "muon": lambda slots: Muon([(slots.weight, ())], [], lr=0.1),
    "lazy": lambda slots: EngramAdam(slots.parameters(), lr=0.1, foreach=False),
}


def slots_of(*entities: int, sparse: bool = False) -> EntitySlots:
    slots = EntitySlots(8, sparse=sparse)
    for entity in entities:
        slots.want(entity)
    slots.grow()
    return slots


def train(slots: EntitySlots, optimizer: torch.optim.Optimizer, entities: list[int], steps: int = 3) -> None:
    generator = torch.Generator().manual_seed(len(entities))
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        wanted = torch.randn(len(entities), 8, generator=generator)
        ((slots(torch.tensor(entities)) - wanted) ** 2).sum().backward()
        optimizer.step()


def logits(slots: EntitySlots, entities: list[list[int]]) -> Tensor:
    """Return what a reader makes of the rows of all that a text mentions."""
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 50))
    return head(slots(torch.tensor(entities)).sum(1)).detach()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_growth_changes_no_logit_by_a_bit_and_keeps_the_optimizer_s_state(kind: str) -> None:
    slots = slots_of(*OLD, sparse=kind == "lazy")
    optimizer = OPTIMIZERS[kind](slots)
    train(slots, optimizer, OLD)
    before, state = slots.weight, dict(optimizer.state[slots.weight])
    texts = [[old, new] for old in OLD for new in NEW]  # that mention somebody new beside somebody old
    said = logits(slots, texts)
    for entity in NEW:
        slots.want(entity)
    assert slots.grow(optimizer) == len(NEW)
    assert slots.weight is not before
    assert torch.equal(logits(slots, texts), said)
    assert [p for group in optimizer.param_groups for p in group["params"]] == [slots.weight]
    assert set(optimizer.state) == {slots.weight}
    for name, value in optimizer.state[slots.weight].items():
        rows = len(before) if value.dim() else None
        assert torch.equal(value[:rows] if rows else value, state[name]), name
        assert rows is None or not value[rows:].any(), name
    train(slots, optimizer, NEW)
    assert slots(torch.tensor(NEW)).abs().sum(1).min() > 0, "new rows are trained"
    with torch.no_grad():
        slots.weight[slots.row_E[NEW]] = 1.0
    assert not torch.equal(logits(slots, texts), said), "null control: rows that are not zero change what is said"


def test_rows_that_grew_are_trained_as_if_they_had_been_there_from_the_start() -> None:
    ends = []
    for grows in (True, False):
        slots = slots_of(*OLD, *(() if grows else NEW))
        optimizer = OPTIMIZERS["adamw"](slots)
        train(slots, optimizer, OLD)
        for entity in NEW:
            slots.want(entity)
        slots.grow(optimizer)
        train(slots, optimizer, OLD + NEW)
        ends.append(slots(torch.tensor(OLD + NEW)))
    assert torch.equal(*ends)


def test_with_a_lazy_optimizer_training_new_rows_leaves_old_ones_alone_and_adamw_does_not() -> None:
    for kind, stays in (("lazy", True), ("adamw", False)):
        slots = slots_of(*OLD, sparse=kind == "lazy")
        optimizer = OPTIMIZERS[kind](slots)
        train(slots, optimizer, OLD)
        for entity in NEW:
            slots.want(entity)
        slots.grow(optimizer)
        before = slots(torch.tensor(OLD))
        train(slots, optimizer, NEW)
        assert torch.equal(slots(torch.tensor(OLD)), before) is stays


def test_who_has_no_row_reads_zeros_and_learns_nothing() -> None:
    slots = slots_of(*OLD)
    found = slots(torch.tensor([[0, 99], [5, -1]]))
    assert found.shape == (2, 2, 8)
    assert not found.any()
    found.sum().backward()
    assert not slots.weight.grad.any()
    with pytest.raises(ValueError, match="begin with 1"):
        slots.want(0)


def test_a_registry_says_who_needs_a_row() -> None:
    slots = EntitySlots(8)
    registry = EntityRegistry(on_new_entity=slots.want)
    cat = registry.get_or_create("cat")
    registry.get_or_create("cat")
    assert slots.num_slots == 0, "nothing grows while texts are read"
    assert (slots.grow(), slots.grow(), slots.num_slots) == (1, 0, 1)
    assert slots.owner_S[slots.row_E[cat]] == cat


def test_rows_of_the_forgotten_are_zero_and_go_to_others() -> None:
    slots = slots_of(*OLD)
    optimizer = OPTIMIZERS["adamw"](slots)
    train(slots, optimizer, OLD)
    row, size = int(slots.row_E[3]), len(slots.weight)
    assert slots.drop([3, 99], optimizer) == 1
    assert not slots.weight[row].any()
    assert not any(value[row].any() for value in optimizer.state[slots.weight].values() if value.dim())
    for entity in range(10, 10 + size - 1 - slots.num_slots):
        slots.want(entity)
    slots.grow(optimizer)
    assert len(slots.weight) == size
    assert slots.row_E[10] == row


def test_an_optimizer_of_something_else_is_refused_and_nothing_changes() -> None:
    slots = slots_of(*OLD)
    before, other = slots.weight, torch.optim.AdamW(nn.Linear(2, 2).parameters())
    for entity in NEW:
        slots.want(entity)
    with pytest.raises(ValueError, match="does not train these rows"):
        slots.grow(other)
    assert (slots.weight is before, slots.num_slots) == (True, len(OLD))
    assert slots.grow() == len(NEW)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_what_is_saved_goes_on_as_if_nothing_had_happened(kind: str, tmp_path: Path) -> None:
    slots = slots_of(*OLD, *NEW, sparse=kind == "lazy")
    optimizer = OPTIMIZERS[kind](slots)
    train(slots, optimizer, OLD)
    slots.save(tmp_path / "one", optimizer, {"step": torch.tensor(3)})
    again = slots_of(1, sparse=kind == "lazy")
    other = OPTIMIZERS[kind](again)
    train(again, other, [1])
    assert int(again.load(tmp_path / "one", other)["step"]) == 3
    for one, its in ((slots, optimizer), (again, other)):
        train(one, its, NEW)
    slots.save(tmp_path / "one", optimizer)
    again.save(tmp_path / "two", other)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_files_that_are_something_else_are_refused_in_one_line(tmp_path: Path) -> None:
    slots = slots_of(*OLD)
    (tmp_path / "text").write_text("no table at all")
    with pytest.raises(ValueError, match="holds no entity slots"):
        slots.load(tmp_path / "text")
    EntitySlots(4).save(tmp_path / "narrow")
    with pytest.raises(ValueError, match="rows of 4 numbers, 8 are wanted"):
        slots.load(tmp_path / "narrow")
    with pytest.raises(FileNotFoundError):
        slots.load(tmp_path / "none")
    assert slots.num_slots == len(OLD)


WORKER = """
import sys
from pathlib import Path
import torch
from ulm.memory.registry.slots import EntitySlots
path, rounds = Path(sys.argv[1]), int(sys.argv[2])
slots = EntitySlots(64)
optimizer = torch.optim.AdamW(slots.parameters(), lr=0.1)
at = int(slots.load(path, optimizer)["round"]) if path.exists() else 0
for at in range(at, rounds):
    print(at, flush=True)
    for entity in range(1, 2 ** (at + 8)):
        slots.want(entity)
    slots.grow(optimizer)
    optimizer.zero_grad(set_to_none=True)
    ids = torch.arange(1, 2 ** (at + 8))
    ((slots(ids) - torch.sin(ids * 1.0)[:, None]) ** 2).sum().backward()
    optimizer.step()
    slots.save(path, optimizer, {"round": torch.tensor(at + 1)})
"""


@pytest.mark.process
def test_a_training_that_is_killed_while_it_grows_resumes_equal(tmp_path: Path) -> None:
    def start(path: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", WORKER, str(path), "8"], stdout=subprocess.PIPE)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait() == 0
    for late_s in (0.0, 0.004, 0.02):
        child = start(killed)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(late_s)
        child.kill()
        child.communicate()
    assert start(killed).wait() == 0
    assert killed.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "killed"}
