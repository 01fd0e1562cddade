"""Corpus folders: the split, the exact sizes, and what is found when a folder is opened."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.corpus_files import TEXTS, VOCAB, jsonl, source, texts_of, write

from ulm.data import corpus as module
from ulm.data.corpus import BIN_TYPES, SPLITS, Corpus, prepare_corpus
from ulm.data.documents import CorpusError, CorpusSource
from ulm.tokenizer import Tokenizer

# ---- split


def count(corpus: Corpus) -> int:
    return sum(corpus.num_documents(split) for split in SPLITS)


@pytest.mark.parametrize(("share", "held_out"), [(0.0, 1), (0.1, 1), (0.4, 2), (0.99, 4), (1.0, 4)])
def test_at_least_one_document_is_held_out_and_never_all(
    tmp_path: Path, texts: Path, share: float, held_out: int
) -> None:
    corpus = prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=VOCAB, val_share=share)
    assert (corpus.num_documents("train"), corpus.num_documents("val")) == (5 - held_out, held_out)


def test_every_document_is_in_one_part_exactly_once(tmp_path: Path, texts: Path) -> None:
    corpus = prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=VOCAB, val_share=0.4)
    train, val = texts_of(corpus, "train"), texts_of(corpus, "val")
    assert not set(train) & set(val)
    assert sorted(train + val) == sorted(TEXTS)


def test_every_source_gives_to_both_parts(tmp_path: Path) -> None:
    sources = [source(jsonl(tmp_path / f"{name}.jsonl", [f"{name} {i}" for i in range(3)])) for name in "abc"]
    corpus = prepare_corpus(sources, tmp_path / "corpus", tokenizer=VOCAB)
    assert [text[0] for text in texts_of(corpus, "train")] == list("aabbcc")
    assert [text[0] for text in texts_of(corpus, "val")] == list("abc")


def test_a_source_can_have_a_share_of_its_own(tmp_path: Path) -> None:
    sources = [
        source(jsonl(tmp_path / f"{name}.jsonl", [f"{name} {i}" for i in range(10)]), val_share=share)
        for name, share in (("a", None), ("b", 0.5))
    ]
    corpus = prepare_corpus(sources, tmp_path / "corpus", tokenizer=VOCAB, val_share=0.2)
    assert [text[0] for text in texts_of(corpus, "val")] == list("aabbbbb")


def test_documents_are_known_by_their_source(tmp_path: Path, hub: Callable[..., None]) -> None:
    hub(lambda *args, **options: [{"text": f"hub {i}"} for i in range(4)])
    plain = jsonl(tmp_path / "plain.jsonl", [f"plain {i}" for i in range(3)])
    named = jsonl(tmp_path / "other.jsonl", [f"named {i}" for i in range(5)])
    sources = [source(plain), CorpusSource(hub="hub"), source(named, name="named")]
    corpus = prepare_corpus(sources, tmp_path / "corpus", tokenizer=VOCAB, val_share=0.4)
    for split, counts in (("train", [2, 2, 3]), ("val", [1, 2, 2])):
        found = corpus.sources(split)
        assert {name: int(chosen.sum()) for name, chosen in found.items()} == dict(
            zip(("plain", "hub", "named"), counts, strict=True)
        )
        for i, text in enumerate(texts_of(corpus, split)):
            assert [name for name, chosen in found.items() if chosen[i]] == [text.split()[0]]


def test_sources_of_the_same_name_are_refused(tmp_path: Path) -> None:
    sources = [source(jsonl(tmp_path / place / "texts.jsonl", TEXTS)) for place in "ab"]
    with pytest.raises(CorpusError, match="several sources are called 'texts'; tell them apart by `name`"):
        prepare_corpus(sources, tmp_path / "corpus", tokenizer=VOCAB)


def books(folder: Path, lengths: tuple[int, ...] = (4, 1, 3, 5, 2)) -> CorpusSource:
    """Text files of several documents each, such as `book1 2`."""
    for number, length in enumerate(lengths):
        write(folder / f"book{number}.txt", "\n\n".join(f"book{number} {i}" for i in range(length)))
    return source(folder / "*.txt", separator="\n\n", by_file=True, name="books")


def test_whole_files_are_held_out(tmp_path: Path) -> None:
    for seed in range(5):
        folder = tmp_path / f"corpus{seed}"
        corpus = prepare_corpus([books(tmp_path)], folder, tokenizer=VOCAB, seed=seed, val_share=0.4)
        train, val = ({text.split()[0] for text in texts_of(corpus, split)} for split in SPLITS)
        assert (len(train), len(val), len(train & val)) == (3, 2, 0)
        assert count(corpus) == 15


def test_without_by_file_a_file_is_parted(tmp_path: Path) -> None:
    parted = replace(books(tmp_path), by_file=False)
    corpus = prepare_corpus([parted], tmp_path / "corpus", tokenizer=VOCAB, val_share=0.4)
    train, val = ({text.split()[0] for text in texts_of(corpus, split)} for split in SPLITS)
    assert train & val


def test_samples_count_documents_over_all_files(tmp_path: Path) -> None:
    limited = replace(books(tmp_path), samples=6)
    corpus = prepare_corpus([limited], tmp_path / "corpus", tokenizer=VOCAB)
    expected = [f"book{number} {i}" for number, length in ((0, 4), (1, 1), (2, 1)) for i in range(length)]
    assert sorted(texts_of(corpus, "train") + texts_of(corpus, "val")) == expected


def test_a_single_file_cannot_be_held_out(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="books is a single file, which cannot be split"):
        prepare_corpus([books(tmp_path, (4,))], tmp_path / "corpus", tokenizer=VOCAB)


def test_a_hub_has_no_files_to_hold_out(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="some/texts comes from a hub, which has no files; leave out `by_file`"):
        prepare_corpus([CorpusSource(hub="some/texts", by_file=True)], tmp_path / "corpus", tokenizer=VOCAB)


def test_the_split_follows_from_the_seed(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "texts.jsonl", [f"text {i}" for i in range(40)])

    def held_out(seed: int, name: str) -> list[str]:
        return texts_of(prepare_corpus([source(path)], tmp_path / name, tokenizer=VOCAB, seed=seed), "val")

    first = held_out(0, "a")
    assert len(first) == 4
    assert held_out(0, "b") == first
    assert held_out(1, "c") != first


def test_a_single_document_cannot_be_split(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one document")
    with pytest.raises(CorpusError, match=r"a is a single document.*give more files, or a `separator`"):
        prepare_corpus([source(path)], tmp_path / "corpus", tokenizer=VOCAB)
    assert not (tmp_path / "corpus").exists()


# ---- tokenizer


def test_the_tokenizer_is_trained_on_the_training_part_only(tmp_path: Path, texts: Path) -> None:
    corpus = prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=VOCAB, val_share=0.4)
    train = texts_of(corpus, "train")
    assert corpus.tokenizer.to_json() == Tokenizer.train(train, VOCAB).to_json()
    assert corpus.tokenizer.to_json() != Tokenizer.train(TEXTS, VOCAB).to_json()


def test_a_tokenizer_can_be_given(tmp_path: Path, texts: Path) -> None:
    Tokenizer.bytes().save(tmp_path / "tokenizer.json")
    corpus = prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=str(tmp_path / "tokenizer.json"))
    assert corpus.tokenizer.to_json() == Tokenizer.bytes().to_json()
    assert corpus.sizes("train")[0].tolist() == corpus.sizes("train")[2].tolist()  # a token is a byte


def test_a_damaged_tokenizer_is_refused(tmp_path: Path, texts: Path) -> None:
    path = write(tmp_path / "tokenizer.json", "{")
    with pytest.raises(CorpusError, match=r"cannot read tokenizer .*tokenizer\.json"):
        prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=str(path))


def test_a_vocabulary_too_large_for_the_bin_type_names_the_larger_one(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BIN_TYPES, "uint16", 258)
    with pytest.raises(CorpusError, match=r"has 259 tokens, more than bin_type uint16 .*\(258\); set bin_type: uint32"):
        prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=259)
    assert not (tmp_path / "corpus").exists()
    monkeypatch.setitem(BIN_TYPES, "uint16", 259)
    assert prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=259).tokenizer.vocab_size == 259


# ---- content


@pytest.mark.parametrize("bin_type", list(BIN_TYPES))
def test_a_document_is_end_of_text_and_its_tokens(tmp_path: Path, texts: Path, bin_type: str) -> None:
    corpus = prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=VOCAB, bin_type=bin_type, val_share=0.4)
    for split in SPLITS:
        documents = [corpus.document(split, i) for i in range(corpus.num_documents(split))]
        assert all(document.dtype == np.int64 for document in documents)
        expected = [[corpus.tokenizer.eot_id, *corpus.tokenizer.encode(text)] for text in texts_of(corpus, split)]
        assert [document.tolist() for document in documents] == expected
        assert corpus.stream(split).tolist() == [token for document in expected for token in document]
        width = np.dtype(bin_type).itemsize
        assert (tmp_path / "corpus" / f"{split}.bin").stat().st_size == width * sum(map(len, expected))


def test_tokens_are_read_by_place_and_sources_follow_each_other(tmp_path: Path) -> None:
    sources = [source(jsonl(tmp_path / f"{name}.jsonl", [f"{name} {i}" for i in range(3)])) for name in "abc"]
    corpus = prepare_corpus(sources, tmp_path / "corpus", tokenizer=VOCAB)
    places, stream = corpus.places("train"), corpus.stream("train")
    assert [places["a"].start, places["b"].start, places["c"].start] == [0, places["a"].stop, places["b"].stop]
    assert places["c"].stop == len(stream)
    for name, place in places.items():
        found = corpus.tokens("train", place.start, place.stop)
        assert found.dtype == np.int64
        assert found.tolist() == stream[place.start : place.stop].tolist()
        assert set(corpus.tokenizer.decode(found.tolist())) <= {name, *" 012"}


def test_of_much_text_a_tokenizer_is_trained_on_a_part(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENIZER_BYTES", 60)
    corpus = prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=VOCAB, val_share=0.0)
    part = texts_of(corpus, "train")[::3]
    assert corpus.tokenizer.to_json() == Tokenizer.train(part, VOCAB).to_json()


def test_more_documents_than_a_batch_keep_their_order(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    corpus = prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=VOCAB, val_share=0.0)
    train = texts_of(corpus, "train")
    assert len(train) == 4
    assert train == [text for text in TEXTS if text in train]


def test_tokens_characters_and_bytes_are_counted_exactly(tmp_path: Path, texts: Path) -> None:
    corpus = prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=VOCAB, val_share=0.4)
    for split in SPLITS:
        found = texts_of(corpus, split)
        tokens = [len(corpus.tokenizer.encode(text)) for text in found]
        characters, sizes = [len(text) for text in found], [len(text.encode()) for text in found]
        assert corpus.sizes(split).tolist() == [tokens, characters, sizes]
        assert characters != sizes
        assert corpus.manifest["splits"][split] == {
            "documents": len(found),
            "tokens": sum(tokens),
            "characters": sum(characters),
            "bytes": sum(sizes),
        }


def test_progress_is_told(tmp_path: Path, texts: Path) -> None:
    lines: list[str] = []
    prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=VOCAB, echo=lines.append)
    assert lines[0] == "texts: 5 documents, 1 held out"
    assert [line.partition(",")[0] for line in lines[1:]] == ["train: 4 documents", "val: 1 documents"]


# ---- the folder


def test_the_same_recipe_opens_the_folder_and_writes_nothing(texts: Path, prepared: Path, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in prepared.iterdir()}
    moved = texts.rename(write(tmp_path / "elsewhere" / "texts.jsonl", ""))  # what counts is content, not place
    lines: list[str] = []
    again = prepare_corpus([source(moved)], prepared, tokenizer=VOCAB, echo=lines.append)
    assert count(again) == len(TEXTS)
    assert lines == []
    assert {path.name: path.stat().st_mtime_ns for path in prepared.iterdir()} == before


@pytest.mark.parametrize("change", ["text", "tokenizer", "val_share", "seed", "bin_type", "column"])
def test_a_folder_of_another_recipe_is_refused(texts: Path, prepared: Path, change: str) -> None:
    if change == "text":
        write(texts, texts.read_text().replace("alpha", "omega"))
    options: dict[str, Any] = {"tokenizer": VOCAB, "val_share": 0.1, "seed": 0, "bin_type": "uint16"}
    changed = {"tokenizer": VOCAB + 1, "val_share": 0.2, "seed": 1, "bin_type": "uint32"}
    options |= {change: changed[change]} if change in changed else {}
    column = "id" if change == "column" else "text"
    before = {path.name: path.read_bytes() for path in prepared.iterdir()}
    with pytest.raises(CorpusError, match="prepared from another recipe; choose another folder, or remove this one"):
        prepare_corpus([source(texts, column=column)], prepared, **options)
    assert {path.name: path.read_bytes() for path in prepared.iterdir()} == before


@pytest.mark.parametrize("as_folder", [False, True])
def test_another_tokenizer_of_the_same_file_name_is_another_recipe(
    tmp_path: Path, texts: Path, as_folder: bool
) -> None:
    names = []
    for place, tokenizer in (("a", Tokenizer.bytes()), ("b", Tokenizer.train(TEXTS, VOCAB)), ("c", Tokenizer.bytes())):
        folder = tmp_path / place / "tok"
        folder.mkdir(parents=True)
        tokenizer.save(folder / "tokenizer.json")
        names.append(str(folder if as_folder else folder / "tokenizer.json"))
    prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=names[0])
    with pytest.raises(CorpusError, match="another recipe"):
        prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=names[1])
    same = prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=names[2])
    assert same.tokenizer.vocab_size == Tokenizer.bytes().vocab_size


def test_an_opened_folder_gives_what_was_prepared(texts: Path, tmp_path: Path) -> None:
    written = prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=VOCAB)
    opened = Corpus.open(tmp_path / "corpus")
    assert opened.manifest == written.manifest
    assert [texts_of(opened, split) for split in SPLITS] == [texts_of(written, split) for split in SPLITS]
    assert (opened.tokenizer.pad_id, opened.tokenizer.eot_id) == (0, 1)


@pytest.mark.parametrize("name", ["train.bin", "val.bin", "train.documents.npy", "val.documents.npy", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_damaged_file_is_refused_by_name(prepared: Path, texts: Path, name: str, damage: str) -> None:
    path = prepared / name
    data = path.read_bytes()
    if damage == "flipped":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "truncated":
        path.write_bytes(data[:-2])
    else:
        path.unlink()
    with pytest.raises(CorpusError, match=re.escape(name) + " is missing or damaged; remove .* and prepare it again"):
        Corpus.open(prepared)
    with pytest.raises(CorpusError, match="is missing or damaged"):
        prepare_corpus([source(texts)], prepared, tokenizer=VOCAB)


@pytest.mark.parametrize("content", ["", '{"format": ', "[]", "{}", "\ud83d"])
def test_a_damaged_manifest_is_refused(prepared: Path, content: str) -> None:
    (prepared / "manifest.json").write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(CorpusError, match=r"manifest\.json is damaged; remove .* and prepare it again"):
        Corpus.open(prepared)


def test_a_folder_of_another_format_is_refused_by_number(prepared: Path) -> None:
    manifest = json.loads((prepared / "manifest.json").read_text())
    (prepared / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(CorpusError, match="format 2, this version reads 1"):
        Corpus.open(prepared)


def test_a_folder_that_is_not_there_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no prepared corpus in .* run the stage `prepare` first"):
        Corpus.open(tmp_path / "corpus")


def test_an_unfinished_folder_is_refused_and_prepared_again(texts: Path, prepared: Path) -> None:
    (prepared / "manifest.json").unlink()
    (prepared / "train.bin").write_bytes(b"half")
    with pytest.raises(CorpusError, match="no prepared corpus"):
        Corpus.open(prepared)
    with pytest.raises(CorpusError, match=r"not empty \(it holds .*\); choose another folder, or remove this one"):
        prepare_corpus([source(texts)], prepared, tokenizer=VOCAB)  # it may be somebody's train.bin
    shutil.rmtree(prepared)
    assert count(prepare_corpus([source(texts)], prepared, tokenizer=VOCAB)) == len(TEXTS)


def test_a_kill_while_writing_leaves_no_folder_and_is_no_obstacle(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "corpus"
    write_split = module._write_split

    def killed(place: Path, split: module.Split, *arguments: Any) -> dict[str, int]:
        if split == "val":
            raise KeyboardInterrupt
        return write_split(place, split, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_split", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare_corpus([source(texts)], folder, tokenizer=VOCAB)
    assert not folder.exists()
    assert count(prepare_corpus([source(texts)], folder, tokenizer=VOCAB)) == len(TEXTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "texts.jsonl"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, texts: Path) -> None:
    folder = write(tmp_path / "file", "in the way") / "corpus"
    with pytest.raises(CorpusError, match=r"cannot write .*file/corpus"):
        prepare_corpus([source(texts)], folder, tokenizer=VOCAB)
