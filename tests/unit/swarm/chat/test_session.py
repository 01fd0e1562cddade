"""What a chat keeps, learns, takes back and remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.agents.delta import delta_path
from swarm.chat import lesson
from swarm.chat.session import CHAT_NAME, Chat, Told, model_of
from swarm.config import learning
from swarm.errors import SwarmError
from swarm.record.change import Change
from swarm.record.journal import read_records


def teach(chat: Chat, request: str, better: str) -> Change:
    """Let the person type a better answer to a request."""
    chat.mark(chat.ask(request)["exchange"], "=", better)
    change = chat.learn()
    assert change is not None
    return change


def test_same_request_gets_what_was_typed_word_for_word_after_a_restart_too(open_chat):
    chat = open_chat()
    assert chat.ask("what is 1 2 3")["by"] == "base"
    chat.mark(1, "=", "half of target 3")
    for _ in range(2):
        again = chat.ask("what is 1 2 3")
        assert (again["answer"], again["by"]) == ("half of target 3", "facts")
        chat = open_chat()


def test_what_was_typed_becomes_likelier_and_the_step_is_on_record(open_chat):
    chat = open_chat()
    change = teach(chat, "hello", "made of tiles")
    typed = next(test for test in change.tests if test["name"] == "typed")
    assert typed["after"] > typed["before"] + 0.1
    assert change.accepted
    assert chat.told.delta == change.result
    assert delta_path(chat.folder, change.result).is_file()
    kinds = [record["kind"] for record in read_records(chat.folder / CHAT_NAME)]
    assert kinds == ["header", "exchange", "exchange", "change"]


def test_a_learning_step_is_a_pure_function_of_what_was_said(open_chat):
    results = [teach(open_chat(name), "hello", "made of tiles").result for name in ("one", "other")]
    assert results[0] == results[1]
    assert teach(open_chat("third"), "hello", "made of 3 tiles").result != results[0]


def test_undo_takes_back_the_last_step_and_learns_no_more_from_it(open_chat):
    chat = open_chat()
    first = teach(chat, "hello", "made of tiles")
    teach(chat, "target 3", "half")
    chat.undo()
    assert chat.told.delta == first.result
    assert list(chat.told.targets()) == ["hello"]
    chat = open_chat()
    assert chat.told.delta == first.result
    chat.undo()
    assert chat.told.delta == ""
    with pytest.raises(SwarmError, match="nothing was learned"):
        chat.undo()


def test_forgetting_learns_anew_without_the_exchange_and_removes_what_came_from_it(open_chat):
    chat = open_chat()
    first, second = teach(chat, "hello", "made of tiles"), teach(chat, "target 3", "half")
    change = chat.forget(1)
    assert change.result not in ("", first.result, second.result)
    assert [path.stem for path in delta_path(chat.folder, "x").parent.iterdir()] == [change.result]
    assert open_chat().told.targets() == {"target 3": "half"}
    alone = open_chat("other")
    alone.ask("hello")
    teach(alone, "target 3", "half")
    # The step that forgot read nothing of what is forgotten: so it would have been without it.
    assert alone._task("", 6, 1).samples.digest == change.evidence["digest"]


def test_forgetting_the_last_thing_that_was_learned_leaves_the_base(open_chat):
    chat = open_chat()
    teach(chat, "hello", "made of tiles")
    assert chat.forget(1).result == ""
    assert chat.delta is None
    assert chat.by("hello") == "base"
    with pytest.raises(SwarmError, match="no exchange 7; there are 1 to 1"):
        chat.forget(7)
    with pytest.raises(SwarmError, match="since something was forgotten"):
        chat.undo()


def test_what_was_forgotten_without_being_learned_changes_no_delta(open_chat):
    chat = open_chat()
    first = teach(chat, "hello", "made of tiles")
    chat.ask("target 3")
    assert chat.forget(2).result == first.result
    assert chat.by("target 3 of tiles") in ("base", "delta")
    assert chat.delta is not None
    assert chat.undo().result == ""  # the step before is still the last one


def test_no_file_is_left_of_what_was_undone(open_chat):
    chat = open_chat()
    first = teach(chat, "hello", "made of tiles")
    teach(chat, "target 3", "half")
    chat.undo()
    assert [path.stem for path in delta_path(chat.folder, "x").parent.iterdir()] == [first.result]


def test_a_bad_mark_adds_no_target_and_bars_the_answer_from_imitation():
    told = Told()

    def said(number: int, request: str, by: str, mark: str) -> None:
        one = {"kind": "exchange", "exchange": number, "request": request, "answer": "aye", "by": by, "mark": mark}
        told.fold({**one, "tokens": 1})

    said(1, "hello", "base", "-")
    assert told.targets() == {}
    said(2, "hello", "delta", "+")
    assert told.targets() == {}
    said(3, "good morning", "delta", "+")
    assert told.targets() == {"good morning": "aye"}


def test_a_good_answer_of_the_base_keeps_its_request_to_the_base(open_chat):
    chat = open_chat()
    near = "target 123 of half the tiles"
    chat.ask(near)
    teach(chat, "target 122 of half the tiles", "made of tiles")
    assert chat.by(near) == "delta"
    chat.mark(1, "-")
    assert chat.by(near) == "delta"
    chat.mark(1, "+")
    assert chat.by(near) == "base"


def test_a_chat_that_was_killed_before_it_learned_learns_when_it_is_opened_again(open_chat):
    chat = open_chat()
    chat.ask("hello")
    chat.mark(1, "=", "made of tiles")
    chat = open_chat()
    change = chat.learn()
    assert change is not None
    assert change.accepted
    assert chat.learn() is None
    assert open_chat().learn() is None


def test_a_step_that_fails_its_test_is_on_record_and_changes_nothing(open_chat, monkeypatch):
    strict = lesson.SETTINGS.model_copy(update={"test": learning.TestSettings(drop=0.05, kl=1e-9, tasks=0.0)})
    monkeypatch.setattr(lesson, "SETTINGS", strict)
    chat = open_chat()
    change = teach(chat, "hello", "made of tiles")
    assert not change.accepted
    assert change.settings["size"] == 0.5
    assert chat.told.delta == ""
    assert chat.ask("hello")["answer"] == "made of tiles"  # the exact memory has it all the same
    assert chat.learn() is None


def test_a_folder_of_something_else_or_of_another_model_is_refused(open_chat, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("dear")
    with pytest.raises(SwarmError, match="something else than a chat"):
        open_chat("taken")
    chat = open_chat()
    name, folder = chat.name, chat.folder
    assert model_of(folder) == name
    other = Path(__file__).parents[4] / "experiments" / "policies" / "numbers-agent"
    with pytest.raises(SwarmError, match="other weights"):
        Chat(str(other), folder)
    with pytest.raises(SwarmError, match="holds no chat"):
        model_of(tmp_path)


def test_what_cannot_be_read_or_printed_is_refused(open_chat):
    chat = open_chat()
    for text, why in (("  ", "type a request"), ("a\x00b", "cannot be printed"), ("x" * 501, "501 characters")):
        with pytest.raises(SwarmError, match=why):
            chat.ask(text)
    assert chat.told.exchanges == {}
