"""Thinking aloud in the number worlds: steps before an expression, whose results the world fills in.

An action may be `13*9=117 7-4=3 2+8=10;117 3 10|117*3=351 351-10=341|117+10=127 127+3=130:13*9+2+8+7-4`: steps, the
numbers that are left, tries that each begin with `|`, and behind the colon the expression that counts. Behind a `|`
other first steps may stand, too. Nothing before the colon is judged. What stands behind a `=` is not the agent's to
know: decoding asks `result` for it.
"""

import re

from worlds.numbers.arithmetic import OPERATORS

END, LEFT, RETRY, UNKNOWN = ":", ";", "|", "?"
PATTERN = r"[-0-9+*/=?|; ]{1,400}:"
"""Thoughts, their end included."""

_STEP = re.compile(r"(?:^|[ |;])(?P<left>[0-9]{1,7})(?P<operator>[-+*/])(?P<right>[0-9]{1,7})=\Z")


def result(text: str) -> str | None:
    """Return what follows a text that ends in a step such as `3*7=`, here `21`; None where it ends in no step.

    A result that is no whole number from 0 on is `?`.
    """
    match = _STEP.search(text)
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


def expression_of(action: str) -> str:
    """Return the part of an action that counts."""
    return action.rpartition(END)[2].strip()


def without_failures(action: str) -> str:
    """Return an action as if its last try had been its first."""
    thoughts, end, expression = action.strip().rpartition(END)
    *before, last = thoughts.split(RETRY)
    begun = [part for part in before if LEFT in part][-1:]
    return f"{RETRY.join([*begun, last])}{end}{expression.strip()}"
