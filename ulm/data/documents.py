"""Documents from outside: a hub dataset by name, or local text, JSONL and parquet files; one reader each.

Owns where documents come from, in which order, and what is wrong with a source that cannot be read. Files are read
piece by piece: what is held in memory is a document, never a file of many. Knows no tokenizer and no split.
"""

import codecs
import glob
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from ulm.data.cleaning import Cleaning

CHUNK = 1 << 20
"""Bytes of a file that are read at a time."""

REACH = 1 << 16
"""Characters that a separator may have, with what its pattern looks at before and after it."""


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
        cleaning: what else is left out, and counted, when a corpus is prepared.
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
    cleaning: Cleaning | None = None

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
        if "scripts are no longer supported" in reason:
            raise CorpusError(
                f"corpus {source.hub!r} is a script, which the package datasets no longer runs; name one that is "
                "kept as Parquet, or give a local path: files: [my_texts.jsonl]"
            ) from error
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


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        yield gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file  # type: ignore[misc]


def _checked(parts: Iterable[bytes], path: Path) -> Iterator[bytes]:
    """Yield the parts of a file; refuse one that is empty or binary."""
    is_empty = True
    for part in parts:
        if b"\0" in part:
            raise CorpusError(f"{path} is binary (it holds zero bytes); remove it from `files`, or convert it to text")
        is_empty = is_empty and not part.strip()
        yield part
    if is_empty:
        raise CorpusError(f"{path} is empty; remove it from `files`")


def _pieces(path: Path) -> Iterator[str]:
    """Yield the text of a file piece by piece, the ends of its lines as newlines."""
    decoder, held = codecs.getincrementaldecoder("utf-8-sig")(), ""
    with _opened(path) as file:
        for data in _checked(iter(lambda: file.read(CHUNK), b""), path):
            text = held + decoder.decode(data)
            held = "\r" if text.endswith("\r") else ""  # its newline may follow
            yield text.removesuffix("\r").replace("\r\n", "\n")
    yield held + decoder.decode(b"", final=True)


def _cut(pieces: Iterable[str], pattern: re.Pattern[str], *, once: bool = False) -> Iterator[str | None]:
    """Yield a text piece by piece, with None in place of what matches a pattern; or of its first match only."""
    buffer, at, more, rest = "", 0, True, iter(pieces)
    while more:
        new = next(rest, None)
        more = new is not None
        buffer, at = buffer[max(0, at - REACH) :] + (new or ""), min(at, REACH)
        cut = limit = len(buffer) - REACH if more else len(buffer)  # what ends behind it may look different with more
        for match in pattern.finditer(buffer, at):
            if match.end() > limit:
                cut = min(cut, match.start())
                break
            yield buffer[at : match.start()]
            yield None
            at = match.end()
            if once:
                yield buffer[at:]
                yield from rest
                return
        cut = max(at, cut)
        yield buffer[at:cut]
        at = cut


def _inside(pieces: Iterator[str], path: Path, body: tuple[str, str]) -> Iterator[str]:
    """Yield what stands between the first match of one pattern and the next of another."""
    first, last = (_pattern(pattern, "body") for pattern in body)
    rest = _cut(pieces, first, once=True)
    missing = body[0]
    if None in rest:  # reads on to the match
        missing = body[1]
        for piece in _cut((text for text in rest if text is not None), last, once=True):
            if piece is None:
                return
            yield piece
    raise CorpusError(f"{path} has no {missing!r}; mend `body`, or leave it out")


def _pattern(pattern: str, name: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise CorpusError(f"`{name}` {pattern!r} is no regular expression ({error})") from None


def _read_text(path: Path, source: CorpusSource) -> Iterator[str]:
    pieces = _pieces(path) if source.body is None else _inside(_pieces(path), path, source.body)
    document: list[str] = []
    cut = pieces if source.separator is None else _cut(pieces, _pattern(source.separator, "separator"))
    for piece in cut:
        if piece is None:
            yield "".join(document)
            document = []
        else:
            document.append(piece)
    yield "".join(document)


def _read_jsonl(path: Path, source: CorpusSource) -> Iterator[str]:
    with _opened(path) as file:
        yield from _read_lines(_checked(file, path), path, source)


def _read_lines(lines: Iterable[bytes], path: Path, source: CorpusSource) -> Iterator[str]:
    for number, data in enumerate(lines, 1):
        line = data.decode("utf-8-sig" if number == 1 else "utf-8")
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
        file = parquet.ParquetFile(path, buffer_size=CHUNK, pre_buffer=False)
        if source.column not in file.schema_arrow.names:
            raise CorpusError(f"{path} has no column {source.column!r}; columns: {', '.join(file.schema_arrow.names)}")
        for batch in file.iter_batches(1024, columns=[source.column]):
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
