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
def continued_later() -> Iterator[None]:
    """Say after Ctrl-C that the same command goes on where it was; a decorator of commands for which that is so."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; the same command continues where it was", err=True)
        raise
