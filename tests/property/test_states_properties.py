"""Training states: any tensors come back bit for bit, through any series of changes, and only what is needed stays."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ulm.train.objects import Entry, ObjectStore
from ulm.train.states import RollingStates

pytestmark = pytest.mark.usefixtures("one_thread")

TYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64,
]  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any bits, NaNs of all kinds among them; in runs and in noise; some are packed, some whole, some cut."""
    dtype = draw(st.sampled_from(TYPES))
    shape = draw(
        st.one_of(
            st.lists(st.integers(0, 7), max_size=4),
            st.sampled_from([[130, 130], [3, 700, 131], [300_001], [1, 1_100_000 // 4], [5, 0, 9]]),
        )
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    most = draw(st.sampled_from([1, 2, 256]))
    items = torch.Size(shape).numel()
    if dtype == torch.bool:
        return torch.randint(0, 2, (items,), generator=generator).bool().reshape(shape)
    raw = torch.randint(0, most, (items * dtype.itemsize,), generator=generator, dtype=torch.uint8)
    return raw.view(dtype).reshape(shape) if items else torch.empty(shape, dtype=dtype)


def same_bits(a: Tensor, b: Tensor) -> bool:
    bits = [value.contiguous().reshape(-1).view(torch.uint8) for value in (a, b)]
    return (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(*bits)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), tensors(), max_size=6))
def test_any_tensors_come_back_bit_for_bit(extra: dict[str, Tensor]) -> None:
    with tempfile.TemporaryDirectory() as name:
        model = nn.Linear(2, 2)
        RollingStates(Path(name)).save(1, model, torch.optim.SGD(model.parameters()), {}, extra)
        saved = RollingStates(Path(name)).load(model)
    assert saved is not None
    assert saved.extra.keys() == extra.keys()
    assert all(same_bits(saved.extra[key], value) for key, value in extra.items())


changes = st.tuples(
    st.sampled_from(["rows", "all", "none", "back", "zero"]), st.integers(0, 2**32), st.booleans(), st.booleans()
)


@settings(max_examples=40, deadline=None)
@given(st.lists(changes, min_size=1, max_size=9))
def test_a_table_comes_back_after_any_changes(steps: list[tuple[str, int, bool, bool]]) -> None:
    """Few rows, all, none, an earlier table again; by one process or another, which read the last state or not."""
    with tempfile.TemporaryDirectory() as name:
        store, table = ObjectStore(Path(name)), torch.zeros(6000, 64)
        kept: list[tuple[Tensor, dict[str, Entry], list[str]]] = []
        for kind, seed, other, read in steps:
            generator = torch.Generator().manual_seed(seed)
            if kind == "back" and kept:
                table = kept[seed % len(kept)][0]
            elif kind == "zero":
                table = torch.zeros_like(table)
            elif kind != "none":
                rows = torch.arange(6000) if kind == "all" else torch.randint(0, 6000, (40,), generator=generator)
                table = table.clone()
                table[rows] += torch.randn(len(rows), 64, generator=generator)
            before = kept[-1][1] if kept else {}
            if other:
                store = ObjectStore(Path(name))
                if read and kept:
                    store.read(before)
            entries = store.write({"t": table}, before)
            kept = [*kept[-1:], (table, entries, store.bases(entries.values()))]
            store.keep({name for _, of, bases in kept for name in [*of["t"].objects, *bases]})
            for expected, of, _ in kept:
                assert torch.equal(ObjectStore(Path(name)).read(of)["t"], expected)
