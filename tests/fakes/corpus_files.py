"""Small texts in files, for the tests of corpora."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ulm.data import corpus as module
from ulm.data.corpus import Corpus
from ulm.data.documents import CorpusSource, read_documents

VOCAB = 300
WORDS = ("alpha", "bravo", "cargo", "delta", "echo")
TEXTS = [f"{word} {word}s, {word}ing é € {number}" for number, word in enumerate(WORDS)]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(path: Path, texts: list[str], column: str = "text") -> Path:
    return write(path, "".join(json.dumps({column: text, "id": 1}) + "\n" for text in texts))


def source(*paths: Path, **options: Any) -> CorpusSource:
    return CorpusSource(files=tuple(map(str, paths)), **options)


def read(*paths: Path, **options: Any) -> list[str]:
    return list(read_documents(source(*paths, **options)))


def texts_of(corpus: Corpus, split: module.Split) -> list[str]:
    documents = (corpus.document(split, i) for i in range(corpus.num_documents(split)))
    return [corpus.tokenizer.decode(document[1:].tolist()) for document in documents]
