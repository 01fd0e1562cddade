"""The Python API: the example of its page runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_example_of_the_api_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/reference/api.md").read_text(), re.DOTALL)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    exec(compile(code, "api.md", "exec"), {"print": lambda *words: said.append(" ".join(map(str, words)))})  # noqa: S102
    assert re.fullmatch(r"[0-2] of 2 solved", said[0])
    assert len(said) > 4
    assert len(code.strip().splitlines()) <= 16
