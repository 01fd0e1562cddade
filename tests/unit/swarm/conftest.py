"""A place for commands to work in, with stand-ins for what they start."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from fakes.command_line import EXPERIMENT, FakeProcess

from swarm.commands import watcher


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWARM_TRACEBACK", raising=False)
    monkeypatch.setattr(watcher, "subprocess", SimpleNamespace(Popen=FakeProcess, DEVNULL=None))
    FakeProcess.started = []
    (tmp_path / "x.yaml").write_text(EXPERIMENT)
    return tmp_path


@pytest.fixture
def provide(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a stand-in for a module of the project where the commands import it."""

    def put(name: str, **members: Any) -> None:
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)

    return put
