"""How work ends that had begun properly: it fails, or the user stops it and goes on later."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from swarm.errors import Outage


@contextmanager
def continued_later() -> Iterator[None]:
    """Say after Ctrl-C or an outage that the same command goes on; a decorator of commands for which that is so."""
    try:
        yield
    except Outage as error:
        raise Outage(f"{error}; the same command continues where it was") from error
    except KeyboardInterrupt:
        typer.echo("stopped; the same command continues where it was", err=True)
        raise
