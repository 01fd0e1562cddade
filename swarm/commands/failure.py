"""How work ends that had begun properly: it fails, or the user stops it and goes on later."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from swarm.errors import SwarmError


class WorkFailedError(SwarmError):
    """A run that could not go on, or a check that did not hold; the user's input was fine.

    Its exit code is 1, where a mistake's is 2.
    """


@contextmanager
def continued_later(how: str = "continues where it was") -> Iterator[None]:
    """Say after Ctrl-C what the same command does then; a decorator of commands that take long."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command {how}", err=True)
        raise
