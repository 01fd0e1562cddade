"""Text that somebody else wrote, made safe to print and to record.

An escape sequence from a model could rewrite the terminal of whoever watches; what a person types goes on record.
"""

import re
import shlex
from pathlib import Path

from swarm.errors import SwarmError

FENCE = re.compile(r"\s*(?:`{3,}|~{3,})(?:[A-Za-z][\w+.#-]*)?\s*")
"""A line that opens or closes a block of code, in which chat models like to answer."""

MAX_CHARACTERS = 500
"""Of one message that a person writes."""


def printable(text: object) -> str:
    """Return `text` with each control, format and surrogate character replaced by a middle dot."""
    line = str(text)
    return line if line.isprintable() else "".join(char if char.isprintable() else "·" for char in line)


def one_line(text: object) -> str:
    """Return `text` printable, with every run of white space turned into one space."""
    return printable(" ".join(str(text).split()))


def command(*words: str | Path) -> str:
    """Return a command line of `swarm` that can be pasted into a shell, whatever stands in its paths."""
    plain = (f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in words)
    return shlex.join(["swarm", *plain])


def without(text: str, marks: re.Pattern[str]) -> str:
    """Return the text without these marks; what is left of one may form another, which is taken out, too."""
    before = None
    while before != text:
        before, text = text, marks.sub("", text)
    return text


def checked_text(text: str, hint: str = "say what agents or coordinator shall know") -> str:
    """Return what a person wrote with its white space made plain; the hint says what to write where there is nothing.

    Raises:
        SwarmError: it is empty, too long, or cannot be printed.
    """
    plain = " ".join(text.split())
    if not plain:
        raise SwarmError(f"the text is empty; {hint}")
    if not plain.isprintable():
        raise SwarmError("the text holds characters that cannot be printed; leave them out")
    if len(plain) > MAX_CHARACTERS:
        raise SwarmError(f"the text has {len(plain)} characters, {MAX_CHARACTERS} are the most; shorten it")
    return plain
