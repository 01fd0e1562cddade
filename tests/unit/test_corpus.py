"""Corpus folders: what the readers take and refuse, the split, the exact sizes, and what is found when it is opened."""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ulm import corpus as module
from ulm.corpus import BIN_TYPES, SPLITS, Corpus, prepare_corpus
from ulm.documents import CorpusError, CorpusSource, read_documents
from ulm.tokenizer import Tokenizer

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


# ---- readers


@pytest.mark.parametrize("name", ["a.txt", "a.text", "a.md", "a.txt.gz", "a.v2.txt.gz"])
def test_a_text_file_without_separator_is_one_document(tmp_path: Path, name: str) -> None:
    data = "\ufeffone\r\n\r\ntwo é\n".encode()
    path = write(tmp_path / name, gzip.compress(data) if name.endswith(".gz") else data)
    assert read(path) == ["one\n\ntwo é"]


def test_a_separator_parts_a_text_file_and_empty_documents_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\n# x\ntwo\n= y\n\n# z\nthree")
    assert read(path, separator=r"\n[#=] \w\n") == ["one", "two", "three"]


@pytest.mark.parametrize("separator", [r"\n(#|=) \w\n", r"\n(?:(#)|=) \w\n"])
def test_groups_in_a_separator_are_no_documents(tmp_path: Path, separator: str) -> None:
    path = write(tmp_path / "a.txt", "one\n# x\ntwo\n= y\nthree")
    assert read(path, separator=separator) == ["one", "two", "three"]


def test_jsonl_gives_the_named_column_of_every_line(tmp_path: Path) -> None:
    plain = jsonl(tmp_path / "a.jsonl", ["one\ntwo", "  ", "thréé"], column="body")
    packed = write(tmp_path / "b.jsonl.gz", gzip.compress(plain.read_bytes() + b"\n\n"))
    assert read(plain, packed, column="body") == ["one\ntwo", "thréé"] * 2


def test_parquet_gives_the_named_column_without_nulls(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2, 3], "body": ["one", None, "thréé"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", column="body") == ["one", "thréé"]


def test_a_folder_is_read_in_order_of_paths_without_files_of_other_kinds(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "c.txt"):
        write(tmp_path / "texts" / name, name)
    write(tmp_path / "texts" / "a.png", b"\x89PNG\0")
    assert read(tmp_path / "texts") == ["a/z.md", "b.txt", "c.txt"]


def test_a_pattern_of_paths_is_read_in_order_of_paths(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "c.md", "a.txt"):
        write(tmp_path / "texts" / name, name)
    assert read(tmp_path / "texts" / "*.txt") == ["a.txt", "b.txt"]
    assert read(tmp_path / "texts" / "**" / "*.txt") == ["a/z.txt", "a.txt", "b.txt"]
    assert read(tmp_path / "te[x]ts") == ["a/z.txt", "a.txt", "b.txt", "c.md"]


def test_a_pattern_without_matches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no file matches .*\*\.txt"):
        read(tmp_path / "*.txt")


def test_a_file_whose_name_looks_like_a_pattern_is_read(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a[1].txt", "one")) == ["one"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "texts" / "a.txt", "one")
    assert read(path, tmp_path / "texts", tmp_path / "texts" / "*.txt") == ["one"]


def test_documents_shorter_than_the_shortest_are_left_out(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ["12345", " 1234 ", "éééé", "ééééé"])
    assert read(path, shortest=5) == ["12345", "ééééé"]
    assert read(path, shortest=5, samples=2) == ["12345", "ééééé"]


def test_samples_ends_reading_early(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "one"}\n{"text": ""}\n{"text": "two"}\nno JSON')
    assert read(path, samples=2) == ["one", "two"]


def test_what_lies_outside_the_body_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "END of licence\n\nSTART 1\none\n\ntwo\nEND 1\n\nmore")
    assert read(path, body=("START.*\n", "END"), separator="\n\n") == ["one", "two"]


@pytest.mark.parametrize(
    ("body", "missing"), [(("BEGIN", "END"), "BEGIN"), (("START", "STOP"), "STOP"), (("END", "START"), "START")]
)
def test_a_file_without_its_body_is_refused(tmp_path: Path, body: tuple[str, str], missing: str) -> None:
    path = write(tmp_path / "a.txt", "START the text END")
    with pytest.raises(CorpusError, match=rf"a\.txt has no '{missing}'; mend `body`"):
        read(path, body=body)


# ---- input that cannot be read


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt is empty"),
        ("a.txt", b" \n\n", "a.txt is empty"),
        ("a.jsonl", b"", "a.jsonl is empty"),
        ("a.txt.gz", b"", "a.txt.gz is empty"),
        ("a.parquet", b"", "a.parquet is no parquet file"),
        ("a.parquet", b"one two three", "a.parquet is no parquet file"),
        ("a.txt", b"\x7fELF\x02\0\0", "a.txt is binary"),
        ("a.txt", "é".encode("latin-1"), "a.txt is no UTF-8 text"),
        ("a.jsonl", b'{"text": "\xff"}', "a.jsonl is no UTF-8 text"),
        ("a.txt.gz", b"not packed", "cannot read .*a.txt.gz"),
        ("a.txt.gz", gzip.compress(b"cut off" * 50)[:-12], "cannot read .*a.txt.gz"),
        ("a.jsonl", b'{"text": "one"}\n{"text": ', "a.jsonl, line 2: no JSON"),
        ("a.jsonl", b'["one"]', "a.jsonl, line 1: no text in column 'text'; columns: none"),
        ("a.jsonl", b'{"text": "half \\ud83d"}', "a.jsonl, line 1: half of a surrogate pair"),
        ("a.csv", b"one", "a.csv: unknown kind of corpus file; known: .txt, .*parquet"),
        ("gz", b"one", "gz: unknown kind of corpus file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(CorpusError, match=message):
        read(path)


def test_gzip_damaged_inside_is_refused(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(bytes(range(1, 120)) * 3))
    data[10] = 0xFF  # the type of the first block
    with pytest.raises(CorpusError, match=r"cannot read .*a\.txt\.gz"):
        read(write(tmp_path / "a.txt.gz", bytes(data)))


def test_parquet_damaged_inside_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": ["one two three"] * 50}), path)
    data = path.read_bytes()
    write(path, data[:4] + b"\xff" * 12 + data[16:])
    with pytest.raises(CorpusError, match=r"a\.parquet"):
        read(path)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_missing_column_names_the_columns_that_are_there(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        jsonl(path, ["one"], column="body")
    else:
        parquet.write_table(pa.table({"body": ["one"], "id": [1]}), path)
    with pytest.raises(CorpusError, match="column 'text'; columns: body, id"):
        read(path)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no corpus file at .*gone\.txt"):
        read(tmp_path / "gone.txt")


def test_a_folder_without_corpus_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "texts" / "a.png", b"\x89PNG")
    with pytest.raises(CorpusError, match=r"no \.txt, .* file in folder"):
        read(tmp_path / "texts")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path, *args: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", denied)  # tests may run as root, whom no mode stops
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(CorpusError, match=r"cannot read .*texts\.jsonl: Permission denied"):
        read(texts)
    with pytest.raises(CorpusError, match=r"cannot read .*texts\.jsonl: Permission denied"):
        prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=VOCAB)


def test_a_source_without_any_text_is_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ["", " \n"])
    with pytest.raises(CorpusError, match=r"no text in .*a\.jsonl; is `column` or `separator` wrong"):
        read(path)


@pytest.mark.parametrize("options", [{}, {"hub": "some/texts", "files": ("a.txt",)}])
def test_a_source_is_either_a_hub_or_files(options: dict[str, Any]) -> None:
    with pytest.raises(CorpusError, match=r"either `hub` .* or `files`"):
        list(read_documents(CorpusSource(**options)))


@pytest.mark.parametrize("options", [{"separator": "("}, {"body": ("START", "[")}])
def test_a_pattern_that_is_no_regular_expression_is_refused_with_its_field(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = write(tmp_path / "a.txt", "START one")
    with pytest.raises(CorpusError, match=f"`{next(iter(options))}` .* is no regular expression"):
        read(path, **options)


# ---- hub


def test_a_hub_is_streamed_and_not_read_beyond_the_samples(hub: Callable[..., None]) -> None:
    asked: list[Any] = []

    def load_dataset(*args: Any, **options: Any) -> Iterator[dict[str, Any]]:
        asked.append((args, options))
        for text in ("one", None, "two", "three"):
            asked.append(text)
            yield {"body": text}

    hub(load_dataset)
    found = CorpusSource(hub="some/texts", config="en", split="test", column="body", samples=2)
    assert list(read_documents(found)) == ["one", "two"]
    assert asked == [(("some/texts", "en"), {"split": "test", "streaming": True}), "one", None, "two"]


def test_a_hub_without_the_package_names_the_command_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # importing it fails
    with pytest.raises(CorpusError, match=r"'some/texts'.*pip install 'ulm-swarm\[data\]'; or give a local path"):
        list(read_documents(CorpusSource(hub="some/texts")))


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(ConnectionError("host not found\nand a long trace"), "host not found"), (TimeoutError(), "TimeoutError")],
)
@pytest.mark.parametrize("late", [False, True])
def test_an_unreachable_hub_names_the_way_out(
    hub: Callable[..., None], failure: Exception, reason: str, late: bool
) -> None:
    def rows() -> Iterator[dict[str, str]]:
        yield {"text": "one"}
        raise failure

    def load_dataset(*args: Any, **options: Any) -> Iterator[dict[str, str]]:
        if late:
            return rows()
        raise failure

    hub(load_dataset)
    with pytest.raises(CorpusError, match=rf"'some/texts' cannot be read .*\({reason}\).*local path: files: \["):
        list(read_documents(CorpusSource(hub="some/texts")))


def test_a_missing_column_of_a_hub_names_the_columns_that_are_there(hub: Callable[..., None]) -> None:
    hub(lambda *args, **options: [{"id": 1, "body": "one"}])
    with pytest.raises(CorpusError, match="some/texts has no column 'text'; columns: body, id"):
        list(read_documents(CorpusSource(hub="some/texts")))


def test_a_prepared_folder_opens_without_its_hub(tmp_path: Path, hub: Callable[..., None]) -> None:
    hub(lambda *args, **options: [{"text": text} for text in TEXTS])
    first = prepare_corpus([CorpusSource(hub="some/texts")], tmp_path / "corpus", tokenizer=VOCAB)

    def unreachable(*args: Any, **options: Any) -> None:
        raise ConnectionError

    hub(unreachable)
    again = prepare_corpus([CorpusSource(hub="some/texts")], tmp_path / "corpus", tokenizer=VOCAB)
    assert texts_of(again, "train") == texts_of(first, "train") != []


# ---- split


@pytest.mark.parametrize(("share", "held_out"), [(0.0, 1), (0.1, 1), (0.4, 2), (0.99, 4), (1.0, 4)])
def test_at_least_one_document_is_held_out_and_never_all(
    tmp_path: Path, texts: Path, share: float, held_out: int
) -> None:
    corpus = prepare_corpus([source(texts)], tmp_path / "corpus", tokenizer=VOCAB, val_share=share)
    assert (corpus.num_documents("train"), corpus.num_documents("val")) == (5 - held_out, held_out)
    assert len(corpus) == 5


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
        assert len(corpus) == 15


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
    assert len(again) == len(TEXTS)
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
    assert len(prepare_corpus([source(texts)], prepared, tokenizer=VOCAB)) == len(TEXTS)


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
    assert len(prepare_corpus([source(texts)], folder, tokenizer=VOCAB)) == len(TEXTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "texts.jsonl"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, texts: Path) -> None:
    folder = write(tmp_path / "file", "in the way") / "corpus"
    with pytest.raises(CorpusError, match=r"cannot write .*file/corpus"):
        prepare_corpus([source(texts)], folder, tokenizer=VOCAB)
