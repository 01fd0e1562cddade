"""Makes text that a model or a world wrote safe to print: one line, no control characters.

Owns that one rule, because an escape sequence from a model could rewrite the terminal of whoever watches.
"""

from __future__ import annotations

__all__ = ["one_line", "printable"]


def printable(text: object) -> str:
    """Return `text` with each control, format and surrogate character replaced by a middle dot."""
    line = str(text)
    return line if line.isprintable() else "".join(char if char.isprintable() else "·" for char in line)


def one_line(text: object) -> str:
    """Return `text` printable, with every run of white space turned into one space."""
    return printable(" ".join(str(text).split()))
