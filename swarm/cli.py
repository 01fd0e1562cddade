"""The `swarm` command: its list of subcommands and the one place where errors become lines and exit codes.

Owns the exit codes: 0 done, 1 a failed run or check, 2 a mistake in the input, 70 a bug, 130 interrupted. It
refuses to know what commands do (`swarm.commands`, one file each) and imports nothing heavy, so that
`swarm --help` is fast.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Annotated, Any

import typer

from swarm.commands import (
    baseline,
    compare,
    data,
    doctor,
    evaluate,
    export,
    lab,
    memory,
    models,
    mqar,
    new,
    replay,
    report,
    resume,
    run,
    settings,
    steer,
    train,
    watch,
    worlds,
)
from swarm.commands.failure import WorkFailedError
from swarm.errors import SwarmError

__all__ = ["app", "main"]

TRACEBACK_VARIABLE = "SWARM_TRACEBACK"

_MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}

app = typer.Typer(
    name="swarm",
    help="Swarms of micro language models: run, watch, replay, and compare at equal compute.",
    epilog="Start here: swarm run experiments/puzzle.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"swarm {version('ulm-swarm')}")
        except PackageNotFoundError:  # run from a checkout that was never installed
            typer.echo("swarm (not installed)")
        raise typer.Exit


@app.callback()
def _global_options(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    del show_version  # its callback has done the work


def _bounded(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command so that whatever it raises ends as one line on stderr and an exit code."""

    @functools.wraps(command)
    def call(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError:
            _silence_stdout()
            raise typer.Exit(1) from None
        except BaseException as error:
            if os.environ.get(TRACEBACK_VARIABLE):
                import traceback

                traceback.print_exc()
            raise typer.Exit(_explain(error)) from None

    return call


def _explain(error: BaseException) -> int:
    """Print what the user needs to know about `error` and return the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, SwarmError) or _is_world_error(error):
        for line in str(error).splitlines() or ["unknown"]:
            typer.echo(f"error: {line}", err=True)
        return 1 if isinstance(error, WorkFailedError) else 2
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
        place = f" ({error.filename})" if error.filename else ""
        typer.echo(f"error: {error.strerror}{place}; `swarm doctor` checks the disk and its rights", err=True)
        return 1
    text = " ".join(f"{type(error).__name__}: {error}".split())
    hint = f"this is a bug; run with {TRACEBACK_VARIABLE}=1 for the traceback"
    typer.echo(f"error: {text[:500]}; {hint}", err=True)
    return 70


def _is_world_error(error: BaseException) -> bool:
    module = sys.modules.get("worlds.protocol")  # not loaded: then none can have been raised
    return module is not None and isinstance(error, module.WorldError)


def _silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush cannot complain about a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _register(module: ModuleType) -> None:
    name = module.__name__.rpartition(".")[2]
    app.command(name, epilog=f"Example: {module.EXAMPLE}")(_bounded(getattr(module, name)))


for _module in (
    run,
    baseline,
    compare,
    watch,
    steer,
    resume,
    replay,
    report,
    train,
    export,
    lab,
    mqar,
    settings,
    worlds,
    doctor,
):
    _register(_module)
app.command("eval", epilog=f"Example: {evaluate.EXAMPLE}")(_bounded(evaluate.evaluate))


_memory = typer.Typer(help="Look into what agents remember.", no_args_is_help=True)
_memory.command("show", epilog=f"Example: {memory.EXAMPLE}")(_bounded(memory.show))
app.add_typer(_memory, name="memory")

_data = typer.Typer(help="Sets of questions for training and measuring memories.", no_args_is_help=True)
_data.command("exact-match", epilog=f"Example: {data.EXAMPLE}")(_bounded(data.exact_match))
app.add_typer(_data, name="data")

_new = typer.Typer(help="Start a package of your own.", no_args_is_help=True)
_new.command("world", epilog=f"Example: {new.EXAMPLE}")(_bounded(new.world))
app.add_typer(_new, name="new")

_models = typer.Typer(help="Pretrained models by short name.", no_args_is_help=True)
_models.command("fetch", epilog=f"Example: {models.EXAMPLE}")(_bounded(models.fetch))
_models.command("list", epilog="Example: swarm models list")(_bounded(models.show))
app.add_typer(_models, name="models")


def main() -> None:
    """Run the command line of this process; never returns normally."""
    app(prog_name="swarm")


if __name__ == "__main__":
    main()
