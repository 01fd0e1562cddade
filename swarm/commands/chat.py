"""`swarm chat MODEL`: talk with a model that learns from what is said of its answers."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from swarm.commands.options import WorkFolder

EXAMPLE = "swarm chat smollm2-135m"


def chat(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="smollm2-135m, another Llama, or a checkpoint of ours.")
    ],
    out: WorkFolder = None,
) -> None:
    """Talk with a model; it learns from the better answers that you type, and remembers them after a restart.

    Type a request; then + (good), - (bad), or = and the better answer. /undo and /forget N take back, /quit ends.
    """
    from swarm.chat.session import Chat
    from swarm.chat.talk import Talk
    from swarm.coordinator.protocol import Terminal

    folder = out or Path("runs") / f"chat-{Path(model).name}"
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # lines can be edited and recalled
    with Chat(model, folder) as opened:
        Talk(opened, Terminal(input, _print)).run()


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
