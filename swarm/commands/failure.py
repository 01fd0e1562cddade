"""How work ends that had begun properly: it fails, or the user stops it and goes on later."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from swarm.errors import Outage


@contextmanager
def continued_later(how: str = "continues where it was") -> Iterator[None]:
    """Say after Ctrl-C or an outage what the same command does then; a decorator of commands that take long."""
    try:
        yield
    except Outage as error:
        raise Outage(f"{error}; the same command {how}") from error
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command {how}", err=True)
        raise
