"""`swarm export CHECKPOINT`: a checkpoint as a folder that transformers and vLLM load."""

from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.failure import continued_later
from swarm.commands.options import a_path

EXAMPLE = "swarm export my-policy --to hf --out exported/my-policy"


@continued_later("does it anew")
def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A checkpoint folder, as `swarm train` writes it.", parser=a_path),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Write here: a new or an empty folder.", parser=a_path)
    ],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="hf: a folder of Hugging Face.")] = "hf",
    architecture: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="mistral has our sliding window, so it is equal at any length; llama is equal up to the window.",
        ),
    ] = "mistral",
    dtype: Annotated[
        str,
        typer.Option(metavar="TYPE", help="float32 keeps every greedy token; bfloat16 and float16 are half the size."),
    ] = "float32",
    memory: Annotated[
        bool,
        typer.Option("--memory", help="With the long-term memory; transformers then needs `import ulm.hf.ulm_model`."),
    ] = False,
) -> None:
    """Write a model folder that transformers and vLLM load without our code; with --memory, transformers with it."""
    from swarm.errors import SwarmError

    if to != "hf":
        raise SwarmError(f"cannot export to {to!r}; available: hf")
    from transformers.utils import logging

    from swarm.process.progress import progress
    from ulm.hf.export import export_checkpoint

    logging.disable_progress_bar()
    try:
        with progress(f"exporting {checkpoint}"):
            export_checkpoint(checkpoint, out, architecture=architecture, dtype=dtype, memory=memory)
    except ValueError as error:
        raise SwarmError(str(error)) from error
    typer.echo(f"exported      {out}, how to load it: {out / 'README.md'}")
