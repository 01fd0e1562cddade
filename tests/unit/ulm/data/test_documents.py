"""Where documents come from: what the readers take and what they refuse."""

from __future__ import annotations

import gzip
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fakes.corpus_files import TEXTS, VOCAB, jsonl, read, source, texts_of, write
from pyarrow import parquet

from ulm.data import documents
from ulm.data.corpus import prepare_corpus
from ulm.data.documents import CorpusError, CorpusSource, read_documents

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
    with pytest.raises(CorpusError, match=r"no corpus file at .*\*\.txt"):
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
        ("a.txt.gz", gzip.compress(b"cut off" * 50, mtime=0)[:-12], "cannot read .*a.txt.gz"),
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
    with pytest.raises(CorpusError, match=r"a folder without a corpus file; known: \.txt, "):
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


def test_a_script_dataset_is_one_clear_line(hub: Callable[..., None]) -> None:
    def load_dataset(*args: Any, **options: Any) -> None:
        raise RuntimeError("Dataset scripts are no longer supported, but found bookcorpusopen.py")

    hub(load_dataset)
    with pytest.raises(CorpusError, match=r"'bookcorpusopen' is a script, which .* name one that is kept as Parquet"):
        list(read_documents(CorpusSource(hub="bookcorpusopen")))


@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_the_package_datasets_streams_as_the_reader_expects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets, of the extra data")
    if kind == "json":
        path = jsonl(tmp_path / "a.jsonl", TEXTS, column="body")
    else:
        parquet.write_table(pa.table({"body": TEXTS}), path := tmp_path / "a.parquet")
    real = datasets.load_dataset
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, config, **options: real(kind, data_files=str(path), **options)
    )
    source = CorpusSource(hub="some/texts", column="body", samples=3)
    assert list(read_documents(source)) == TEXTS[:3]


# ---- piece by piece


@pytest.mark.parametrize(
    "separator",
    [
        r"\n{4,}",
        r"(?<!\n)\n(?!\n)",
        r"(?m)^(?=a)",
        r"\n(?= = [^=])",
        r"\n[ab]+\n",
        r"a",
        r"(?<=\n)\n",
        None,
    ],
)
@pytest.mark.parametrize("body", [None, ("a+\n", "b\n+a")])
def test_a_file_that_is_read_in_pieces_gives_the_documents_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str | None, body: tuple[str, str] | None
) -> None:
    generator = random.Random(0)
    monkeypatch.setattr(documents, "REACH", 30)
    for number in range(60):
        text = "".join(generator.choices(["\r\n", "\n", "a", "b", "é€", " = ", "\r"], k=300))
        path = write(tmp_path / f"{number}.txt", f"aa\n{text}\nb\na")
        monkeypatch.setattr(documents, "CHUNK", generator.randint(1, 40))
        assert read(path, separator=separator, body=body) == whole(path, separator, body)


def whole(path: Path, separator: str | None, body: tuple[str, str] | None) -> list[str]:
    text = path.read_bytes().decode().replace("\r\n", "\n")
    if body is not None:
        start = re.search(body[0], text)
        assert start is not None
        text = text[start.end() :]
        end = re.search(body[1], text)
        assert end is not None
        text = text[: end.start()]
    parts = [text] if separator is None else re.split(separator, text)
    return [part.strip() for part in parts if part.strip()]


def test_a_file_is_not_read_beyond_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "CHUNK", 64)
    monkeypatch.setattr(documents, "REACH", 16)
    path = write(tmp_path / "a.txt", "one\n\n" * 50 + "\0")  # zero bytes would be refused
    assert read(path, separator="\n\n", samples=3) == ["one"] * 3
