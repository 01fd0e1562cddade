"""What README and docs tell people to type is what the command line takes."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from swarm.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```bash\n(.*?)^```|^((?: {4}[^\n]*\n)+)", re.MULTILINE | re.DOTALL)
_IN_BLOCK = re.compile(r"^ *(?:\.venv/bin/)?(swarm [^#\n]*)", re.MULTILINE)
_INLINE = re.compile(r"`(swarm [a-z][^`\n]*)`")
_OF_THE_PROJECT = re.compile(r"^    ((?:make|\.venv/bin/swarm) [^#\n]*)", re.MULTILINE)
_CHECKED_BY_CI = {"make test", "make test-fast", "make test-all", "make check", "make docs", "make install"}


def commands(page: Path) -> list[str]:
    """Return the `swarm` commands that a page shows, without comments and placeholders in capitals."""
    text = page.read_text(encoding="utf-8")
    shown = [command for block in _BLOCK.finditer(text) for command in _IN_BLOCK.findall(block[1] or block[2])]
    found = (command.partition(" > ")[0].strip() for command in [*shown, *_INLINE.findall(text)])
    return [command for command in dict.fromkeys(found) if not re.search(r"\b[A-Z]{3,}\b|\.\.\.", command)]


def parse(arguments: list[str]) -> None:
    """Parse a command line as `swarm` would, and run nothing."""
    command, name = typer.main.get_command(app), "swarm"
    context = command.make_context(name, list(arguments))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        if not rest:  # a command that is only mentioned
            return
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize(
    ("page", "text"), [(page.relative_to(ROOT), text) for page in PAGES for text in commands(page)], ids=str
)
def test_every_command_that_is_shown_can_be_given(page: Path, text: str) -> None:
    try:
        parse(shlex.split(text)[1:])
    except typer.Exit:  # --help and the like
        pass
    except Exception as error:
        pytest.fail(f"{page}: {text}: {error}")


def test_readme_shows_commands() -> None:
    assert len(commands(ROOT / "README.md")) >= 4


def test_readme_names_every_command_group() -> None:
    rows = re.findall(r"`([a-z]+)`", (ROOT / "README.md").read_text().partition("## Commands")[2].partition("##")[0])
    assert set(typer.main.get_command(app).commands) <= {*rows, "help"}  # type: ignore[attr-defined]


@pytest.mark.readme
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "command",
    [c.strip() for c in _OF_THE_PROJECT.findall((ROOT / "README.md").read_text()) if c.strip() not in _CHECKED_BY_CI],
)
def test_readme_commands_run_as_they_are_written(command: str) -> None:
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S602
    assert done.returncode == 0, done.stderr[-2000:]
