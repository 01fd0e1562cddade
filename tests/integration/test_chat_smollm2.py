"""SmolLM2 learns one preference of a person in a few exchanges, and nothing else; `bench_chat.py` measures five."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.preferences import unrelated, wishes
from fakes.real_weights import MODEL, needs_smollm2

from swarm.chat.session import Chat

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), needs_smollm2]


def test_greetings_are_answered_as_the_person_likes_and_other_answers_stay(tmp_path: Path) -> None:
    asked, fresh = ([wish for wish in some if wish.kind == "greeting"] for some in wishes(1))
    others = unrelated()[::10]
    with Chat(MODEL, tmp_path / "chat") as chat:
        frozen = [wish.obeys(answer) for wish, (answer, *_) in zip(fresh, _said(chat, fresh), strict=True)]
        before = [answer for answer, *_ in chat.say(others)]
        for wish in asked[:3]:
            chat.mark(chat.ask(wish.request)["exchange"], "=", wish.better)
            change = chat.learn()
            assert change is not None
            assert change.accepted
    with Chat(MODEL, tmp_path / "chat") as chat:  # after a restart
        learned = [wish.obeys(answer) for wish, (answer, *_) in zip(fresh, _said(chat, fresh), strict=True)]
        assert sum(frozen) <= 0.3 * len(fresh)
        assert sum(learned) >= 0.7 * len(fresh)
        assert [answer for answer, *_ in chat.say(others)] == before


def _said(chat, some):
    return chat.say([wish.request for wish in some])
