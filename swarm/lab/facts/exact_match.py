"""Exact-match sets: questions with one right answer, keys that were told and keys that were not kept apart.

- A record is told (`train`), or asks for a fact: in the words in which it was told, in other words (a paraphrase), or
  about a key that was never told.
- The same file and the same tables give the same sets, byte by byte.
- Knows no model.
"""

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from swarm.errors import SwarmError
from swarm.files import path_in, read_text, write_whole
from swarm.identity import work_folder
from swarm.lab.facts.config import CategoryConfig, ExactMatchConfig

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True, slots=True)
class ExactMatch:
    """One question.

    Attributes:
        category, relation, key: what is asked; `relation` is empty for questions that people asked.
        kind: `told`, `same` words as told, `paraphrase`, or `unseen` key.
        prompt, answer: what is read, and what should follow.
        question: the question alone.
    """

    category: str
    relation: str
    key: str
    kind: Literal["told", "same", "paraphrase", "unseen"]
    question: str
    prompt: str
    answer: str

    @property
    def about(self) -> tuple[str, str, str]:
        """What is asked: category, relation, key."""
        return self.category, self.relation, self.key


def build_exact_match(config: ExactMatchConfig, folder: Path) -> dict[Split, list[ExactMatch]]:
    """Return the records of each split.

    Args:
        config: what to build.
        folder: where tables are looked for.

    Raises:
        SwarmError: a table is missing or does not hold what the file says.
    """
    sets: dict[Split, list[ExactMatch]] = {"train": [], "valid": [], "test": []}
    for name, category in config.categories.items():
        generator = np.random.Generator(np.random.PCG64([config.seed, *name.encode()]))
        source = _tabled if category.questions is None else _asked
        for split, record in source(config, name, category, folder, generator):
            sets[split].append(record)
    return sets


def write_exact_match(config: ExactMatchConfig, folder: Path, out: Path) -> dict[str, Any]:
    """Write train.jsonl, valid.jsonl, test.jsonl and manifest.json; return the manifest.

    Raises:
        SwarmError: as `build_exact_match`, or `out` cannot be written or holds something else.
    """
    sets = build_exact_match(config, folder)
    manifest: dict[str, Any] = {"config": config.model_dump(mode="json"), "splits": {}}
    texts = {}
    for split, records in sets.items():
        text = "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
        texts[f"{split}.jsonl"] = text
        counts = Counter((record.category, record.kind) for record in records)
        manifest["splits"][split] = {
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "records": len(records),
            "by_category": {f"{category}/{kind}": number for (category, kind), number in sorted(counts.items())},
        }
    texts["manifest.json"] = json.dumps(manifest, indent=1) + "\n"
    with work_folder(out, "data"):
        for name, text in texts.items():
            write_whole(out / name, text)
    return manifest


def _record(
    config: ExactMatchConfig, category: str, relation: str, key: str, kind: Any, question: str, value: str
) -> ExactMatch:
    prompt = config.categories[category].prompt or config.prompt
    answer = config.answer.replace("{value}", value)
    return ExactMatch(category, relation, key, kind, question, prompt.replace("{question}", question), answer)


def _tabled(
    config: ExactMatchConfig, name: str, category: CategoryConfig, folder: Path, generator: np.random.Generator
) -> Iterator[tuple[Split, ExactMatch]]:
    rows = _rows(name, category, folder, generator)
    rows = [rows[i] for i in sorted(generator.permutation(len(rows))[: category.count])]
    order = generator.permutation(len(rows))[: round(config.unseen * len(rows))].tolist()
    hidden: dict[int, Split] = {i: "test" if place % 2 else "valid" for place, i in enumerate(order)}
    for number, row in enumerate(rows):
        for relation, wanted in category.relations.items():
            if wanted.value not in row:
                raise _no_column(name, wanted.value, row)
            value = (row[wanted.value].split(",")[0] if category.first else row[wanted.value]).strip()
            told: list[tuple[Split, str, tuple[str, ...]]] = [
                ("train", "told", wanted.train),
                ("test", "same", wanted.train),
                ("valid", "paraphrase", wanted.valid),
                ("test", "paraphrase", wanted.test),
            ]
            key = row[category.key]
            for split, kind, wordings in [(hidden[number], "unseen", wanted.train)] if number in hidden else told:
                for wording in wordings:
                    yield split, _record(config, name, relation, key, kind, wording.replace("{key}", key), value)


def _no_column(name: str, column: str, row: dict[str, str]) -> SwarmError:
    return SwarmError(f"category {name}: no column {column!r}; there are: {', '.join(list(row)[:12])}")


def _asked(
    config: ExactMatchConfig, name: str, category: CategoryConfig, folder: Path, generator: np.random.Generator
) -> Iterator[tuple[Split, ExactMatch]]:
    asked: Any = category.questions
    for split, file in (("train", path_in(folder, asked.train)), ("test", path_in(folder, asked.test))):
        rows = _read_csv(name, file)
        held_out = set(generator.permutation(len(rows))[: round(asked.valid_share * len(rows))].tolist())
        for number, row in enumerate(rows):
            if missing := [column for column in (asked.question, asked.answer) if column not in row]:
                raise _no_column(name, missing[0], row)
            question, value = row[asked.question].strip(), row[asked.answer].strip().replace("_", " ")
            kept: Any = "valid" if split == "train" and number in held_out else split
            kind = "told" if kept == "train" else "paraphrase"
            yield kept, _record(config, name, "", value, kind, question, value)


def _rows(name: str, category: CategoryConfig, folder: Path, generator: np.random.Generator) -> list[dict[str, str]]:
    """Return a category's rows, each key once, those that lack the key or a value left out."""
    rows = (
        _GENERATORS[category.generate](generator, category.count)
        if category.generate
        else _read_table(name, category, path_in(folder, str(category.file)))
    )
    kept: dict[str, dict[str, str]] = {}
    wanted = {relation.value for relation in category.relations.values()}
    for row in rows:
        if category.key not in row:
            raise _no_column(name, category.key, row)
        key = row[category.key].strip()
        fits = key and category.where.items() <= row.items()
        if fits and all(row.get(column, "").strip() for column in wanted if column in row):
            kept.setdefault(key, {**row, category.key: key})
    if len(kept) < 2:
        raise SwarmError(f"category {name}: fewer than two rows have a key and a value; look at `key`, `where`, `file`")
    return list(kept.values())


def _read_table(name: str, category: CategoryConfig, file: Path) -> list[dict[str, str]]:
    if category.pattern is not None:
        found = (
            re.fullmatch(category.pattern, line)
            for line in read_text(f"category {name}", file, "utf-8-sig").splitlines()
        )
        return [match.groupdict() for match in found if match is not None]
    if file.suffix == ".json":
        text = read_text(f"category {name}", file, "utf-8-sig")
        try:
            data = TypeAdapter(dict[str, str]).validate_json(text)
        except ValidationError as error:
            raise SwarmError(f"category {name}: {file} must hold one JSON object of keys and texts") from error
        return [{"key": key, "value": value} for key, value in data.items()]
    return _read_csv(name, file)


def _read_csv(name: str, file: Path) -> list[dict[str, str]]:
    rows = csv.DictReader(read_text(f"category {name}", file, "utf-8-sig").splitlines(keepends=True))
    try:
        return [{column: value for column, value in row.items() if column and isinstance(value, str)} for row in rows]
    except csv.Error as error:
        raise SwarmError(f"category {name}: {file}, line {rows.line_num} is no CSV: {error}") from error


def _code(generator: np.random.Generator, number: int) -> str:
    return f"{number:04d}-" + "".join(chr(97 + int(c)) for c in generator.integers(0, 26, 2))


def _pairs(generator: np.random.Generator, count: int) -> list[dict[str, str]]:
    """Identifiers such as `key-4711-qf` with values such as `7302-bn`: nothing to guess, nothing to generalise."""
    keys = generator.permutation(max(10_000, count))[:count]
    return [
        {"key": f"K{_code(generator, k)}", "value": _code(generator, int(generator.integers(0, 10_000)))} for k in keys
    ]


_UNITS = (
    ("feet", "inches", 12), ("yards", "feet", 3), ("miles", "feet", 5280), ("meters", "centimeters", 100),
    ("kilometers", "meters", 1000), ("hours", "minutes", 60), ("days", "hours", 24), ("weeks", "days", 7),
    ("kilograms", "grams", 1000), ("pounds", "ounces", 16), ("gallons", "quarts", 4), ("minutes", "seconds", 60),
)  # fmt: skip


def _conversions(generator: np.random.Generator, count: int) -> list[dict[str, str]]:
    every = [
        {"key": f"{amount} {large} in {small}", "value": f"{amount * factor} {small}"}
        for large, small, factor in _UNITS
        for amount in range(2, 102)
    ]
    return [every[i] for i in generator.permutation(len(every))[:count]]


_WORDS = {
    "city": ("Oslo", "Lima", "Cairo", "Quito", "Delhi", "Tokyo", "Paris", "Rome", "Accra", "Sofia", "Riga", "Kyiv"),
    "job": ("nurse", "pilot", "baker", "tailor", "miner", "judge", "farmer", "dancer", "plumber", "editor", "guard"),
    "food": (
        "rice",
        "soup",
        "pasta",
        "bread",
        "curry",
        "salad",
        "beans",
        "fish",
        "cheese",
        "noodles",
        "dates",
        "plums",
    ),
    "colour": ("red", "blue", "green", "black", "white", "purple", "orange", "yellow", "brown", "pink", "grey"),
    "tone": ("formal", "friendly", "brief", "detailed", "playful", "direct"),
    "format": ("bullet points", "a table", "plain text", "numbered steps", "one sentence"),
}


def _people(
    generator: np.random.Generator, count: int, *, prefix: str, columns: tuple[str, ...]
) -> list[dict[str, str]]:
    """Keys such as `E0042`, each with one of the words of every column."""
    numbers = generator.permutation(max(10_000, count))[:count]
    return [
        {"key": f"{prefix}{number:04d}"}
        | {column: _WORDS[column][int(generator.integers(len(_WORDS[column])))] for column in columns}
        for number in numbers
    ]


_GENERATORS: dict[str, Any] = {
    "pairs": _pairs,
    "units": _conversions,
    "entities": partial(_people, prefix="E", columns=("city", "job", "food", "colour")),
    "preferences": partial(_people, prefix="user-", columns=("tone", "format", "colour", "food")),
}
