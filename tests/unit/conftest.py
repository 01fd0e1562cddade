"""The command line in this process; and for corpora: texts, a prepared corpus, and a hub that answers from here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.corpus_files import TEXTS, VOCAB, jsonl, source

from swarm import cli
from ulm.data.corpus import prepare_corpus


@pytest.fixture
def swarm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that runs a command line and returns its exit code."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["swarm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(str(ended.value.code or 0))

    return call


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "texts.jsonl", TEXTS)


@pytest.fixture
def prepared(tmp_path: Path, texts: Path) -> Path:
    prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=VOCAB)
    return tmp_path / "corpus"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Return a function that puts a `load_dataset` in place of the package datasets."""

    def install(load_dataset: Callable[..., Any]) -> None:
        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))

    return install
