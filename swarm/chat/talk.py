"""The talk at the terminal: what a person can type, and what is answered. Plain pipes work as terminals do.

Whatever is typed, the answer is a line and another question; the end of the input ends the chat.
"""

import time

from swarm.chat.session import CHAT_NAME, Chat
from swarm.coordinator.protocol import Terminal
from swarm.errors import SwarmError
from swarm.process.progress import duration
from swarm.record.change import Change
from swarm.record.records import Exchange
from swarm.text import command, one_line, printable

HELP = [
    "TEXT         asks the model",
    "+            its last answer was good",
    "-            its last answer was bad",
    "= TEXT       TEXT would have been the better answer; the model learns it",
    "/undo        takes back what was learned last",
    "/forget N    removes exchange N from all that is learned",
    "/history     shows what was said, and what was made of it",
    "/help        shows this",
    "/quit        ends the chat; the same command goes on with it",
]
BY = {"base": "", "delta": "  (as it learned)", "facts": "  (as you typed it)"}


class Talk:
    """One sitting of a person with a chat.

    Args:
        chat: which one.
        terminal: where the person is.
    """

    def __init__(self, chat: Chat, terminal: Terminal) -> None:
        self.chat, self.terminal = chat, terminal

    def _say(self, *lines: str) -> None:
        for line in lines:
            self.terminal.say(printable(line))

    def run(self) -> None:
        """Talk until the person ends it."""
        count = len(self.chat.told.exchanges)
        self._say(
            f"{self.chat.name}: everything that is said is kept in {self.chat.folder / CHAT_NAME}",
            f"{count} exchanges so far; /help shows what can be typed",
        )
        self._learn()  # what a chat that was killed left
        while True:
            try:
                line = self.terminal.ask("> ").strip()
            except EOFError:
                return
            if line in ("/quit", "/exit"):
                return
            try:
                self._answer(line)
            except SwarmError as error:
                self._say(str(error))

    def _answer(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if not line:
            return
        if line in ("+", "-") or line.startswith("="):
            self._mark(line)
        elif word == "/undo":
            change = self.chat.undo()
            number = change.settings["exchange"]
            self._say(f"taken back: what was learned from exchange {number}; nothing is learned from it any more")
        elif word == "/forget":
            self._say(forgotten(self.chat.forget(_number(rest)), rest.strip()))
        elif word == "/history":
            self._say(*history(self.chat))
        elif word.startswith("/"):
            self._say(*([] if word == "/help" else [f"there is no {word}"]), *HELP)
        else:
            exchange = self.chat.ask(line)
            self._say(f"{exchange['exchange']}: {one_line(exchange['answer']) or '(nothing)'}{BY[exchange['by']]}")

    def _mark(self, line: str) -> None:
        number = max(self.chat.told.exchanges, default=0)
        if not number:
            raise SwarmError("nothing was answered yet; type a request first")
        if line == "+":
            self.chat.mark(number, "+")
            self._say(f"{number} is good: it stays")
        elif line == "-":
            self.chat.mark(number, "-")
            self._say(f"{number} is bad: it is never imitated; `= TEXT` says what would be better")
        else:
            self.chat.mark(number, "=", line[1:])
            self._learn()

    def _learn(self) -> None:
        began_s = time.monotonic()
        while (change := self.chat.learn()) is not None:
            self._say(f"{learned(change)} ({duration(time.monotonic() - began_s)})")
            began_s = time.monotonic()


def _number(text: str) -> int:
    if not text.strip().isdecimal():
        raise SwarmError("/forget needs the number of an exchange; /history shows them")
    return int(text)


def learned(change: Change) -> str:
    """Return in a line what a learning step changed, and how its test went."""
    tests = {test["name"]: test for test in change.tests}
    if "typed" not in tests:
        return f"nothing was learned: {change.note}"
    typed, kept = tests["typed"], tests["kept"]
    what = (
        f"what you typed: {-typed['before']:.2f} to {-typed['after']:.2f} nats per token; {kept['after']:.1%} of "
        f"{kept['n']} other requests keep their answer"
    )
    failed = [name for name, test in tests.items() if not test["passed"]]
    verdict = "learned" if change.accepted else f"rejected, for the test of {', '.join(failed)} failed"
    return f"{verdict}; {what}"


def forgotten(change: Change, number: str | int) -> str:
    """Return in a line what forgetting changed."""
    if change.tests and change.result:
        return f"{number} is forgotten; learned anew without it: {learned(change)}"
    if not change.result and change.parent:
        return f"{number} is forgotten, and with it all that was learned: {change.note}"
    return f"{number} is forgotten: {change.note}"


def history(chat: Chat) -> list[str]:
    """Return what was said and what was learned, one exchange after the other."""
    lines = []
    for number, one in sorted(chat.told.exchanges.items()):
        gone = "  (nothing is learned from it)" if number in chat.told.out else ""
        lines += [f"{number} {one['request']}", f"  {_marked(one)}{BY[one['by']]}{gone}"]
    held = f"what was learned: {chat.told.delta[:12] or 'nothing'}"
    back = command("memory", "forget", chat.folder, "N")
    return [*lines, f"{held}, from {len(chat.told.targets())} answers; `{back}` removes one"]


def _marked(one: Exchange) -> str:
    better = f"  = {one['better']}" if "better" in one else ""
    return f"{one['mark'] if one['mark'] in '+-' else ' '} {one_line(one['answer'])}{better}"
