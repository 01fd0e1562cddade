"""`swarm export`: a checkpoint as a folder that transformers and vLLM load, or what an agent of a run has learned."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.failure import continued_later
from swarm.commands.options import a_path

EXAMPLE = "swarm export my-policy --to hf --out exported/my-policy"


@continued_later("does it anew")
def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT|RUN",
            help="A checkpoint folder, as `swarm train` writes it, or the folder of a run whose agents learn.",
            parser=a_path,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Write here: a new or an empty folder.", parser=a_path)
    ],
    agent: Annotated[
        str | None,
        typer.Argument(metavar="AGENT", help="Of a run: whose model. Not needed where a team has one for all."),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="FORMAT", help="hf: a folder of Hugging Face.")] = None,
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
    """Write a model folder that transformers and vLLM load without our code; with --memory, transformers with it.

    Of a run it writes what an agent has learned: a checkpoint with its delta merged into the weights, or the adapter of
    a pretrained model, which PEFT loads.
    """
    from swarm.errors import SwarmError

    if (source / "journal.jsonl").is_file():
        if to is not None:
            raise SwarmError("a run gives a checkpoint, or an adapter; leave out --to, and export that checkpoint then")
        _export_learned(source, agent, out)
        return
    if agent is not None:
        raise SwarmError(f"{source} is no run folder, so it has no agent {agent}")
    if to not in (None, "hf"):
        raise SwarmError(f"cannot export to {to!r}; available: hf")
    from transformers.utils import logging

    from swarm.process.progress import progress
    from ulm.hf.export import export_checkpoint

    logging.disable_progress_bar()
    try:
        with progress(f"exporting {source}"):
            export_checkpoint(source, out, architecture=architecture, dtype=dtype, memory=memory)
    except ValueError as error:
        raise SwarmError(str(error)) from error
    typer.echo(f"exported      {out}, how to load it: {out / 'README.md'}")


def _export_learned(run_dir: Path, agent: str | None, out: Path) -> None:
    from swarm.learn.export import export_learned
    from swarm.process.progress import progress
    from swarm.text import command

    with progress(f"exporting what {agent or 'the team'} of {run_dir} learned"):
        form = export_learned(run_dir, agent, out, command(*sys.argv[1:]))
    typer.echo(f"exported      {out}, {'a checkpoint' if form == 'checkpoint' else 'an adapter for PEFT'}")
