"""Memories outside a model: bytes that hold all of one, and files of which a killed run finds the right one."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from swarm.agents.ltm_files import KEPT_EPISODES, KEPT_TICKS, MemoryStore
from swarm.errors import SwarmError
from ulm.config import LTMConfig
from ulm.memory.state import SHOWN_TOKENS, LTMState

CONFIG = LTMConfig(layers=(0, 2), n_head=2, head_size=4, capacity=6, segment=8)
MEMORIES = {"a0": b"\x00\x01 first", "a1": b"second", "a10": bytes(range(256))}


def memory(items: int, config: LTMConfig = CONFIG, rows: int = 1) -> LTMState:
    """Return memories with some items of random content and no slots, as `LTM.write` leaves them."""
    generator = torch.Generator().manual_seed(items)
    blank = LTMState.empty(config, rows)

    def some(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return torch.randn(tensor.shape, generator=generator)
        return torch.randint(0, 50, tensor.shape, generator=generator)

    found = {}
    for field in fields(LTMState):
        tensor = getattr(blank, field.name).clone()
        if "_BM" in field.name and field.name not in ("members_BM", "beta_BMG"):
            tensor[:, :items] = some(tensor[:, :items])
        elif "_BM" not in field.name:
            tensor = some(tensor)
        found[field.name] = tensor
    return LTMState(**found)


def assert_equal(a: LTMState, b: LTMState) -> None:
    for field in fields(LTMState):
        here, there = getattr(a, field.name), getattr(b, field.name)
        assert here.dtype == there.dtype, field.name
        assert torch.equal(here.nan_to_num(-7.0), there.nan_to_num(-7.0)), field.name


# ---- one memory as bytes


@pytest.mark.parametrize("items", [0, 1, 4, CONFIG.capacity])
def test_a_memory_comes_back_from_its_bytes_as_it_was(items: int) -> None:
    state = memory(items)
    assert_equal(LTMState.from_bytes(state.to_bytes(), CONFIG), state)


def test_unknown_surprisals_and_missing_tokens_survive() -> None:
    state = memory(3)
    state.recent_BS[0, 2:] = math.nan
    state.tokens_BMN[0, 0, : SHOWN_TOKENS - 1] = -1
    back = LTMState.from_bytes(state.to_bytes(), CONFIG)
    assert back.recent_BS.isnan().tolist() == [[False, False, *[True] * 6]]
    assert_equal(back, state)


def test_half_precision_memories_stay_in_half_precision() -> None:
    state = memory(2)
    state = replace(state, keys_BMX=state.keys_BMX.bfloat16(), values_BMX=state.values_BMX.bfloat16())
    back = LTMState.from_bytes(state.to_bytes(), CONFIG)
    assert_equal(back, state)


def test_what_no_item_holds_is_not_written() -> None:
    state = memory(2)
    state.keys_BMX[:, 2:] = 3.0  # left over from items that are gone
    assert len(state.to_bytes()) == len(memory(2).to_bytes()) < len(memory(6).to_bytes())
    assert LTMState.from_bytes(state.to_bytes(), CONFIG).keys_BMX[:, 2:].abs().sum() == 0


def test_several_memories_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="one memory at a time is written, got 2"):
        memory(2, rows=2).to_bytes()


@pytest.mark.parametrize(
    "other",
    [
        replace(CONFIG, capacity=3),
        replace(CONFIG, segment=16),
        replace(CONFIG, segment=1),
        replace(CONFIG, head_size=8),
        replace(CONFIG, layers=(0,)),
        replace(CONFIG, n_head=1, head_size=1, layers=(1,)),
    ],
)
def test_a_memory_of_another_configuration_is_refused_both_ways(other: LTMConfig) -> None:
    with pytest.raises(ValueError, match="no memory of the model's configuration"):
        LTMState.from_bytes(memory(5).to_bytes(), other)
    if other.capacity == CONFIG.capacity:
        with pytest.raises(ValueError, match="no memory of the model's configuration"):
            LTMState.from_bytes(memory(5, other).to_bytes(), CONFIG)


def _changed(**changes: Tensor | None) -> bytes:
    tensors = {**load(memory(2).to_bytes()), **changes}
    return bytes(save({name: tensor for name, tensor in tensors.items() if tensor is not None}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no safetensors at all",
        memory(2).to_bytes()[:-1],
        memory(2).to_bytes()[:40],
        _changed(keys_BMX=None),
        _changed(clock_B=None),
        _changed(keys_BMX=torch.zeros(3)),
        _changed(position_BM=torch.tensor(3)),
        _changed(reads_BM=torch.zeros(1, 1, dtype=torch.long)),
        _changed(surprisal_BM=torch.zeros(1, 2, dtype=torch.long)),
        _changed(recent_BS=torch.zeros(2, CONFIG.segment)),
        _changed(stranger=torch.zeros(1)),
    ],
)
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no memory of the model's configuration"):
        LTMState.from_bytes(data, CONFIG)


# ---- files of a run


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    return MemoryStore(tmp_path / "memory")


def names(store: MemoryStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def test_memories_come_back_as_they_were_saved(store: MemoryStore) -> None:
    store.save(3, 12, MEMORIES)
    store.save(4, 0, {})
    assert store.load(3, 12) == MEMORIES
    assert store.load(4, 0) == {}
    assert store.episodes() == {3: [12], 4: [0]}


def test_a_run_that_saved_nothing_has_no_memories(store: MemoryStore) -> None:
    assert store.episodes() == {}


def test_ticks_and_episodes_are_sorted_as_numbers(store: MemoryStore) -> None:
    for episode, tick in ((10, 0), (2, 9), (2, 10)):
        store.save(episode, tick, MEMORIES)
    assert list(store.episodes().items()) == [(2, [9, 10]), (10, [0])]


@pytest.mark.parametrize("durability", ["tick", "group"])
def test_as_many_ticks_are_kept_as_a_crash_may_take_back(tmp_path: Path, durability: str) -> None:
    store, kept = MemoryStore(tmp_path / "memory", durability), KEPT_TICKS[durability]
    store.save(7, 0, {"a0": b"another episode"})
    for tick in range(kept + 3):
        store.save(1, tick, {"a0": b"%d" % tick})
    assert store.episodes() == {1: list(range(3, kept + 3)), 7: [0]}
    assert store.load(1, 3) == {"a0": b"3"}


def test_the_tick_before_the_last_is_kept_for_a_run_killed_between_memory_and_record() -> None:
    assert min(KEPT_TICKS.values()) >= 2


def test_a_tick_that_is_played_again_replaces_its_memories(store: MemoryStore) -> None:
    store.save(0, 5, MEMORIES)
    store.save(0, 5, {"a0": b"again"})
    assert store.load(0, 5) == {"a0": b"again"}


def test_a_file_that_was_never_finished_is_no_memory_and_in_nobodys_way(store: MemoryStore) -> None:
    store.save(0, 0, MEMORIES)
    (store.folder / "e0-t1.safetensors.7.new").write_bytes(b"half a file")
    (store.folder / "notes.safetensors").write_bytes(b"not ours")
    (store.folder / "exx-t1.safetensors").write_bytes(b"not ours")
    assert store.episodes() == {0: [0]}
    store.save(0, 1, {"a0": b"whole"})
    assert store.load(0, 1) == {"a0": b"whole"}
    store.end_episode(0)
    assert "e0-t1.safetensors.7.new" not in names(store)


def test_a_save_that_fails_leaves_the_memories_before_it(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(0, 0, MEMORIES)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SwarmError, match=r"cannot write .*e0-t1.*No space left on device; check space"):
        store.save(0, 1, {"a0": b"new"})
    assert store.episodes() == {0: [0]}
    assert store.load(0, 0) == MEMORIES


def test_an_ended_episode_keeps_its_last_memories_and_so_do_a_few_before_it(store: MemoryStore) -> None:
    for episode in range(KEPT_EPISODES + 2):
        for tick in range(3):
            store.save(episode, tick, {"a0": b"%d %d" % (episode, tick)})
        store.end_episode(episode, ())
    last = KEPT_EPISODES + 1
    assert store.episodes() == {episode: [2] for episode in range(last - KEPT_EPISODES + 1, last + 1)}
    assert store.load(last, 2) == {"a0": b"%d 2" % last}


def test_an_episode_that_ends_before_earlier_ones_takes_nothing_from_those_in_flight(store: MemoryStore) -> None:
    for episode in range(10):
        store.save(episode, 4, MEMORIES)
        store.save(episode, 5, MEMORIES)
    store.end_episode(9, in_flight=range(9))
    assert store.episodes() == {**{episode: [4, 5] for episode in range(9)}, 9: [5]}
    store.end_episode(8, in_flight=[0, 3])
    assert store.episodes() == {0: [4, 5], 3: [4, 5], 5: [4, 5], 6: [4, 5], 7: [4, 5], 8: [5], 9: [5]}


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "garbage"])
def test_missing_or_damaged_memories_are_one_clear_line(store: MemoryStore, damage: str) -> None:
    store.save(0, 3, MEMORIES)
    path = store.folder / "e0-t3.safetensors"
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": whole[:-5], "garbage": b"x" * 99}[damage])
    with pytest.raises(SwarmError, match=r"e0-t3\.safetensors is missing or damaged .* start a new run") as error:
        store.load(0, 3)
    assert len(str(error.value).splitlines()) == 1
