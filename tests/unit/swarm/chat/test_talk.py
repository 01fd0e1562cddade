"""What a person types, and what the chat answers."""

from __future__ import annotations

from fakes.scripted_person import Script

from swarm.chat.talk import Talk


def talk(chat, *lines: str) -> list[str]:
    """Return what is shown to a person who types these lines."""
    person = Script(lines)
    Talk(chat, person.terminal()).run()
    return person.shown


def test_the_place_of_the_file_is_told_first(open_chat):
    chat = open_chat()
    assert str(chat.folder / "chat.jsonl") in talk(chat)[0]


def test_a_better_answer_is_learned_and_told_in_a_line(open_chat):
    *_, learned, again, good = talk(open_chat(), "hello", "= made of tiles", "hello", "+")
    assert learned.startswith("learned; what you typed: ")
    assert "261 other requests keep their answer" in learned
    assert again == "2: made of tiles  (as you typed it)"
    assert good == "2 is good: it stays"


def test_marks_undo_forget_and_history_are_answered(open_chat):
    shown = talk(
        open_chat(), "hello", "-", "target 3", "= half", "/undo", "/forget 2", "/history", "/quit", "nevermore"
    )
    assert "1 is bad: it is never imitated; `= TEXT` says what would be better" in shown
    assert "taken back: what was learned from exchange 2; nothing is learned from it any more" in shown
    assert "2 is forgotten: nothing was learned from it" in shown
    assert any(line.endswith("= half  (nothing is learned from it)") for line in shown)
    assert "nevermore" not in "".join(shown)


def test_a_mistake_is_a_line_and_the_talk_goes_on(open_chat):
    shown = talk(open_chat(), "+", "/forget x", "/forget 3", "/undo", "/dance", "=", "hello", "=")
    for part in (
        "nothing was answered yet",
        "/forget needs the number",
        "there is no exchange 3; there are none yet",
        "nothing was learned since the beginning",
        "there is no /dance",
        "type the better answer after =",
    ):
        assert any(part in line for line in shown), part
    assert shown[-1] == "the text is empty; type the better answer after ="


def test_what_a_killed_chat_left_is_learned_at_once(open_chat):
    chat = open_chat()
    chat.ask("hello")
    chat.mark(1, "=", "made of tiles")
    assert talk(open_chat())[2].startswith("learned; ")
