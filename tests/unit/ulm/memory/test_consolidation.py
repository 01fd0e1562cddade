"""What recurs stays, what was contradicted goes, what does not pass its test changes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch

from ulm.config import LTMConfig
from ulm.memory import LTMState
from ulm.memory.consolidation import ConsolidationConfig, Consolidator, Readers, bytes_each, consolidate, due
from ulm.memory.ltm import LTM
from ulm.memory.state import Staged

CONFIG = LTMConfig(layers=(0,), n_head=2, head_size=8, capacity=16, segment=4, threshold_bits=0.5, slots=8)
READERS = Readers.of(LTM(CONFIG, 8, 1e-5))
NAMES = 40
RULES = ConsolidationConfig()


def vectors(seed: int) -> torch.Tensor:
    """Keys, or values, that have nothing to do with each other, of length 1 per head."""
    drawn = torch.randn(NAMES, 2, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1).flatten(1)


KEYS, VALUES = vectors(1), vectors(2)


def remembered(notes: Sequence[tuple[int, int]], config: LTMConfig = CONFIG, rows: int = 1) -> LTMState:
    """A memory into which notes (key, value) were written, the oldest first."""
    state = LTMState.empty(config, rows)
    for number, (key, value) in enumerate(notes):
        state.keys_BMX[:, number], state.values_BMX[:, number] = KEYS[key], VALUES[value]
        state.position_BM[:, number] = number
        state.used_BM[:, number] = number
        state.surprisal_BM[:, number] = 8.0
        state.tokens_BMN[:, number, -1] = value
    return dataclasses.replace(state, clock_B=state.clock_B + len(notes))


def answered(state: LTMState, key: int) -> int | None:
    """The number of the value nearest to what a key reads; None where nothing is read."""
    there = state.position_BM[0] >= 0
    heads = (state.keys_BMX[0, there].view(-1, 2, 8) * KEYS[key].view(2, 8)).sum(-1)
    weights = ((heads - 1) * 20 + state.beta_BMG[0, there]).exp() * (heads > CONFIG.similarity)
    if not weights.any():
        return None
    read = (weights[..., None] * state.values_BMX[0, there].view(-1, 2, 8)).sum(0).flatten()
    return int((VALUES @ read).argmax())


def others(count: int, start: int = 10) -> list[tuple[int, int]]:
    """Notes that have nothing to do with the first ones."""
    return [(start + number, start + number) for number in range(count)]


def test_what_recurs_becomes_one_slot_that_says_how_often() -> None:
    after, report = consolidate(remembered([(0, 0), (1, 1), (0, 0), (0, 0), *others(4)]), CONFIG, READERS)
    assert report.accepted
    assert (report.merged, report.conflicts, report.slots, report.items) == (2, 0, 2, 4)
    assert sorted(after.members_BM[0].tolist()) == [0] * (CONFIG.places - 2) + [1, 3]
    assert (answered(after, 0), answered(after, 1)) == (0, 1)


def test_the_latest_of_values_that_differ_is_right() -> None:
    before = remembered([(0, 0), (0, 5), (1, 1), *others(4)])
    after, report = consolidate(before, CONFIG, READERS)
    assert report.conflicts == 1
    assert answered(after, 0) == 5
    held = after.values_BMX[0, after.position_BM[0] >= 0]
    assert not any(torch.allclose(value, VALUES[0], atol=0.1) for value in held)
    # What is said again later ends a slot, too.
    again, report = consolidate(remembered([(0, 5), (1, 1), (0, 7), *others(2)]), CONFIG, READERS)
    assert (report.conflicts, answered(again, 0)) == (1, 7)


def test_the_latest_items_stay_as_they_are() -> None:
    before = remembered([(0, 0), (1, 1), (2, 2), (3, 3), *others(4)])
    after, report = consolidate(before, CONFIG, READERS, ConsolidationConfig(keep=0.5))
    assert report.items == 4
    for name, tensor in before.tensors().items():
        if "_BM" in name:
            assert torch.equal(tensor[0, 4:8], after.tensors()[name][0, 4:8]), name


def test_slots_stay_when_new_items_push_out_old_ones() -> None:
    state, _ = consolidate(remembered([(0, 0), (1, 1), *others(2)]), CONFIG, READERS)
    ltm = LTM(CONFIG, 8, 1e-5)
    for part in range(6):
        notes = torch.arange(14 + 4 * part, 18 + 4 * part)
        staged = Staged(
            KEYS[notes % NAMES][None], VALUES[notes % NAMES][None], torch.full((1, 4), 9.0),
            torch.zeros(1, 4, 8, dtype=torch.long), torch.ones(1, 4, dtype=torch.bool), torch.tensor([4]),
            torch.zeros(1, CONFIG.places, dtype=torch.long),
        )  # fmt: skip
        state, _ = ltm.write(state, staged)
    item = (state.position_BM[0] >= 0) & (state.members_BM[0] == 0)
    assert int(item.sum()) == CONFIG.capacity
    assert (answered(state, 0), answered(state, 1)) == (0, 1)
    assert answered(state, 10) is None  # stayed an item, and was pushed out


def test_there_are_never_more_slots_than_places_for_them() -> None:
    small = dataclasses.replace(CONFIG, slots=3)
    after, report = consolidate(remembered(others(16, 0), small), small, READERS)
    assert (report.slots, report.pruned) == (3, 5)
    assert [answered(after, key) for key in range(8)] == [None] * 5 + [5, 6, 7]


def test_what_later_questions_need_costs_most_to_lose() -> None:
    """Of old items, the one whose key was asked again later stays, although others are newer."""
    small = dataclasses.replace(CONFIG, slots=1)
    near = KEYS[0] + 0.4 * KEYS[30]
    before = remembered([(0, 0), (1, 1), (2, 2), (3, 3), *others(4)], small)
    before.keys_BMX[0, 4] = torch.nn.functional.normalize(near.view(2, 8), dim=-1).flatten()
    before.values_BMX[0, 4] = VALUES[0]
    for prune, kept in (("age", 3), ("cost", 0)):
        rules = ConsolidationConfig(prune=prune, gate=False)  # type: ignore[arg-type]
        after, report = consolidate(before, small, READERS, rules)
        assert report.slots == 1
        assert torch.allclose(after.values_BMX[0, after.members_BM[0] > 0], VALUES[kept], atol=0.01)


def test_a_slot_takes_three_tenths_of_an_item_and_reads_back_bit_for_bit() -> None:
    before = remembered(others(16, 0))
    after, report = consolidate(before, CONFIG, READERS)
    data = after.to_bytes()
    again = LTMState.from_bytes(data, CONFIG)
    for name, tensor in after.tensors().items():
        there = after.position_BM[0] >= 0
        ours, theirs = (x[:, there] if "_BM" in name else x for x in (tensor, again.tensors()[name]))
        assert torch.equal(ours.nan_to_num(), theirs.nan_to_num()), name
    assert again.to_bytes() == data
    item, slot = bytes_each(CONFIG)
    real = LTMConfig(layers=(2,), n_head=2, head_size=64, slots=8)
    assert 0.28 < bytes_each(real)[1] / bytes_each(real)[0] < 0.32
    saved = len(before.to_bytes()) - len(data)
    assert saved > report.slots * (item - slot)  # whole numbers are shorter, too


def test_a_memory_without_slots_is_written_as_ever() -> None:
    plain = dataclasses.replace(CONFIG, slots=None)
    notes = others(5, 0)
    data = remembered(notes, plain).to_bytes()
    assert data == remembered(notes).to_bytes()
    assert b"members" not in data
    assert torch.equal(LTMState.from_bytes(data, plain).keys_BMX[0, :5], KEYS[:5])


def test_items_are_not_merged_where_that_answers_later_questions_worse() -> None:
    """Told that all keys are the same, it would keep a single note; but old ones were right when asked again."""
    before = remembered([(0, 0), (1, 1), (2, 2), (3, 3), (20, 20), (1, 1), (21, 21), (2, 2)])
    wrong = ConsolidationConfig(same_key=-0.99)
    after, report = consolidate(before, CONFIG, READERS, wrong)
    assert not report.accepted
    assert report.right < report.right_plain <= report.questions
    assert (report.items, report.slots) == (4, 4)
    assert [answered(after, key) for key in range(4)] == [0, 1, 2, 3]
    forced, report = consolidate(before, CONFIG, READERS, dataclasses.replace(wrong, gate=False))
    assert report.accepted
    assert answered(forced, 0) is None


def test_it_is_a_function_of_its_arguments() -> None:
    before = remembered([(0, 0), (1, 1), (0, 0), (0, 3), *others(6)])
    data = before.to_bytes()
    first, second = (consolidate(before, CONFIG, READERS) for _ in range(2))
    assert first[1] == second[1]
    assert first[0].to_bytes() == second[0].to_bytes()
    assert before.to_bytes() == data


def test_rows_are_consolidated_when_they_are_nearly_full() -> None:
    full, half = remembered(others(15, 0)), remembered(others(8, 0))
    both = LTMState.join([full, half])
    assert due(both, CONFIG, RULES).tolist() == [True, False]
    consolidator = Consolidator(LTM(CONFIG, 8, 1e-5))
    after = consolidator(both)
    assert len(consolidator.reports) == 1
    assert after.select(slice(1, 2)).to_bytes() == half.to_bytes()
    assert after.select(slice(0, 1)).to_bytes() == consolidate(full, CONFIG, READERS)[0].to_bytes()
    assert not due(after, CONFIG, RULES).any()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="one memory at a time"):
        consolidate(remembered(others(2), rows=2), CONFIG, READERS)
    plain = dataclasses.replace(CONFIG, slots=None)
    with pytest.raises(ValueError, match="set slots"):
        consolidate(remembered(others(2), plain), plain, READERS)
    with pytest.raises(ValueError, match="slots must be a whole number"):
        dataclasses.replace(CONFIG, slots=-1)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"keep": 0}, "keep must be a number above 0"),
        ({"mass": "all"}, "mass must be one of one, members, fitted"),
        ({"recurring": 0}, "recurring must be a whole number"),
        ({"sleep": 1}, "unknown key 'sleep'; known: at, keep"),
    ],
)
def test_rules_out_of_range_are_refused(bad: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ConsolidationConfig.from_dict(bad)
