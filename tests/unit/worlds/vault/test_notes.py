"""vault-v0: what is written in the rooms, and which vault asks for which note."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from fakes.vaults import VAULTS, new_vault, notes_of

from worlds import make
from worlds.vault.world import SENTENCES, WORDS


def test_there_are_four_hundred_words_and_none_is_taken_for_another_text():
    assert len(set(WORDS)) == len(WORDS) == 400
    said = {"note", "room", "page", "ask", "locked", "of", "no", "next", "wait", *" ".join(SENTENCES).split()}
    assert said.isdisjoint(WORDS)
    assert all(re.fullmatch(r"[a-z]{1,12}", word) for word in WORDS)


@pytest.mark.parametrize(("num_agents", "options"), VAULTS)
def test_every_asked_note_is_in_its_room_once_and_its_key_is_a_key_nowhere_else(num_agents, options):
    for seed in range(20):
        world = make("vault-v0", num_agents, options)
        world.reset(seed)
        o, asked = world.options, world.state()["asked"]
        keys = Counter(key for room in range(o.rooms) for key, _ in notes_of(world, room))
        assert set(keys.values()) == {1}
        assert len(keys) == o.rooms * o.pages * o.notes
        for room in range(o.rooms):
            assert notes_of(world, room).count(tuple(asked[room])) == 1


@pytest.mark.parametrize(("num_agents", "options"), VAULTS)
def test_every_page_has_its_notes_and_sentences_and_nothing_else(num_agents, options):
    world = make("vault-v0", num_agents, options)
    world.reset(3)
    for pages in world.state()["text"]:
        assert len(pages) == world.options.pages
        for page in pages:
            lines = page.removesuffix(" .").split(" . ")
            notes = [line for line in lines if re.fullmatch(r"note [a-z]+ [a-z]+", line)]
            assert len(notes) == world.options.notes
            assert len(lines) == world.options.notes + world.options.sentences
            assert all(line in SENTENCES for line in lines if line not in notes)


def test_place_of_the_asked_note_tells_nothing():
    places = Counter()
    for seed in range(100):
        world = new_vault(1, seed, depth=4)
        asked = world.state()["asked"]
        for room in range(4):
            places[
                next(i for i, page in enumerate(world.state()["text"][room]) if f"note {asked[room][0]} " in page)
            ] += 1
    assert set(places) == {0, 1}
    assert min(places.values()) > 150


@pytest.mark.parametrize(
    ("depth", "line", "links"),
    [
        (1, "0 | 1 | 2 | 3 | 4", []),
        (2, "0 1 | 2 3 | 4", [(0, 1), (2, 3)]),
        (3, "0 1 2 | 3 4", [(0, 1), (1, 2), (3, 4)]),
        (5, "0 1 2 3 4", [(0, 1), (1, 2), (2, 3), (3, 4)]),
    ],
)
def test_value_of_a_vault_is_the_key_of_the_next_one_in_its_chain_only(depth, line, links):
    chained = Counter()
    for seed in range(40):
        world = new_vault(2, seed, rooms=5, depth=depth)
        asked = world.state()["asked"]
        chained.update((room, room + 1) for room in range(4) if asked[room][1] == asked[room + 1][0])
        assert world.goal() == f"open all vaults; chains: {line}"
    assert [link for link, times in sorted(chained.items()) if times == 40] == links
    assert all(times < 5 for link, times in chained.items() if link not in links)
