"""From documents to token files: splits them, trains or loads a tokenizer, writes `.bin` files, opens them again.

- A text that occurs twice is taken once, and documents are split before anything is cut into windows: nothing of
  evaluation is trained on. The tokenizer is trained on the training part alone.
- A folder is written once and verified by checksum when it is opened; `manifest.json` comes last, so a folder without
  one is unfinished.
- Memory is flat in the length of the corpus: documents wait on disk until it is known which are held out. Of each some
  60 bytes of numbers are held.
- Knows no model and no training.

In a `.bin` file a document is the end-of-text token, from which its first token is predicted, and then its tokens.
"""

import json
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ulm.data.cleaning import Cleaner, Cleaning
from ulm.data.documents import CorpusError, CorpusSource, corpus_files, read_documents
from ulm.data.spool import Split, Spool
from ulm.files import TakenError, refuse_taken, sha256, whole_folder
from ulm.tokenizer import Tokenizer

FORMAT = 1
MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"
SPLITS: tuple[Split, ...] = ("train", "val")
BIN_TYPES = {"uint16": 2**16, "uint32": 2**32}
"""Types of a token in a `.bin` file, and how many token ids each can tell apart."""

BATCH = 256
"""Documents tokenised at a time."""

TOKENIZER_BYTES = 1 << 26
"""Bytes of text that a tokenizer is trained on: of more, every second, third .. training document."""


class OtherCorpusError(CorpusError):
    """A folder that was prepared from another recipe.

    Attributes:
        found: recipe of what is there.
        wanted: recipe of what was to be prepared.
    """

    def __init__(self, folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        super().__init__(f"{folder} was prepared from another recipe; choose another folder, or remove this one")
        self.found, self.wanted = found, wanted


def prepare_corpus(
    sources: Sequence[CorpusSource],
    folder: Path,
    *,
    tokenizer: str | int,
    val_share: float = 0.1,
    seed: int = 0,
    bin_type: str = "uint16",
    marks: Sequence[str] = (),
    echo: Callable[[str], None] = lambda line: None,
    on_documents: Callable[[int, int | None], None] = lambda done, total: None,
) -> "Corpus":
    """Write a corpus folder, or open the one that is there if it was made from the same recipe.

    Args:
        sources: read in this order.
        folder: where to; replaced as a whole once everything is ready.
        tokenizer: a name or path, or the size of a BPE to be trained on the training documents.
        val_share: share of the documents of each source that is held out, at least one and never all.
        seed: of the split.
        bin_type: a key of `BIN_TYPES`.
        marks: special tokens of a tokenizer that is trained.
        echo: receives progress lines.
        on_documents: told how many documents of a source were read, then of a part written, of how many, if known.

    Raises:
        CorpusError: see `read_documents`; too few documents, or a vocabulary too large for the type.
    """
    recipe = _recipe(sources, tokenizer, val_share, seed, bin_type, marks)
    if (folder / MANIFEST).is_file():
        there = Corpus.open(folder)
        if there.manifest["recipe"] == recipe:
            return there
        raise OtherCorpusError(folder, there.manifest["recipe"], recipe)
    try:
        refuse_taken(folder)
    except TakenError as error:
        raise CorpusError(f"{error}, or remove this one") from error
    titles = [source.title for source in sources]
    if repeated := [title for title in titles if titles.count(title) > 1]:
        raise CorpusError(f"several sources are called {repeated[0]!r}; tell them apart by `name`")
    try:
        with whole_folder(folder) as fresh:
            spool, cleaned = _spooled(sources, fresh, val_share, seed, echo, on_documents)
            codec = _codec(tokenizer, spool, bin_type, marks)
            codec.save(fresh / TOKENIZER)
            splits = {s: _write_split(fresh, s, spool, codec, bin_type, on_documents) for s in SPLITS}
            spool.remove()
            manifest = {
                "format": FORMAT,
                "recipe": recipe,
                "vocab_size": codec.vocab_size,
                "eot_id": codec.eot_id,
                "pad_id": codec.pad_id,
                "splits": splits,
                "sources": titles,
                "cleaning": cleaned,
                "sha256": {file.name: _digest(file) for file in sorted(fresh.iterdir())},
            }
            (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
    except (OSError, sqlite3.Error) as error:
        raise CorpusError(f"cannot write {folder}: {getattr(error, 'strerror', None) or error}") from error
    for split, numbers in splits.items():
        echo(f"{split}: {numbers['documents']:,} documents, {numbers['tokens']:,} tokens, {numbers['bytes']:,} bytes")
    return Corpus.open(folder)


def _recipe(
    sources: Sequence[CorpusSource],
    tokenizer: str | int,
    val_share: float,
    seed: int,
    bin_type: str,
    marks: Sequence[str],
) -> dict[str, Any]:
    """Return what decides the content of a folder."""
    if not isinstance(tokenizer, int):
        path = Path(tokenizer) / TOKENIZER if Path(tokenizer).is_dir() else Path(tokenizer)
        tokenizer = _digest(path) if path.is_file() else tokenizer
    described = [describe_source(source) for source in sources]
    return {
        "sources": described,
        "tokenizer": tokenizer,
        "val_share": val_share,
        "seed": seed,
        "bin_type": bin_type,
        **({"marks": list(marks)} if marks else {}),
    }


def describe_source(source: CorpusSource) -> dict[str, Any]:
    """Return what decides the documents of a source, as JSON-able data; local files count by content, not by place.

    Raises:
        CorpusError: a file is missing or cannot be read.
    """
    files = [[path.name, _digest(path)] for path in corpus_files(source.files)]
    found = json.loads(json.dumps(asdict(source) | {"files": files}))  # lists for tuples, as the manifest gives it back
    if source.cleaning is None:  # as it was described before there was cleaning
        del found["cleaning"]
    return dict(found)


def _spooled(
    sources: Sequence[CorpusSource],
    folder: Path,
    val_share: float,
    seed: int,
    echo: Callable[[str], None],
    on_documents: Callable[[int, int | None], None],
) -> tuple[Spool, dict[str, dict[str, int]]]:
    """Return the documents of all sources, chosen and split, and by source how many each rule left out."""
    spool, cleaned, seen = Spool(folder / "documents.txt"), {}, folder / "seen.db"
    with Cleaner(seen) as cleaner:
        for number, source in enumerate(sources):
            sizes = _spool_source(spool, number, source, cleaner, on_documents)
            share = val_share if source.val_share is None else source.val_share
            held = spool.hold_out(sizes, share, [seed, number])
            counts = cleaned[source.title] = dict(cleaner.counts)
            echo(f"{source.title}: {counts['kept']:,} documents, {held:,} held out")
            if source.cleaning is not None:
                echo(f"{source.title}: {', '.join(f'{count:,} {name}' for name, count in counts.items())}")
    seen.unlink()
    return spool, cleaned


def _spool_source(
    spool: Spool,
    origin: int,
    source: CorpusSource,
    cleaner: Cleaner,
    on_documents: Callable[[int, int | None], None],
) -> "array[int]":
    """Append the documents that are kept, and return how many must not be parted, group by group."""
    cleaner.counts.clear()
    rules, sizes = source.cleaning or Cleaning(), array("q")
    for number, documents in enumerate(_documents_by_group(source), 1):
        size = 0
        for document in documents:
            if cleaner.keeps(document, rules):
                spool.append(document, origin)
                size += 1
        if size:
            sizes.append(size)
        on_documents(number, None if source.by_file else source.samples)
    if len(sizes) < 2:
        left_out = cleaner.counts["read"] - cleaner.counts["kept"]
        raise CorpusError(
            f"{source.title} is a single {'file' if source.by_file else 'document'}, which cannot be split into "
            f"training and evaluation{f' ({left_out:,} known or unfit documents are left out)' if left_out else ''}; "
            "give more files, or a `separator`"
        )
    return sizes


def _codec(tokenizer: str | int, spool: Spool, bin_type: str, marks: Sequence[str]) -> Tokenizer:
    """Return the tokenizer of a name, or one that is trained on the training part."""
    try:
        if isinstance(tokenizer, int):
            every = -(-spool.num_bytes() // TOKENIZER_BYTES)
            codec = Tokenizer.train((spool[int(i)] for i in spool.part("train")[::every]), tokenizer, marks=marks)
        else:
            codec = Tokenizer.load(tokenizer)
    except ValueError as error:
        raise CorpusError(str(error)) from error
    if codec.vocab_size > BIN_TYPES[bin_type]:
        raise CorpusError(
            f"the tokenizer has {codec.vocab_size:,} tokens, more than bin_type {bin_type} can hold "
            f"({BIN_TYPES[bin_type]:,}); set bin_type: uint32"
        )
    return codec


def _documents_by_group(source: CorpusSource) -> Iterator[Iterable[str]]:
    """Yield the documents that must not be parted: of a file, or each alone."""
    if not source.by_file:
        yield from ([document] for document in read_documents(source))
        return
    if source.hub is not None:
        raise CorpusError(f"{source.title} comes from a hub, which has no files; leave out `by_file`")
    left = source.samples
    for path in corpus_files(source.files):
        if left == 0:
            return
        taken = count()
        documents = read_documents(replace(source, files=(str(path),), samples=left))
        yield (document for document, _ in zip(documents, taken, strict=False))
        left = None if left is None else left - next(taken)


def _write_split(
    folder: Path,
    split: Split,
    spool: Spool,
    codec: Tokenizer,
    bin_type: str,
    on_documents: Callable[[int, int | None], None],
) -> dict[str, int]:
    """Write the tokens, offsets and sizes of one part and return its totals."""
    numbers = spool.part(split)
    lengths, chars, sizes = array("q"), array("q"), array("q")
    with (folder / f"{split}.bin").open("wb") as file:
        for start in range(0, len(numbers), BATCH):
            texts = [spool[int(i)] for i in numbers[start : start + BATCH]]
            for text, ids in zip(texts, codec.encode_batch(texts), strict=True):
                np.array([codec.eot_id, *ids], dtype=bin_type).tofile(file)
                lengths.append(len(ids) + 1)
                chars.append(len(text))
                sizes.append(len(text.encode()))
            on_documents(len(lengths), len(numbers))
    origins = np.asarray(spool.origins)[numbers]
    documents = np.array([np.cumsum(lengths), chars, sizes, origins], dtype=np.int64)
    np.save(folder / f"{split}.documents.npy", documents, allow_pickle=False)
    return {
        "documents": len(numbers),
        "tokens": sum(lengths) - len(numbers),
        "characters": sum(chars),
        "bytes": sum(sizes),
    }


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror or error}") from error


class Corpus:
    """A prepared folder; what is asked for is read from its files.

    Attributes:
        folder: where it is.
        manifest: what `manifest.json` says.
        tokenizer: its tokenizer.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.tokenizer = Tokenizer.load(folder / TOKENIZER)
        self.tokenizer.pad_id, self.tokenizer.eot_id = manifest["pad_id"], manifest["eot_id"]
        self._dtype = np.dtype(manifest["recipe"]["bin_type"])
        self._documents = {
            split: np.load(folder / f"{split}.documents.npy", mmap_mode="r", allow_pickle=False) for split in SPLITS
        }

    @classmethod
    def open(cls, folder: Path) -> Self:
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

    def num_documents(self, split: Split) -> int:
        """Return the number of documents of a part."""
        return int(self._documents[split].shape[1])

    def document(self, split: Split, index: int) -> NDArray[np.int64]:
        """Return the token ids of a document, end-of-text first."""
        ends = self._documents[split][0]
        return self.tokens(split, int(ends[index - 1]) if index else 0, int(ends[index]))

    def tokens(self, split: Split, start: int, end: int) -> NDArray[np.int64]:
        """Return tokens by their place in a part; a mapped file's pages would count as memory of this process."""
        path, place = self.folder / f"{split}.bin", start * self._dtype.itemsize
        return np.fromfile(path, self._dtype, count=end - start, offset=place).astype(np.int64)

    def sizes(self, split: Split) -> NDArray[np.int64]:
        """Return the tokens (end-of-text not counted), characters and bytes of each document, (3, documents)."""
        ends, chars, sizes, _ = self._documents[split]
        return np.stack((np.diff(ends, prepend=0) - 1, chars, sizes))

    def sources(self, split: Split) -> dict[str, NDArray[np.bool_]]:
        """Return by name of the source which documents are from there."""
        return {name: self._documents[split][3] == i for i, name in enumerate(self.manifest["sources"])}

    def places(self, split: Split) -> dict[str, range]:
        """Return by name of the source the places of its tokens; sources follow each other."""
        ends, _, _, origins = self._documents[split]
        counts = np.searchsorted(origins, np.arange(len(self.manifest["sources"])), side="right")
        after = [int(ends[count - 1]) for count in counts]
        return dict(zip(self.manifest["sources"], map(range, [0, *after], after), strict=True))

    def stream(self, split: Split) -> NDArray[Any]:
        """Return all tokens of a part, one document after the other, memory-mapped."""
        return np.memmap(self.folder / f"{split}.bin", dtype=self._dtype, mode="r")
