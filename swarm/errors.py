"""The one exception for a user's mistake; the CLI prints it as a single line and exits non-zero.

And how another error's words come into such a line.
"""


class SwarmError(Exception):
    """A mistake of the user or the machine that one clear line can explain: what is wrong and what to do."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def last_line(error: BaseException) -> str:
    """Return the last line, in which Ray puts what was raised in another process: the traceback stands before it."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
