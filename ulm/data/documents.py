"""Documents from outside: a hub dataset by name, or local text, JSONL and parquet files; one reader each.

Owns where documents come from, in which order, and what is wrong with a source that cannot be read. Knows no tokenizer
and no split.
"""

import glob
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path


class CorpusError(ValueError):
    """A corpus that cannot be read or written; the message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class CorpusSource:
    """Where documents come from: a hub dataset by name, or local files.

    Attributes:
        hub: name of a dataset, read as a stream; `config` and `split` choose its part.
        files: text (`.txt`, `.text`, `.md`), `.jsonl` or `.parquet` files, folders of them, or patterns such as
            `books/*.txt`; all but parquet may be gzipped.
        column: the text column of hub datasets, JSONL and parquet.
        samples: at most so many documents; None means all.
        separator: regular expression between the documents of a text file; None takes each file as one document.
        name: what results call it; None takes the dataset's or the first file's.
        by_file: hold out whole files, so that no text of them is trained on, where one file gives several documents.
        val_share: share that is held out; None takes that of all sources.
        body: regular expressions of what comes before and after the text proper of a text file; what lies outside is
            left out, before documents are separated. A file without either is an error.
        shortest: shorter documents, in characters, are left out.
    """

    hub: str | None = None
    config: str | None = None
    split: str = "train"
    files: tuple[str, ...] = ()
    column: str = "text"
    samples: int | None = None
    separator: str | None = None
    body: tuple[str, str] | None = None
    shortest: int = 1
    name: str | None = None
    by_file: bool = False
    val_share: float | None = None

    @property
    def title(self) -> str:
        """What results call it."""
        return self.name or self.hub or Path(self.files[0]).stem


def read_documents(source: CorpusSource) -> Iterator[str]:
    """Yield the documents of a source in a fixed order; empty ones are left out.

    Raises:
        CorpusError: a file is missing, empty, binary or of an unknown kind, or the hub cannot be reached.
    """
    if (source.hub is None) == (not source.files):
        raise CorpusError("a corpus needs either `hub` (the name of a dataset) or `files` (local paths)")
    stripped = (document.strip() for document in (_from_hub(source) if source.hub else _from_files(source)))
    text = None
    for text in islice((x for x in stripped if len(x) >= source.shortest), source.samples):
        yield text
    if text is None:
        raise CorpusError(f"no text in {source.hub or ', '.join(source.files)}; is `column` or `separator` wrong?")


def _from_hub(source: CorpusSource) -> Iterator[str]:
    try:
        import datasets
    except ImportError:
        raise CorpusError(
            f"corpus {source.hub!r} is on a hub, which needs the package datasets: pip install 'ulm-swarm[data]'; "
            "or give a local path as `files`"
        ) from None
    try:
        for row in datasets.load_dataset(source.hub, source.config, split=source.split, streaming=True):
            if source.column not in row:
                raise CorpusError(f"{source.hub} has no column {source.column!r}; columns: {', '.join(sorted(row))}")
            if row[source.column] is not None:
                yield str(row[source.column])
    except CorpusError:
        raise
    except Exception as error:  # the library and what it calls raise anything
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise CorpusError(
            f"corpus {source.hub!r} cannot be read from the hub ({reason}); check the name and the network, or give a "
            "local path: files: [my_texts.jsonl]"
        ) from error


def _from_files(source: CorpusSource) -> Iterator[str]:
    for path in corpus_files(source.files):
        try:
            yield from _READERS[_kind(path)](path, source)
        except UnicodeDecodeError:
            raise CorpusError(f"{path} is no UTF-8 text; is it binary? Remove it from `files`, or convert it") from None
        except (OSError, EOFError, zlib.error) as error:  # the latter two: gzip that is cut off or damaged
            raise CorpusError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def corpus_files(files: Sequence[str]) -> list[Path]:
    """Return the files that names, folders and patterns stand for, in a fixed order.

    Raises:
        CorpusError: one is missing, or of an unknown kind.
    """
    found: list[Path] = []
    for name in files:
        matching = [Path(name)] if Path(name).exists() else sorted(map(Path, glob.glob(name, recursive=True)))  # noqa: PTH207 - absolute too
        if not matching:
            raise CorpusError(f"no corpus file at {name}; paths are relative to the YAML file")
        for path in matching:
            inside = path.rglob("*") if path.is_dir() else [path]
            readable = sorted(p for p in inside if p.is_file() and _kind(p) in _READERS)
            if not readable:
                problem = "a folder without a corpus file" if path.is_dir() else "unknown kind of corpus file"
                raise CorpusError(f"{path}: {problem}; known: {', '.join(_READERS)}")
            found += readable
    return list(dict.fromkeys(found))  # a file that is named twice would be in both parts


def _kind(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _open_text(path: Path) -> str:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if not data.strip():
        raise CorpusError(f"{path} is empty; remove it from `files`")
    if b"\0" in data:
        raise CorpusError(f"{path} is binary (it holds zero bytes); remove it from `files`, or convert it to text")
    return data.decode("utf-8-sig").replace("\r\n", "\n")


def _pattern(pattern: str, name: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise CorpusError(f"`{name}` {pattern!r} is no regular expression ({error})") from None


def _read_text(path: Path, source: CorpusSource) -> Iterator[str]:
    text = _open_text(path)
    if source.body is not None:
        first, last = (_pattern(pattern, "body") for pattern in source.body)
        start = first.search(text)
        end = last.search(text, start.end()) if start else None
        if start is None or end is None:
            missing = source.body[0] if start is None else source.body[1]
            raise CorpusError(f"{path} has no {missing!r}; mend `body`, or leave it out")
        text = text[start.end() : end.start()]
    if source.separator is not None:
        begin = 0
        for separator in _pattern(source.separator, "separator").finditer(text):  # re.split would add its groups
            yield text[begin : separator.start()]
            begin = separator.end()
        text = text[begin:]
    yield text


def _read_jsonl(path: Path, source: CorpusSource) -> Iterator[str]:
    for number, line in enumerate(_open_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise CorpusError(f"{path}, line {number}: no JSON") from None
        if not isinstance(row, dict) or not isinstance(row.get(source.column), str):
            known = ", ".join(sorted(row)) if isinstance(row, dict) else "none"
            raise CorpusError(f"{path}, line {number}: no text in column {source.column!r}; columns: {known}")
        try:
            row[source.column].encode()
        except UnicodeEncodeError:  # JSON can escape what is no character
            raise CorpusError(f"{path}, line {number}: half of a surrogate pair, which is no text; mend it") from None
        yield row[source.column]


def _read_parquet(path: Path, source: CorpusSource) -> Iterator[str]:
    from pyarrow import ArrowException, parquet

    try:
        file = parquet.ParquetFile(path)
        if source.column not in file.schema_arrow.names:
            raise CorpusError(f"{path} has no column {source.column!r}; columns: {', '.join(file.schema_arrow.names)}")
        for batch in file.iter_batches(columns=[source.column]):
            yield from (str(value) for value in batch.column(0).to_pylist() if value is not None)
    except ArrowException as error:
        raise CorpusError(f"{path} is no parquet file that can be read ({str(error).splitlines()[0]})") from error


_READERS: dict[str, Callable[[Path, CorpusSource], Iterator[str]]] = {
    ".txt": _read_text,
    ".text": _read_text,
    ".md": _read_text,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
