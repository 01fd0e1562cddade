"""Number worlds whose solver of lessons must not be asked; the drawing of solvable puzzles stays."""

from __future__ import annotations

import pytest


def without_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every search for expressions raise."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the solver was asked")

    for name in ("expressions", "_terms", "_kept_terms", "_build_terms", "sub_targets", "complete", "combine"):
        monkeypatch.setattr(f"worlds.numbers.solver.{name}", fail)
    for name in ("shortest", "four_tiles"):
        monkeypatch.setattr(f"worlds.numbers.lessons.{name}", fail)
