"""The letter box of a run: what lies in it is found once, and whatever cannot be meant is nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import SwarmError
from swarm.run.steering import STEERING_NAME, Mailbox, post
from swarm.text import checked_text

AGENTS = ("a0", "a1", "a2")


def box(folder: Path, *lines: bytes) -> Mailbox:
    with (folder / STEERING_NAME).open("ab") as file:
        file.writelines(lines)
    mailbox = Mailbox(folder / STEERING_NAME)
    mailbox.look()
    return mailbox


def due(mailbox: Mailbox, episode: int = 0, after: int = 0) -> list[tuple[int, str, tuple[str, ...], int]]:
    found = mailbox.due(episode, after, AGENTS, lambda texts: [len(text) for text in texts])
    return [(steer.line, steer.text, steer.agents, steer.tokens) for steer in found]


def test_lines_are_found_as_they_come_and_each_once(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path / STEERING_NAME)
    mailbox.look()
    assert due(mailbox) == []
    post(tmp_path, "look left")
    mailbox.look()
    assert due(mailbox) == [(1, "look left", (), 9)]
    post(tmp_path, "go", ["a2", "a0"], 1)
    mailbox.look()
    mailbox.look()
    assert due(mailbox, after=1) == []
    assert due(mailbox, episode=1, after=1) == [(2, "go", ("a0", "a2"), 4)]
    assert due(mailbox, episode=1) == [(1, "look left", (), 9), (2, "go", ("a0", "a2"), 4)]
    assert due(mailbox, episode=1, after=2) == []


def test_half_a_line_is_not_read_and_the_next_one_takes_its_place(tmp_path: Path) -> None:
    post(tmp_path, "first")
    mailbox = box(tmp_path, b'{"text":"hal')
    assert [text for _, text, _, _ in due(mailbox)] == ["first"]
    post(tmp_path, "second")
    mailbox.look()
    assert [(line, text) for line, text, _, _ in due(mailbox)] == [(1, "first"), (2, "second")]


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[]",
        "3",
        '"text"',
        '{"text": 3}',
        '{"text": ""}',
        '{"text": "a\\u001bb"}',
        '{"text": "x", "agents": "a0"}',
        '{"text": "x", "agents": [0]}',
        '{"text": "x", "agents": ["a9"]}',
        '{"text": "x", "episode": "0"}',
        '{"text": "x", "episode": true}',
        json.dumps({"text": "x" * 501}),
        "[" * 100_000,
    ],
)
def test_a_line_that_cannot_be_meant_is_no_line(tmp_path: Path, line: str) -> None:
    assert due(box(tmp_path, line.encode() + b"\n", b'{"text":"good"}\n')) == [(2, "good", (), 4)]


@given(st.lists(st.binary(max_size=60)))
def test_any_bytes_can_lie_in_the_box(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("box")
    due(box(folder, *lines))
    post(folder, "good")
    assert due(box(folder))[-1][1] == "good"


def test_texts_are_made_plain_or_refused() -> None:
    assert checked_text("  go\n left\t") == "go left"
    for text, why in ((" ", "empty"), ("\x00", "printed"), ("\udc80", "printed"), ("x" * 501, "501 characters")):
        with pytest.raises(SwarmError, match=why):
            checked_text(text)
