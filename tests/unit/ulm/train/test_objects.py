"""Objects: what is written and what is not, how much of it, and that damage is always found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import zstandard
from torch import Tensor

from ulm.train.objects import BLOCK_BYTES, DamagedObjectError, Entry, ObjectStore, packed, unpacked

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def table(rows: int = 16_384, seed: int = 0) -> Tensor:
    """A table of 4 MiB, if not told otherwise."""
    return noise(rows, 64, seed=seed)


def files(store: ObjectStore) -> dict[str, tuple[int, int]]:
    """Size and number of each file; another file under the same name has another number."""
    return {path.name: (path.stat().st_size, path.stat().st_ino) for path in store.folder.glob("*")}


def written(store: ObjectStore, tensors: Mapping[str, Tensor], before: Mapping[str, Entry]) -> tuple[int, int]:
    """Write tensors; how many files that made, and of how many bytes."""
    there = files(store)
    store.write(tensors, before)
    fresh = [found for name, found in files(store).items() if there.get(name) != found]
    return len(fresh), sum(size for size, _ in fresh)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


# ---- what comes back


@pytest.mark.parametrize(
    "tensor",
    [
        noise(7, 5),
        noise(7, 5).to(torch.bfloat16),
        noise(7, 5).half(),
        noise(7, 5).to(torch.float8_e4m3fn),
        noise(3).double(),
        torch.tensor([2**62, -1]),
        torch.tensor([True, False, True]),
        torch.arange(256, dtype=torch.uint8),
        torch.tensor(1.5),
        torch.zeros(0, 3),
        torch.zeros(2, 0, dtype=torch.int64),
        noise(4, 6).T,
        torch.tensor([float("nan"), float("inf"), -0.0]),
        noise(5, 300, 1000),
        noise(2, 2**19),
        noise(BLOCK_BYTES // 4 + 1),
    ],
    ids=lambda tensor: f"{tensor.dtype}{list(tensor.shape)}".removeprefix("torch."),
)
def test_a_tensor_comes_back_bit_for_bit_to_another_process(store: ObjectStore, tensor: Tensor) -> None:
    entries = store.write({"t": tensor}, {})
    (found,) = ObjectStore(store.folder).read(entries).values()
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    bits = [value.contiguous().reshape(-1).view(torch.uint8) for value in (found, tensor)]
    assert torch.equal(*bits)


def test_an_object_is_named_after_its_bytes(store: ObjectStore) -> None:
    entries = store.write({"t": noise(9)}, {})
    assert entries["t"].objects == (hashlib.sha256(noise(9).numpy().tobytes()).hexdigest(),)
    assert [path.name for path in store.folder.iterdir()] == list(entries["t"].objects)


def test_equal_bytes_are_one_file_whatever_their_type(store: ObjectStore) -> None:
    tensors = {"a": torch.zeros(8), "b": torch.zeros(4, dtype=torch.int64), "c": torch.zeros(2, 4)}
    found = store.read(store.write(tensors, {}))
    assert len(files(store)) == 1
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in tensors.items())


# ---- what is written


def test_what_did_not_change_is_not_written_again(store: ObjectStore) -> None:
    tensors = {"a": noise(100, seed=1), "b": noise(100, seed=2)}
    before = store.write(tensors, {})
    assert written(store, tensors, before) == (0, 0)
    assert written(store, {**tensors, "b": noise(100, seed=3)}, before)[0] == 1


def test_what_was_read_is_not_written_again(store: ObjectStore) -> None:
    entries = store.write({"a": noise(100)}, {})
    again = ObjectStore(store.folder)
    again.read(entries)
    assert written(again, {"a": noise(100)}, entries) == (0, 0)


@pytest.mark.parametrize("damage", ["gone", "shorter"])
def test_an_object_that_is_not_as_it_was_is_written_again(store: ObjectStore, damage: str) -> None:
    entries = store.write({"a": noise(100)}, {})
    path = store.folder / entries["a"].objects[0]
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-1])
    assert written(store, {"a": noise(100)}, entries)[0] == 1
    assert torch.equal(ObjectStore(store.folder).read(entries)["a"], noise(100))


def test_what_another_process_left_is_not_trusted(store: ObjectStore) -> None:
    entries = store.write({"a": noise(100)}, {})
    path = store.folder / entries["a"].objects[0]
    path.write_bytes(bytes(len(path.read_bytes())))
    other = ObjectStore(store.folder)
    other.write({"a": noise(100)}, {})
    assert torch.equal(other.read(entries)["a"], noise(100))


def test_a_large_table_is_cut_into_blocks_and_only_the_changed_one_is_written(store: ObjectStore) -> None:
    here = table()
    before = store.write({"t": here}, {})
    assert len(before["t"].objects) == 4
    here[5000:7000] = noise(2000, 64, seed=9)
    count, size = written(store, {"t": here}, before)
    assert count == 1
    assert size < BLOCK_BYTES


def test_a_tensor_of_up_to_one_mebibyte_is_whole(store: ObjectStore) -> None:
    entries = store.write({"whole": table(4096), "cut": table(4097)}, {})
    assert [len(entries[name].objects) for name in ("whole", "cut")] == [1, 2]


def test_weights_are_smaller_than_raw_thanks_to_byte_planes(store: ObjectStore) -> None:
    weights = table() * 0.02
    _, size = written(store, {"t": weights}, {})
    plain = len(zstandard.compress(weights.numpy().tobytes(), 3))
    assert size < 0.88 * weights.numel() * 4
    assert size < 0.95 * plain


# ---- differences


def sparse_steps(
    store: ObjectStore, steps: int, rows: int = 100, size: int = 16_384
) -> list[tuple[Tensor, dict[str, Entry], int]]:
    """Change few rows all over a table, and write it after each step: the table, its entry, bytes written."""
    here, before, found = table(size), {}, []
    for step in range(steps):
        there = files(store)
        chosen = torch.randperm(len(here), generator=torch.Generator().manual_seed(step))[:rows]
        here[chosen] += 0.01
        before = store.write({"t": here}, before)
        found.append((here.clone(), before, sum(files(store)[name][0] for name in files(store).keys() - there)))
    return found


def test_few_changed_rows_in_every_block_cost_little(store: ObjectStore) -> None:
    (_, first, full), (here, second, size) = sparse_steps(store, 2)
    assert not set(first["t"].objects) & set(second["t"].objects)
    assert size < 0.02 * full
    assert store.bases(second.values()) == sorted(first["t"].objects)
    assert torch.equal(ObjectStore(store.folder).read(second)["t"], here)


def test_no_difference_depends_on_another_one(store: ObjectStore) -> None:
    *_, (here, last, _) = sparse_steps(store, 6)
    bases = store.bases(last.values())
    store.keep({*last["t"].objects, *bases})
    assert len(files(store)) == 8
    again = ObjectStore(store.folder)
    assert torch.equal(again.read(last)["t"], here)
    assert again.bases(last.values()) == bases


def test_differences_that_have_grown_give_way_to_a_new_base(store: ObjectStore) -> None:
    steps = sparse_steps(store, 16, rows=375, size=4096)
    sizes, full = [size for *_, size in steps], steps[0][2]
    assert sizes[1] < 0.15 * full  # from the first table
    assert sum(size > 0.8 * full for size in sizes[1:]) == 1  # whole again, once
    assert sizes[-1] < 0.5 * full  # and differences from that
    assert torch.equal(ObjectStore(store.folder).read(steps[-1][1])["t"], steps[-1][0])


def test_a_table_that_changes_everywhere_is_whole_every_time(store: ObjectStore) -> None:
    before: dict[str, Entry] = {}
    for seed in range(3):
        before = store.write({"t": table(seed=seed)}, before)
        assert store.bases(before.values()) == []


def test_what_may_be_the_base_of_something_is_never_replaced_by_a_difference(store: ObjectStore) -> None:
    """The older of two kept states needs a base whose bytes come again, in a process that has read the newer alone."""
    (old, _, _), (changed, second, _) = sparse_steps(store, 2)
    other = ObjectStore(store.folder)
    near = old.clone()
    near[:5] += 1
    newer = other.write({"t": near}, {})
    other.write({"t": old}, newer)  # much like `near`, and the base of `second`
    assert torch.equal(ObjectStore(store.folder).read(second)["t"], changed)


def test_a_difference_whose_base_is_gone_is_written_again(store: ObjectStore) -> None:
    _, (here, second, _) = sparse_steps(store, 2)
    for base in store.bases(second.values()):
        (store.folder / base).unlink()
    again = store.write({"t": here}, second)
    assert torch.equal(ObjectStore(store.folder).read(again)["t"], here)


# ---- damage


def test_every_flipped_byte_and_every_cut_is_found(store: ObjectStore) -> None:
    entries = store.write({"t": torch.arange(12.0)}, {})
    path = store.folder / entries["t"].objects[0]
    data = path.read_bytes()
    damaged = [data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :] for at in range(len(data)) for flip in (1, 128)]
    for case in damaged + [data[:length] for length in range(len(data))]:
        path.write_bytes(case)
        try:
            found = ObjectStore(store.folder).read(entries)["t"]
        except DamagedObjectError:
            continue
        assert torch.equal(found, torch.arange(12.0))  # a bit of a frame's header that means nothing


def test_a_missing_object_is_named(store: ObjectStore) -> None:
    entries = store.write({"t": noise(9)}, {})
    (store.folder / entries["t"].objects[0]).unlink()
    with pytest.raises(DamagedObjectError, match=f"object {entries['t'].objects[0][:12]} is missing"):
        store.read(entries)


def test_a_damaged_base_is_found(store: ObjectStore) -> None:
    _, (_, second, _) = sparse_steps(store, 2)
    path = store.folder / store.bases(second.values())[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedObjectError, match="damaged"):
        ObjectStore(store.folder).read(second)


def test_an_object_that_asks_for_more_memory_than_its_tensor_has_is_refused(store: ObjectStore) -> None:
    entries = store.write({"t": noise(9)}, {})
    frame = zstandard.ZstdCompressor().compressobj(size=2**60)
    data = frame.compress(bytes(36)) + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    (store.folder / entries["t"].objects[0]).write_bytes(b"\x04" + data)
    with pytest.raises(DamagedObjectError, match="is damaged"):
        store.read(entries)


@pytest.mark.parametrize(
    "entry", [Entry("float33", (9,), ("a",)), Entry("load", (9,), ("a",)), Entry("float32", (9,), ())]
)
def test_an_entry_that_makes_no_sense_is_refused(store: ObjectStore, entry: Entry) -> None:
    with pytest.raises(DamagedObjectError):
        store.read({"t": entry})


def test_only_what_is_wanted_is_kept(store: ObjectStore) -> None:
    a, b = (store.write({"t": noise(9, seed=seed)}, {})["t"].objects[0] for seed in (1, 2))
    (store.folder / f"{a}.new").write_bytes(b"half")
    store.keep({b})
    assert set(files(store)) == {b}
    assert written(store, {"t": noise(9, seed=1)}, {})[0] == 1


# ---- packs


def test_small_tensors_are_joined_by_type_and_part_and_come_back() -> None:
    tensors = {
        "weight.a": noise(3, 2), "weight.b": torch.tensor(7), "weight.large": noise(300, 300), "weight.c": noise(0, 4),
        "extra.a": noise(2), "weight.d": torch.tensor(1.5),
    }  # fmt: skip
    found, layout = packed(tensors)
    assert set(found) == {"weight.large", "pack.weight.float32", "pack.weight.int64", "pack.extra.float32"}
    again = unpacked(found, layout)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], value) and again[name].dtype == value.dtype for name, value in tensors.items())
    del found["pack.extra.float32"]
    assert unpacked(found, layout).keys() == tensors.keys() - {"extra.a"}
