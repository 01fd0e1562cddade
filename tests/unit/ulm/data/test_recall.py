"""Recall sequences: what is asked can be known from the sequence alone, at the distance that is claimed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from ulm.data.recall import RecallSequence, RecallTask, fits
from ulm.tokenizer import Tokenizer

KEYS, VALUES, FILLER, EOT = np.arange(100, 132), np.arange(200, 232), np.array([5, 6, 7]), 1
PAIRS, SPACING = 4, 10
TASK = RecallTask(KEYS, VALUES, FILLER, EOT, num_pairs=PAIRS, spacing=SPACING)
FITTING = [2, 5, 8, 12, 25, 38, 40, 41, 49, 50, 333]
UNFIT = [0, 1, 9, 10, 11, 19, 20, 29, 31]


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def is_filler(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a token is neither the first one nor of a pair."""
    found = ~np.isin(ids, np.concatenate((KEYS, VALUES)))
    found[0] = False
    return found


def told_and_asked(ids: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """The pairs of a sequence, in order, as they can be read off it."""
    for place in np.isin(ids, KEYS).nonzero()[0]:
        yield int(ids[place]), int(ids[place + 1])


# ---- sequences that are scored


@pytest.mark.parametrize("distance", FITTING)
def test_every_query_repeats_a_pair_at_the_exact_distance(distance: int) -> None:
    found = TASK.sequence(distance, generator(distance))
    assert found.asked.tolist() == [SPACING * (i + 1) + distance for i in range(PAIRS)]
    for place in (0, 1):  # the key, then its value
        assert found.ids[found.asked + place].tolist() == found.ids[found.asked - distance + place].tolist()
    assert np.isin(found.ids[found.asked], KEYS).all()
    assert np.isin(found.ids[found.asked + 1], VALUES).all()
    assert len(set(found.ids[found.asked].tolist())) == PAIRS


@pytest.mark.parametrize("distance", FITTING)
def test_no_pair_is_hit_by_a_query_and_the_rest_is_filler(distance: int) -> None:
    ids = TASK.sequence(distance, generator(0)).ids
    assert len(ids) == TASK.length(distance)
    assert (np.isin(ids, KEYS).sum(), np.isin(ids, VALUES).sum()) == (2 * PAIRS, 2 * PAIRS)
    assert ids[0] == EOT
    places = is_filler(ids).nonzero()[0]
    assert ids[places].tolist() == FILLER[places % len(FILLER)].tolist()
    assert len(places) == len(ids) - 1 - 4 * PAIRS
    assert np.isin(ids[-1], VALUES)  # no token is behind the last value


def test_a_distance_fits_if_no_query_would_touch_a_pair() -> None:
    pairs = {SPACING * (i + 1) + place for i in range(PAIRS) for place in (0, 1)}
    for distance in range(1, PAIRS * SPACING - 1):
        queries = {place + distance for place in pairs}
        assert fits(distance, PAIRS, SPACING) == (not pairs & queries), distance
    assert all(fits(distance, PAIRS, SPACING) for distance in range(PAIRS * SPACING, 3 * PAIRS * SPACING))


@pytest.mark.parametrize("distance", UNFIT)
def test_a_distance_at_which_queries_fall_on_pairs_is_refused(distance: int) -> None:
    with pytest.raises(ValueError, match=f"at distance {distance} queries fall on pairs that stand 10 apart"):
        TASK.sequence(distance, generator(0))


def test_text_is_filler_wherever_no_pair_stands() -> None:
    text = np.arange(1000, 1100, dtype=np.uint16)
    before = text.copy()
    found = TASK.sequence(25, generator(3), text)
    places = is_filler(found.ids).nonzero()[0]
    assert len(places) == len(found.ids) - 1 - 4 * PAIRS
    assert found.ids[places].tolist() == (1000 + places).tolist()
    assert found.ids.dtype == np.int64
    assert text.tolist() == before.tolist()


def test_text_and_quiet_filler_stand_around_the_same_pairs() -> None:
    text = np.arange(1000, 1100)
    noisy, quiet = TASK.sequence(25, generator(3), text), TASK.sequence(25, generator(3))
    assert list(told_and_asked(noisy.ids)) == list(told_and_asked(quiet.ids))


def test_text_shorter_than_the_sequence_is_refused() -> None:
    text = np.arange(1000, 1067)
    assert len(TASK.sequence(25, generator(0), text).ids) == 67
    with pytest.raises(ValueError, match="67 tokens of text are needed as filler, got 66"):
        TASK.sequence(25, generator(0), text[:-1])


def test_seeds_reproduce_sequences_and_others_differ() -> None:
    def ids(seed: int) -> list[int]:
        found: RecallSequence = TASK.sequence(25, generator(seed))
        return found.ids.tolist()

    assert ids(7) == ids(7)
    assert len({tuple(ids(seed)) for seed in range(20)}) == 20


def test_drawing_leaves_the_filler_of_the_task_alone() -> None:
    filler = np.arange(50, 150)
    task = RecallTask(KEYS, VALUES, filler, EOT, num_pairs=PAIRS, spacing=SPACING)
    task.sequence(25, generator(0))
    task.practice(generator(0), 80)
    assert filler.tolist() == list(range(50, 150))


def test_guessing_a_value_is_right_as_often_as_chance() -> None:
    drawn = [TASK.sequence(25, generator(seed)) for seed in range(1000)]
    right = np.concatenate([found.ids[found.asked + 1] == VALUES[3] for found in drawn])
    assert right.mean() == pytest.approx(1 / 32, abs=4 * (1 / 32 / len(right)) ** 0.5)


# ---- sequences to learn from


@pytest.mark.parametrize("seed", range(10))
def test_practice_asks_only_for_pairs_that_were_told_and_always_alike(seed: int) -> None:
    ids = TASK.practice(generator(seed), 300)
    pairs = list(told_and_asked(ids))
    known: dict[int, int] = {}
    for key, value in pairs:
        assert known.setdefault(key, value) == value
    assert len(pairs) > len(known) > 1  # some are asked for again
    assert np.isin(list(known.values()), VALUES).all()


@pytest.mark.parametrize("length", [3, 4, 5, 17, 300])
def test_practice_has_the_length_asked_for_and_filler_between_its_pairs(length: int) -> None:
    for seed in range(10):
        ids = TASK.practice(generator(seed), length)
        assert len(ids) == length
        assert ids[0] == EOT
        places = is_filler(ids).nonzero()[0]
        assert ids[places].tolist() == FILLER[places % len(FILLER)].tolist()
        assert np.isin(ids, KEYS).sum() == np.isin(ids, VALUES).sum()  # the last pair is whole


def test_practice_has_no_fixed_distances() -> None:
    ids = TASK.practice(generator(0), 2000)
    places = np.isin(ids, KEYS).nonzero()[0]
    assert len(set(np.diff(places).tolist())) > 3


def test_practice_goes_on_quietly_when_all_keys_were_told() -> None:
    task = RecallTask(KEYS[:2], VALUES, FILLER, EOT, num_pairs=1, spacing=SPACING)
    ids = task.practice(generator(0), 2000)
    assert {int(key) for key in ids if key in KEYS} == {100, 101}
    assert np.isin(ids[-100:], FILLER).all()


def test_practice_keeps_the_text_wherever_no_pair_stands() -> None:
    text = np.arange(1000, 1300)
    ids = TASK.practice(generator(1), 200, text)
    places = is_filler(ids).nonzero()[0]
    assert len(places) > 20
    assert ids[places].tolist() == (1000 + places).tolist()
    assert text.tolist() == list(range(1000, 1300))


def test_practice_refuses_a_text_that_is_too_short() -> None:
    with pytest.raises(ValueError, match="200 tokens of text are needed as filler, got 199"):
        TASK.practice(generator(1), 200, np.arange(199))


# ---- keys and values


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.bytes()


def test_keys_values_filler_and_special_tokens_are_all_different(tokenizer: Tokenizer) -> None:
    task = RecallTask.of(tokenizer, "and so on ", num_keys=120, num_values=100, num_pairs=3, spacing=9)
    keys, values = set(task.key_ids.tolist()), set(task.value_ids.tolist())
    assert (len(keys), len(values), task.num_pairs, task.spacing, task.eot_id) == (120, 100, 3, 9, 1)
    assert task.filler.tolist() == tokenizer.encode("and so on ")
    assert not keys & values
    assert not (keys | values) & {0, 1, 2, *task.filler.tolist()}


def test_end_of_text_and_padding_of_a_foreign_tokenizer_are_no_keys(tokenizer: Tokenizer) -> None:
    foreign = Tokenizer(tokenizer.inner, pad_id=200, eot_id=250)
    free = 259 - 3 - 2 - 1
    task = RecallTask.of(foreign, "a", num_keys=free - 1, num_values=1, num_pairs=1)
    assert task.eot_id == 250
    assert not {200, 250} & {*task.key_ids.tolist(), *task.value_ids.tolist()}


def test_the_seed_chooses_the_keys(tokenizer: Tokenizer) -> None:
    def keys(seed: int) -> list[int]:
        return RecallTask.of(tokenizer, "a", num_keys=20, num_values=20, seed=seed).key_ids.tolist()

    assert keys(1) == keys(1)
    assert keys(1) != keys(2)


@pytest.mark.parametrize(
    ("filler", "options", "message"),
    [
        ("", {}, "the filler has no tokens; give a sentence"),
        ("a", {"num_keys": 200, "num_values": 56}, "200 keys and 56 values need as many tokens, the tokenizer has 255"),
        ("a", {"num_keys": 7, "num_values": 9}, "8 pairs need as many different keys, there are 7"),
    ],
)
def test_a_task_that_cannot_be_made_is_refused(
    tokenizer: Tokenizer, filler: str, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RecallTask.of(tokenizer, filler, **options)
