"""What is left out of a corpus, and how it is counted."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes.corpus_files import VOCAB, jsonl, source, texts_of

from ulm.data.cleaning import Cleaner, Cleaning, repeated_lines
from ulm.data.corpus import prepare_corpus


def words(seed: int, count: int = 200) -> list[str]:
    generator = random.Random(seed)
    return ["".join(generator.choices("abcdefgh", k=5)) for _ in range(count)]


def kept(folder: Path, texts: Sequence[str], rules: Cleaning) -> tuple[list[str], dict[str, int]]:
    with Cleaner(folder / "seen.db") as cleaner:
        found = [text for text in texts if cleaner.keeps(text, rules)]
        return found, dict(cleaner.counts)


def test_each_rule_is_counted_by_itself(tmp_path: Path) -> None:
    texts = ["short", "x" * 30, "long enough", "a line\na line\na line\nanother", "long enough"]
    found, counts = kept(tmp_path, texts, Cleaning(length=(6, 29), repeated_lines=0.4))
    assert found == ["long enough"]
    assert counts == {"read": 5, "length": 2, "kept": 1, "repeated_lines": 1, "duplicates": 1}


def test_empty_lines_are_no_repetition() -> None:
    assert repeated_lines("one\n\ntwo\n\n\nthree") == 0
    assert repeated_lines("one\ntwo\n one\none") == 0.5
    assert repeated_lines("") == 0


def test_near_duplicates_are_found_and_other_texts_are_kept(tmp_path: Path) -> None:
    first = words(0)
    changed = [*first[:100], "other", *first[101:]]  # 5 of 196 runs differ
    texts = [" ".join(first), " ".join(changed).upper() + "!", *(" ".join(words(seed)) for seed in range(1, 200))]
    found, counts = kept(tmp_path, texts, Cleaning(near_duplicates=True))
    assert counts == {"read": 201, "kept": 200, "near_duplicates": 1}
    assert texts[1] not in found


def test_without_the_rule_near_duplicates_are_kept(tmp_path: Path) -> None:
    assert len(kept(tmp_path, ["one two three", "One, two, three!"], Cleaning())[0]) == 2


def test_half_of_another_text_is_no_near_duplicate(tmp_path: Path) -> None:
    texts = []
    for seed in range(0, 200, 2):
        half = words(seed, 100)
        texts += [" ".join(half + words(1000 + seed, 100)), " ".join(half + words(2000 + seed, 100))]
    found, _ = kept(tmp_path, texts, Cleaning(near_duplicates=True))
    assert len(found) > 0.95 * len(texts)


def test_one_language_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(classify=lambda text: ("de" if "das" in text else "en", -1.0))
    monkeypatch.setitem(sys.modules, "py3langid", fake)
    assert kept(tmp_path, ["das Haus", "the house"], Cleaning(language="en"))[0] == ["the house"]


def test_a_missing_package_names_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(ValueError, match=r"py3langid: pip install 'ulm-swarm\[data\]'"):
        kept(tmp_path, ["the house"], Cleaning(language="en"))


def test_the_package_tells_languages_apart(tmp_path: Path) -> None:
    pytest.importorskip("py3langid", reason="needs py3langid, of the extra data")
    texts = ["Once upon a time there was a little girl.", "Es war einmal ein kleines Mädchen, das hieß Rotkäppchen."]
    assert kept(tmp_path, texts, Cleaning(language="en"))[0] == texts[:1]


def test_a_corpus_is_cleaned_across_sources_and_says_so(tmp_path: Path) -> None:
    text = " ".join(words(0))
    first = jsonl(tmp_path / "first.jsonl", [text, "one", "two"])
    second = jsonl(tmp_path / "second.jsonl", [text + " more", "one", "three", "four"])
    lines: list[str] = []
    corpus = prepare_corpus(
        [source(path, cleaning=Cleaning(near_duplicates=True)) for path in (first, second)],
        tmp_path / "corpus",
        tokenizer=VOCAB,
        echo=lines.append,
    )
    assert sorted(texts_of(corpus, "train") + texts_of(corpus, "val")) == sorted([text, "one", "two", "three", "four"])
    assert corpus.manifest["cleaning"] == {
        "first": {"read": 3, "kept": 3},
        "second": {"read": 4, "near_duplicates": 1, "duplicates": 1, "kept": 2},
    }
    assert any(line == "second: 4 read, 1 near_duplicates, 1 duplicates, 2 kept" for line in lines)
    assert {path.name for path in (tmp_path / "corpus").iterdir()} >= {"manifest.json", "train.bin"}
    assert not list((tmp_path / "corpus").glob("*.db"))
