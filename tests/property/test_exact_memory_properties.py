"""Exact memory: lookups equal a search by hand, and do not depend on how a text is read."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ulm.memory.exact import NOTHING, ExactIndex

IDS = st.lists(st.integers(0, 2), min_size=1, max_size=4)
FACTS = st.dictionaries(IDS.map(tuple), IDS, max_size=6)
TEXT = st.lists(st.integers(-1, 2), min_size=1, max_size=24)


def searched(facts: dict[tuple[int, ...], list[int]], text: list[int]) -> int:
    """What follows a text: longest end first, then the shortest part of a value."""
    best = (0, 0, NOTHING)
    for key, value in facts.items():
        for told in range(len(value)):
            end = [*key, *value[:told]]
            if text[-len(end) :] == end:
                best = max(best, (len(end), -told, value[told]))
    return best[2]


@settings(max_examples=150, deadline=None)
@given(facts=FACTS, taken_back=FACTS, text=TEXT, last=st.integers(1, 24))
def test_lookup_equals_a_search_by_hand_however_the_text_is_read(
    facts: dict[tuple[int, ...], list[int]], taken_back: dict[tuple[int, ...], list[int]], text: list[int], last: int
) -> None:
    index = ExactIndex()
    for key, value in facts.items():
        index.add(key, value)
    for key, value in taken_back.items():
        if key not in facts:
            index.add(key, value)
            index.remove(key, value)
    last = min(last, len(text))
    expected = [searched(facts, text[: end + 1]) for end in range(len(text) - last, len(text))]
    assert index.following(np.array([text]), last)[0].tolist() == expected
    padded = np.array([[NOTHING] * 5 + text, [0] * 5 + text])
    assert index.following(padded, last)[0].tolist() == expected
    for end, wanted in zip(range(len(text) - last, len(text)), expected, strict=True):
        assert index.following(np.array([text[: end + 1]]), 1)[0, 0] == wanted
