"""The exception for a user's mistake and its kinds; the CLI prints it as a single line and exits non-zero.

And how another error's words, or the name that was probably meant, come into such a line.
"""

import difflib
from collections.abc import Iterable


class SwarmError(Exception):
    """A mistake of the user or the machine that one clear line can explain: what is wrong and what to do."""


class Outage(SwarmError):  # noqa: N818 - the field's word
    """Nobody answers, or requests are refused for good, in mid-run: nothing in the run is at fault.

    The run stops before the open tick is recorded, as Ctrl-C stops it, and can be resumed. The message says what
    happened; whoever started the run adds the command that goes on. The command line ends with exit code 1.
    """


class WorkFailedError(SwarmError):
    """A run that could not go on, or a check that did not hold; the user's input was fine.

    The command line ends with exit code 1, where a mistake's is 2.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant by a word, whatever their case; None where none is near."""
    names = {name.lower(): name for name in known}
    return next((names[near] for near in difflib.get_close_matches(word.lower(), names, n=1)), None)


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return `; did you mean 'X'?` with the known name that is nearest to a word; `otherwise` where none is near."""
    near = nearest(word, known)
    return f"; did you mean '{near}'?" if near else otherwise


def last_line(error: BaseException) -> str:
    """Return the last line, in which Ray puts what was raised in another process: the traceback stands before it."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
