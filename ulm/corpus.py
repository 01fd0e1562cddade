"""From texts to token files: reads documents, splits them, trains or loads a tokenizer, writes `.bin` files.

- Documents come from a hub (streamed, through `datasets`) or from local text, JSONL and parquet files; one reader each.
- Documents are split before anything is cut into windows, so no window of training holds a token of evaluation. The
  tokenizer is trained on the training part alone.
- A folder is written once and verified by checksum when it is opened; `manifest.json` comes last, so a folder without
  one is unfinished.
- Knows no model and no training.

In a `.bin` file a document is the end-of-text token, from which its first token is predicted, and then its tokens.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ulm.tokenizer import Tokenizer

__all__ = ["BIN_TYPES", "Corpus", "CorpusError", "CorpusSource", "prepare_corpus", "read_documents"]

FORMAT = 1
MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"
Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
BIN_TYPES = {"uint16": 2**16, "uint32": 2**32}
"""Types of a token in a `.bin` file, and how many token ids each can tell apart."""

BATCH = 256
"""Documents tokenised at a time."""


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
    found = 0
    for document in _from_hub(source) if source.hub else _from_files(source):
        if len(text := document.strip()) < source.shortest:
            continue
        yield text
        found += 1
        if found == source.samples:
            return
    if not found:
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
        rows = datasets.load_dataset(source.hub, source.config, split=source.split, streaming=True)
        for row in rows:
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
    for path in _paths(source.files):
        kind = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
        try:
            yield from _READERS[kind](path, source)
        except UnicodeDecodeError:
            raise CorpusError(f"{path} is no UTF-8 text; is it binary? Remove it from `files`, or convert it") from None
        except (OSError, EOFError, zlib.error) as error:  # the latter two: gzip that is cut off or damaged
            raise CorpusError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _paths(files: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for name in files:
        path = Path(name)
        if not path.exists() and any(sign in name for sign in "*?["):
            matching = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207 - absolute too
            if not matching:
                raise CorpusError(f"no file matches {name}; paths are relative to the YAML file")
            found += _paths([str(match) for match in matching])
        elif path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _kind(p) in _READERS)
            if not inside:
                raise CorpusError(f"no {', '.join(_READERS)} file in folder {path}")
            found += inside
        elif not path.exists():
            raise CorpusError(f"no corpus file at {path}; paths are relative to the YAML file")
        elif _kind(path) not in _READERS:
            raise CorpusError(f"{path}: unknown kind of corpus file; known: {', '.join(_READERS)}")
        else:
            found.append(path)
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
        except ValueError:
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


def prepare_corpus(
    sources: Sequence[CorpusSource],
    folder: Path,
    *,
    tokenizer: str | int,
    val_share: float = 0.1,
    seed: int = 0,
    bin_type: str = "uint16",
    echo: Callable[[str], None] = lambda line: None,
) -> Corpus:
    """Write a corpus folder, or open the one that is there if it was made from the same recipe.

    Args:
        sources: read in this order.
        folder: where to; replaced as a whole once everything is ready.
        tokenizer: a name or path, or the size of a BPE to be trained on the training documents.
        val_share: share of the documents of each source that is held out, at least one and never all.
        seed: of the split.
        bin_type: a key of `BIN_TYPES`.
        echo: receives progress lines.

    Raises:
        CorpusError: see `read_documents`; too few documents, or a vocabulary too large for the type.
    """
    recipe = _recipe(sources, tokenizer, val_share, seed, bin_type)
    if (folder / MANIFEST).is_file():
        there = Corpus.open(folder)
        if there.manifest["recipe"] == recipe:
            return there
        raise CorpusError(f"{folder} was prepared from another recipe; choose another folder, or remove this one")
    titles = [source.title for source in sources]
    if repeated := [title for title in titles if titles.count(title) > 1]:
        raise CorpusError(f"several sources are called {repeated[0]!r}; tell them apart by `name`")
    parts: dict[Split, list[str]] = {"train": [], "val": []}
    origins: dict[Split, list[int]] = {"train": [], "val": []}
    for number, source in enumerate(sources):
        groups = _groups(source)
        if len(groups) < 2:
            raise CorpusError(
                f"{source.title} is a single {'file' if source.by_file else 'document'}, which cannot be split into "
                "training and evaluation; give more files, or a `separator`"
            )
        share = val_share if source.val_share is None else source.val_share
        held_out = min(len(groups) - 1, max(1, round(share * len(groups))))
        order = np.random.Generator(np.random.PCG64([seed, number])).permutation(len(groups))
        chosen = {int(i) for i in order[:held_out]}
        for i, documents in enumerate(groups):
            split: Split = "val" if i in chosen else "train"
            parts[split] += documents
            origins[split] += [number] * len(documents)
        held = sum(origin == number for origin in origins["val"])
        echo(f"{source.title}: {sum(map(len, groups)):,} documents, {held:,} held out")
    try:
        codec = Tokenizer.train(parts["train"], tokenizer) if isinstance(tokenizer, int) else Tokenizer.load(tokenizer)
    except ValueError as error:
        raise CorpusError(str(error)) from error
    if codec.vocab_size > BIN_TYPES[bin_type]:
        raise CorpusError(
            f"the tokenizer has {codec.vocab_size:,} tokens, more than bin_type {bin_type} can hold "
            f"({BIN_TYPES[bin_type]:,}); set bin_type: uint32"
        )
    fresh = folder.with_name(folder.name + ".new")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        codec.save(fresh / TOKENIZER)
        splits = {s: _write_split(fresh, s, parts[s], origins[s], codec, bin_type) for s in SPLITS}
        manifest = {
            "format": FORMAT,
            "recipe": recipe,
            "vocab_size": codec.vocab_size,
            "eot_id": codec.eot_id,
            "pad_id": codec.pad_id,
            "splits": splits,
            "sources": titles,
            "sha256": {file.name: _digest(file) for file in sorted(fresh.iterdir())},
        }
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
        for file in fresh.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    except OSError as error:
        raise CorpusError(f"cannot write {folder}: {error.strerror or error}") from error
    for split in SPLITS:
        numbers = splits[split]
        echo(f"{split}: {numbers['documents']:,} documents, {numbers['tokens']:,} tokens, {numbers['bytes']:,} bytes")
    return Corpus.open(folder)


def _recipe(
    sources: Sequence[CorpusSource], tokenizer: str | int, val_share: float, seed: int, bin_type: str
) -> dict[str, Any]:
    """Return what decides the content of a folder; local files count by content, not by place."""
    described = []
    for source in sources:
        fields = {name: getattr(source, name) for name in CorpusSource.__slots__}
        fields["files"] = [[path.name, _digest(path)] for path in _paths(source.files)]
        fields["body"] = list(source.body) if source.body else None
        described.append(fields)
    name = tokenizer
    if not isinstance(tokenizer, int):
        path = Path(tokenizer) / TOKENIZER if Path(tokenizer).is_dir() else Path(tokenizer)
        name = _digest(path) if path.is_file() else tokenizer
    return {"sources": described, "tokenizer": name, "val_share": val_share, "seed": seed, "bin_type": bin_type}


def _groups(source: CorpusSource) -> list[list[str]]:
    """Return the documents, those that must not be parted in one list."""
    if not source.by_file:
        return [[document] for document in read_documents(source)]
    if source.hub is not None:
        raise CorpusError(f"{source.title} comes from a hub, which has no files; leave out `by_file`")
    groups: list[list[str]] = []
    for path in _paths(source.files):
        left = None if source.samples is None else source.samples - sum(map(len, groups))
        if left == 0:
            break
        groups.append(list(read_documents(replace(source, files=(str(path),), samples=left))))
    return groups


def _write_split(
    folder: Path, split: Split, texts: list[str], origins: list[int], codec: Tokenizer, bin_type: str
) -> dict[str, int]:
    """Write the tokens, offsets and sizes of one part and return its totals."""
    offsets, total = [0], 0
    with (folder / f"{split}.bin").open("wb") as file:
        for start in range(0, len(texts), BATCH):
            for ids in codec.encode_batch(texts[start : start + BATCH]):
                np.array([codec.eot_id, *ids], dtype=bin_type).tofile(file)
                total += len(ids) + 1
                offsets.append(total)
    chars, sizes = [len(text) for text in texts], [len(text.encode()) for text in texts]
    documents = np.array([offsets[1:], chars, sizes, origins], dtype=np.int64)
    np.save(folder / f"{split}.documents.npy", documents, allow_pickle=False)
    return {
        "documents": len(texts),
        "tokens": total - len(texts),
        "characters": sum(chars),
        "bytes": sum(sizes),
    }


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror or error}") from error


class Corpus:
    """A prepared folder, memory-mapped.

    Attributes:
        folder: where it is.
        manifest: what `manifest.json` says.
        tokenizer: its tokenizer.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.tokenizer = Tokenizer.load(folder / TOKENIZER)
        self.tokenizer.pad_id, self.tokenizer.eot_id = manifest["pad_id"], manifest["eot_id"]
        dtype = manifest["recipe"]["bin_type"]
        self._tokens = {split: np.memmap(folder / f"{split}.bin", dtype=dtype, mode="r") for split in SPLITS}
        self._documents = {split: np.load(folder / f"{split}.documents.npy", allow_pickle=False) for split in SPLITS}

    @classmethod
    def open(cls, folder: Path) -> Corpus:
        """Open and verify a folder.

        Raises:
            CorpusError: it is missing, unfinished, damaged, or of another format.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise CorpusError(f"no prepared corpus in {folder}; run the stage `prepare` first")
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            version, digests = manifest["format"], manifest["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{path} is damaged; remove {folder} and prepare it again") from error
        if version != FORMAT:
            raise CorpusError(f"{path}: format {version}, this version reads {FORMAT}; prepare the corpus again")
        for name, digest in digests.items():
            if not (folder / name).is_file() or _digest(folder / name) != digest:
                raise CorpusError(f"{folder / name} is missing or damaged; remove {folder} and prepare it again")
        return cls(folder, manifest)

    def __len__(self) -> int:
        """Return the number of documents of both parts."""
        return sum(self.num_documents(split) for split in SPLITS)

    def num_documents(self, split: Split) -> int:
        """Return the number of documents of a part."""
        return int(self._documents[split].shape[1])

    def document(self, split: Split, index: int) -> NDArray[np.int64]:
        """Return the token ids of a document, end-of-text first."""
        ends = self._documents[split][0]
        start = int(ends[index - 1]) if index else 0
        return np.asarray(self._tokens[split][start : int(ends[index])], dtype=np.int64)

    def sizes(self, split: Split) -> NDArray[np.int64]:
        """Return the tokens (end-of-text not counted), characters and bytes of each document, (3, documents)."""
        ends, chars, sizes, _ = self._documents[split]
        return np.stack((np.diff(ends, prepend=0) - 1, chars, sizes))

    def sources(self, split: Split) -> dict[str, NDArray[np.bool_]]:
        """Return by name of the source which documents are from there."""
        return {name: self._documents[split][3] == i for i, name in enumerate(self.manifest["sources"])}

    def stream(self, split: Split) -> NDArray[Any]:
        """Return all tokens of a part, one document after the other, memory-mapped."""
        return self._tokens[split]
