"""Thinking aloud in the number worlds: an answer in steps, whose results the world fills in.

An action may be `2+9=11 11*4=44;154-44=110|2*9=18 18*4=72;154-72=82 7*11=77 77+5=82 72+82=154`. A step joins two
numbers; the world says what it comes to (`result`). A step behind `;` is a note, here of what is still to be made.
Behind `|` all begins anew: the steps there are the answer, carried out one after the other.
"""

import re

from worlds.numbers import solver
from worlds.numbers.arithmetic import OPERATORS, ExpressionError

NOTE, ANEW, UNKNOWN = ";", "|", "?"
PATTERN = r"[-0-9+*/=?|; ]{1,400}"
"""Of an answer in steps."""

_STEP = r"(?P<left>[0-9]{1,7})(?P<operator>[-+*/])(?P<right>[0-9]{1,7})="
_ASKED = re.compile(rf"(?:^|[ |;]){_STEP}\Z")
_DONE = re.compile(rf"(?P<mark>^|[ ;]){_STEP}(?P<result>[0-9]{{1,14}})")


def result(text: str) -> str | None:
    """Return what follows a text that ends in a step such as `3*7=`, here `21`; None where it ends in no step.

    A result that is no whole number from 0 on is `?`.
    """
    match = _ASKED.search(text)
    if match is None:
        return None
    found = value(match["operator"], int(match["left"]), int(match["right"]))
    return UNKNOWN if found is None else str(found)


def value(operator: str, left: int, right: int) -> int | None:
    """Return the result of a step; None where it is no whole number from 0 on."""
    if operator == "/":
        return None if right == 0 or left % right else left // right
    found = int(OPERATORS[operator](left, right))  # type: ignore[arg-type]
    return found if found >= 0 else None


def last_search(action: str) -> str:
    """Return the part of an action that counts."""
    return action.rpartition(ANEW)[2].strip()


def expression_of(action: str) -> str:
    """Return the expression that the steps of an action carry out; an action without steps is one itself.

    A number that no earlier step came to is a tile. What stands behind `=` names a number, and is not believed.

    Raises:
        ExpressionError: the action cannot be read, or its steps do not come to one number.
    """
    search, end = last_search(action), 0
    if "=" not in search:
        return search
    made: dict[str, list[str]] = {}
    for match in _DONE.finditer(search):
        if match.start() != end:
            break
        end = match.end()
        if match["mark"] != NOTE:
            parts = [made[number].pop() if made.get(number) else number for number in match.group("left", "right")]
            try:
                found = solver.combine(match["operator"], *parts)
            except ValueError as error:
                raise ExpressionError(str(error)) from error
            made.setdefault(match["result"], []).append(found)
    if end != len(search):
        raise ExpressionError(f"cannot read the step at {search[end : end + 20].strip()!r}")
    left = [expression for some in made.values() for expression in some]
    if len(left) != 1:
        raise ExpressionError(f"the steps come to {len(left)} numbers, not to one")
    return left[0]
