"""Exact-match sets: what is told, what is asked, and that they do not leak into each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from swarm.errors import SwarmError
from swarm.lab.facts.config import ExactMatchConfig
from swarm.lab.facts.exact_match import ExactMatch, build_exact_match, write_exact_match

CAPITAL = {
    "value": "capital",
    "train": ["What is the capital of {key}?"],
    "valid": ["{key}'s capital?"],
    "test": ["Name the capital of {key}."],
}


def config(**category: Any) -> ExactMatchConfig:
    prompt = "Question: {question}\nAnswer:"
    return ExactMatchConfig.model_validate({"name": "t", "seed": 1, "prompt": prompt, "categories": {"c": category}})


@pytest.fixture
def countries(tmp_path: Path) -> Path:
    rows = "".join(f'Land{n},"City{n}, Old{n}",{"yes" if n % 2 else "no"}\n' for n in range(20))
    (tmp_path / "countries.csv").write_text("name,capital,odd\n" + rows + "Nowhere,,yes\nLand1,Again,yes\n")
    return tmp_path


def test_told_and_unseen_keys_are_apart_and_paraphrases_are_in_other_words(countries: Path) -> None:
    sets = build_exact_match(
        config(file="countries.csv", key="name", first=True, relations={"capital": CAPITAL}), countries
    )
    told = {r.key for r in sets["train"]}
    unseen = {r.key: split for split in ("valid", "test") for r in sets[split] if r.kind == "unseen"}
    assert len(told) == 16
    assert sorted(unseen.values()) == ["test"] * 2 + ["valid"] * 2
    assert told | set(unseen) == {f"Land{n}" for n in range(20)}  # no row without a value, no key twice
    assert not told & set(unseen)
    assert {r.question for r in sets["train"]} == {r.question for r in sets["test"] if r.kind == "same"}
    paraphrases = {r.question for split in ("valid", "test") for r in sets[split] if r.kind == "paraphrase"}
    assert len(paraphrases) == 32
    assert not paraphrases & {r.question for r in sets["train"]}
    one = next(r for r in sets["test"] if r.key == min(told) and r.kind == "same")
    number = one.key.removeprefix("Land")
    assert (one.prompt, one.answer) == (
        f"Question: What is the capital of {one.key}?\nAnswer:",
        f" City{number}",
    )


def test_files_are_the_same_every_time_and_read_back(countries: Path, tmp_path: Path) -> None:
    wanted = config(file="countries.csv", key="name", where={"odd": "yes"}, count=6, relations={"capital": CAPITAL})
    first = write_exact_match(wanted, countries, tmp_path / "a")
    assert write_exact_match(wanted, countries, tmp_path / "b") == first
    assert (tmp_path / "a" / "test.jsonl").read_bytes() == (tmp_path / "b" / "test.jsonl").read_bytes()
    lines = (tmp_path / "a" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    assert [ExactMatch(**json.loads(line)) for line in lines] == build_exact_match(wanted, countries)["test"]
    assert first["splits"]["train"]["by_category"] == {"c/told": 5}


def test_a_category_may_have_its_own_prompt(tmp_path: Path) -> None:
    own = config(generate="pairs", count=4, prompt="{question} is", relations={"r": {"train": ["The code of {key}"]}})
    assert all(r.prompt == f"The code of {r.key} is" for r in build_exact_match(own, tmp_path)["train"])


@pytest.mark.parametrize("kind", ["pairs", "units", "entities", "preferences"])
def test_generated_keys_are_as_many_as_asked_for_and_differ(kind: str, tmp_path: Path) -> None:
    value = {"entities": "city", "preferences": "tone"}.get(kind, "value")
    relation = {"value": value, "train": ["{key}?"]}
    sets = build_exact_match(config(generate=kind, count=50, relations={"r": relation}), tmp_path)
    keys = {r.key for records in sets.values() for r in records}
    assert len(keys) == 50
    assert all(r.answer.strip() for r in sets["train"])


def test_questions_of_people_keep_their_own_test(tmp_path: Path) -> None:
    for name, count in (("train", 20), ("test", 6)):
        rows = "".join(f"{name} question {n},topic_{n % 3}\n" for n in range(count))
        (tmp_path / f"{name}.csv").write_text("text,category\n" + rows)
    sets = build_exact_match(config(questions={"train": "train.csv", "test": "test.csv"}), tmp_path)
    assert [len(sets[split]) for split in ("train", "valid", "test")] == [18, 2, 6]
    assert all(r.question.startswith("test") and r.kind == "paraphrase" for r in sets["test"])
    assert sets["test"][1].answer == " topic 1"


def test_text_and_json_tables(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ABC - a bit\nnothing here\nDEF - dead end\nGHI - go home\n")
    (tmp_path / "b.json").write_text(json.dumps({"404": "Not Found", "200": "OK"}))
    relation = {"train": ["{key}?"]}
    text = config(file="a.txt", pattern="(?P<key>[A-Z]+) - (?P<value>.+)", relations={"r": relation})
    records = [r for split in build_exact_match(text, tmp_path).values() for r in split]
    assert {r.answer for r in records} == {" a bit", " dead end", " go home"}
    both = build_exact_match(config(file="b.json", relations={"r": relation}), tmp_path)
    assert {r.key for r in both["train"]} == {"200", "404"}


@pytest.mark.parametrize(
    ("category", "says"),
    [
        ({"relations": {"r": {"train": ["{key}?"]}}}, "one of `file`, `generate` and `questions`"),
        ({"file": "a.csv"}, "`relations` say what is asked"),
        ({"generate": "pairs", "relations": {"r": {"train": ["{key}?"]}}}, "needs a `count`"),
        ({"file": "a.csv", "relations": {"r": {"train": ["key?"]}}}, r"holds \{key\} once"),
        ({"file": "a.csv", "relations": {"r": {"train": ["{key}?"], "test": ["{key}?"]}}}, "stands twice"),
        ({"file": "a.txt", "pattern": "(", "relations": {"r": {"train": ["{key}?"]}}}, "no regular expression"),
        ({"file": "a.txt", "pattern": "(?P<key>.)", "relations": {"r": {"train": ["{key}?"]}}}, "groups"),
    ],
)
def test_mistakes_in_the_file_are_named(category: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        config(**category)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"file": "none.csv"}, "category c: cannot read .*none.csv"),
        ({"key": "title"}, "no column 'title'; there are: name, capital, odd"),
        ({"relations": {"r": {"value": "mayor", "train": ["{key}?"]}}}, "no column 'mayor'; there are: name"),
        ({"where": {"odd": "perhaps"}}, "fewer than two rows"),
    ],
)
def test_mistakes_in_tables_are_named(countries: Path, changes: dict[str, Any], says: str) -> None:
    wanted = {"file": "countries.csv", "key": "name", "relations": {"capital": CAPITAL}, **changes}
    with pytest.raises(SwarmError, match=says):
        build_exact_match(config(**wanted), countries)


def test_sets_are_not_written_among_other_files(countries: Path, tmp_path: Path) -> None:
    """Failed at a7f87d3: train.jsonl and manifest.json of anybody were replaced."""
    wanted = config(file="countries.csv", key="name", relations={"capital": CAPITAL})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.jsonl").write_text("mine")
    with pytest.raises(SwarmError, match=r"holds something else \(train.jsonl\)"):
        write_exact_match(wanted, countries, tmp_path / "mine")
    assert (tmp_path / "mine" / "train.jsonl").read_text() == "mine"
    for _ in range(2):
        write_exact_match(wanted, countries, tmp_path / "new")


def test_a_table_that_is_no_csv_is_named(countries: Path) -> None:
    """Failed at a7f87d3: "this is a bug"."""
    (countries / "countries.csv").write_text("name,capital\n" + "x" * 200_000 + ",y\n")
    with pytest.raises(SwarmError, match=r"category c: .*countries.csv, line \d is no CSV: field larger"):
        build_exact_match(config(file="countries.csv", key="name", relations={"capital": CAPITAL}), countries)
