"""The `swarm` command: its list of subcommands and the one place where errors become lines and exit codes.

Owns the exit codes: 0 done, 1 a failed run or check, 2 a mistake in the input, 70 a bug, 129, 130 and 143 ended by
SIGHUP, Ctrl-C and SIGTERM. It refuses to know what commands do (`swarm.commands`, one file each) and imports nothing
heavy, so that `swarm --help` is fast.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:  # `python -m` searches the current folder first
    sys.path.append(sys.path.pop(0))

import functools
import os
import signal
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Annotated, Any

import typer

from swarm.commands import (
    baseline,
    chat,
    check,
    compare,
    data,
    doctor,
    entities,
    evaluate,
    export,
    lab,
    measure,
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
from swarm.errors import Outage, SwarmError, WorkFailedError, first_line
from swarm.process.console import UnreadError, settle
from swarm.process.machine import shortage
from swarm.process.signals import stop_by_signals, stopped_by
from ulm.caches import settle_caches

TRACEBACK_VARIABLE = "SWARM_TRACEBACK"

app = typer.Typer(
    name="swarm",
    help="Swarms of micro language models: run, watch, replay, and compare at equal compute.",
    epilog="Start here: swarm run puzzle",
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
        except (typer.Exit, typer.Abort):
            raise
        except BaseException as error:
            if os.environ.get(TRACEBACK_VARIABLE):
                import traceback

                traceback.print_exc()
            raise typer.Exit(_explain(error)) from None

    return call


def _explain(error: BaseException) -> int:
    """Print what the user needs to know about `error` and return the exit code."""
    if number := stopped_by():  # libraries wrap what a handler raises
        return 128 + number
    if isinstance(error, UnreadError):
        return 0
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    protocol = sys.modules.get("worlds.protocol")  # not loaded: then no WorldError can have been raised
    if isinstance(error, SwarmError) or (protocol and isinstance(error, protocol.WorldError)):
        for line in str(error).splitlines() or ["unknown"]:
            typer.echo(f"error: {line}", err=True)
        return 1 if isinstance(error, WorkFailedError | Outage) else 2
    if isinstance(error, typer.TyperException):  # says nothing where it has shown the help
        if said := error.format_message():
            context = getattr(error, "ctx", None)
            way_out = f"; `{context.command_path} -h` shows what there is" if context else ""
            typer.echo(f"error: {said[0].lower()}{' '.join(said[1:].split()).rstrip('.')}{way_out}", err=True)
        return error.exit_code
    if isinstance(error, OSError):  # the machine's: no space, no right, a name that is too long
        place = f" ({error.filename})" if error.filename else ""
        said = " ".join((error.strerror or first_line(error)).split())
        typer.echo(f"error: {said}{place}; `swarm doctor` checks the disk and its rights", err=True)
        return 1
    if (short := shortage(error)) is not None:
        typer.echo(f"error: {short}", err=True)
        return 1
    text = " ".join(f"{type(error).__name__}: {error}".split())
    hint = f"this is a bug; run with {TRACEBACK_VARIABLE}=1 for the traceback"
    typer.echo(f"error: {text[:500]}; {hint}", err=True)
    return 70


_PANELS: dict[str, tuple[ModuleType, ...]] = {
    "Run": (run, check, resume, watch, steer, replay, report, measure),
    "Talk": (chat,),
    "Compare": (compare, baseline),
    "Train and export": (train, export),
    "Lab: memories measured": (lab, mqar, evaluate),
    "Worlds and machine": (worlds, settings, doctor),
}
"""Commands by the panel of `swarm --help`; a module's function has its name, unless `NAME` says otherwise."""

for _panel, _modules in _PANELS.items():
    for _module in _modules:
        _function = _module.__name__.rpartition(".")[2]
        app.command(getattr(_module, "NAME", _function), epilog=f"Example: {_module.EXAMPLE}", rich_help_panel=_panel)(
            _bounded(getattr(_module, _function))
        )


_GROUPS: dict[str, tuple[str, str, dict[str, tuple[Callable[..., None], str]]]] = {
    "memory": (
        "Run",
        "Look into what agents remember and learned, and take it back.",
        {
            "show": (memory.show, memory.EXAMPLE),
            **{name: (getattr(memory, name), example) for name, example in memory.EXAMPLES.items()},
            **{name: (getattr(entities, name), example) for name, example in entities.EXAMPLES.items()},
        },
    ),
    "models": (
        "Train and export",
        "Pretrained models by short name.",
        {"fetch": (models.fetch, models.EXAMPLE), "list": (models.show, "swarm models list")},
    ),
    "data": (
        "Lab: memories measured",
        "Sets of questions for training and measuring memories.",
        {"exact-match": (data.exact_match, data.EXAMPLE)},
    ),
    "new": (
        "Worlds and machine",
        "Start a world or a policy of your own.",
        {"world": (new.world, new.EXAMPLE), "policy": (new.policy, new.POLICY_EXAMPLE)},
    ),
}
"""Commands of the form `swarm NAME COMMAND`: panel, what they are about, and each with its function and example."""

for _name, (_panel, _about, _commands) in _GROUPS.items():
    _group = typer.Typer(help=_about, no_args_is_help=True)
    for _command, (_member, _example) in _commands.items():
        _group.command(_command, epilog=f"Example: {_example}")(_bounded(_member))
    app.add_typer(_group, name=_name, rich_help_panel=_panel)


def main() -> None:
    """Run the command line of this process; never returns normally."""
    if sys.platform == "win32":
        typer.echo("error: swarm runs on Linux and macOS; on Windows install it in WSL (wsl --install)", err=True)
        sys.exit(2)
    settle()
    stop_by_signals()
    settle_caches()
    try:
        code = app(prog_name="swarm", standalone_mode=False) or 0
        sys.exit(128 + number if code and (number := stopped_by()) else code)
    except typer.Abort:
        sys.exit(1)
    except KeyboardInterrupt:  # before there was a command that it could end
        sys.exit(128 + (stopped_by() or signal.SIGINT))
    except Exception as error:  # beside the commands: a wrong option, help that cannot be written
        sys.exit(_explain(error))


if __name__ == "__main__":
    main()
