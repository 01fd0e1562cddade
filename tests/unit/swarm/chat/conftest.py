"""Chats with an untrained tiny model, whose learning steps are computed in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.chat import session
from swarm.chat.session import Chat
from swarm.learn import ordinary


@pytest.fixture
def open_chat(tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Chat]]:
    """Return a function that opens the chat of a folder, `chat` where none is named; what was open is closed."""
    monkeypatch.setattr(session, "run_alone", lambda task: task.compute())
    monkeypatch.setattr(ordinary, "REHEARSED", 4)
    opened: list[Chat] = []

    def open_one(name: str = "chat") -> Chat:
        for one in opened:
            one.close()
        opened[:] = [Chat(str(tiny_policy), tmp_path / name)]
        return opened[0]

    yield open_one
    for one in opened:
        one.close()
