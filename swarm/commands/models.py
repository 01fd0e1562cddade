"""`swarm models`: pretrained models that can be had by a short name."""

from typing import Annotated

import typer

EXAMPLE = "swarm models fetch smollm2-135m"


def fetch(name: Annotated[str, typer.Argument(help="Which model; `swarm models list` shows them.")]) -> None:
    """Get a pretrained model once, as a folder that transformers and vLLM load; print where it is."""
    from swarm.errors import SwarmError
    from swarm.progress import progress
    from ulm.hf.pretrained import fetch as fetch_model

    try:
        with progress(f"fetching {name}"):
            folder = fetch_model(name)
        typer.echo(str(folder))
    except ValueError as error:
        raise SwarmError(str(error)) from error


def show() -> None:
    """List the models that can be fetched, and which of them are here."""
    from ulm.hf.pretrained import KNOWN, fetched

    for name, source in KNOWN.items():
        typer.echo(f"{name}  {source.about}\n  {fetched(name) or f'not here: swarm models fetch {name}'}")
