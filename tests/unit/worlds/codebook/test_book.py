"""The codebook of codebook-v0: the same for all episodes of a run, told by and by, changed once."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from worlds.codebook.book import Codebook, zipf

EPISODES, NOTES, TOLD = 20, 40, 8


def new_book(seed=0):
    return Codebook(seed, EPISODES, NOTES, TOLD)


def notes_of(book, episode):
    return [book.note(note, episode) for note in range(NOTES)]


def test_a_codebook_follows_from_its_number_alone():
    assert notes_of(new_book(3), 5) == notes_of(new_book(3), 5)
    assert not set(notes_of(new_book(3), 5)) & set(notes_of(new_book(4), 5))


def test_two_in_five_notes_change_once_each_in_the_second_or_third_quarter():
    book = new_book()
    changes = [
        (note, episode)
        for note in range(NOTES)
        for episode in range(1, EPISODES + 10)
        if book.note(note, episode) != book.note(note, episode - 1)
    ]
    assert len(changes) == len(dict(changes)) == 16
    assert {episode for _, episode in changes} == set(range(5, 15))
    for note, episode in changes:
        assert book.note(note, episode)[0] == book.note(note, 0)[0]
        assert book.has_changed(note, episode - 1, episode)
        assert not book.has_changed(note, episode, episode + 1)  # who was first told then knows one value only
        assert not book.has_changed(note, 0, episode - 1)


def test_every_room_tells_a_new_value_in_the_episode_in_which_it_changes():
    book = new_book()
    for note in range(NOTES):
        for episode in range(1, EPISODES):
            if book.note(note, episode) != book.note(note, episode - 1):
                assert all(note in book.told(episode, room) for room in range(3))


def test_keys_of_a_class_have_their_first_word_and_that_of_their_values_in_common():
    book = new_book()
    for episode in (0, EPISODES):
        first_words = {(key.split()[0], value.split()[0]) for key, value in notes_of(book, episode)}
        assert (
            len(first_words)
            == len({head for head, _ in first_words})
            == len({shared for _, shared in first_words})
            == 8
        )
    key, shared = book.unseen(2, random.Random(0))
    assert (key.split()[0], shared) == tuple(text.split()[0] for text in book.note(2, 0))
    assert key not in dict(notes_of(book, 0))


def test_fresh_keys_are_in_no_class_and_all_different():
    book = new_book()
    heads = {key.split()[0] for key, _ in notes_of(book, 0)}
    fresh = [book.fresh_key(number) for number in range(20_000)]
    assert len(set(fresh)) == len(fresh)
    assert heads.isdisjoint(key.split()[0] for key in fresh)


def test_what_rests_in_an_episode_is_told_only_where_it_changes():
    book = new_book()
    for episode in range(EPISODES):
        told, rests = book.told(episode, 0), book.rests(episode)
        assert len(told) == len(set(told)) == TOLD
        assert len(rests) == NOTES // 2
        for note in rests.intersection(told):
            assert book.note(note, episode) != book.note(note, episode - 1)


def test_first_told_is_the_first_of_the_episodes_that_told_a_note():
    book = new_book()
    for note, first in book.first_told(1, 9).items():
        assert first == next(episode for episode in range(10) if note in book.told(episode, 1))
    assert set(book.first_told(1, 9)) == {note for episode in range(10) for note in book.told(episode, 1)}


def test_notes_are_drawn_by_zipfs_law():
    rng, drawn = random.Random(0), Counter()
    for _ in range(4000):
        drawn.update(zipf(rng, range(NOTES), 1))
    for note in (0, 1, 3):
        assert drawn[note] / 4000 == pytest.approx(1 / (note + 1) / sum(1 / n for n in range(1, NOTES + 1)), abs=0.02)
