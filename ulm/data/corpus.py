"""From documents to token files: splits them, trains or loads a tokenizer, writes `.bin` files, opens them again.

- A text that occurs twice is taken once, and documents are split before anything is cut into windows: nothing of
  evaluation is trained on. The tokenizer is trained on the training part alone.
- A folder is written once and verified by checksum when it is opened; `manifest.json` comes last, so a folder without
  one is unfinished.
- Knows no model and no training.

In a `.bin` file a document is the end-of-text token, from which its first token is predicted, and then its tokens.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ulm.data.documents import CorpusError, CorpusSource, corpus_files, read_documents
from ulm.files import TakenError, refuse_taken, sha256, whole_folder
from ulm.tokenizer import Tokenizer

FORMAT = 1
MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"
Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
BIN_TYPES = {"uint16": 2**16, "uint32": 2**32}
"""Types of a token in a `.bin` file, and how many token ids each can tell apart."""

BATCH = 256
"""Documents tokenised at a time."""


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
        echo: receives progress lines.
        on_documents: told how many documents of a source were read, then of a part written, of how many, if known.

    Raises:
        CorpusError: see `read_documents`; too few documents, or a vocabulary too large for the type.
    """
    recipe = _recipe(sources, tokenizer, val_share, seed, bin_type)
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
    parts: dict[Split, list[tuple[int, str]]] = {"train": [], "val": []}
    seen: set[str] = set()
    for number, source in enumerate(sources):
        groups = _groups(source, seen, on_documents)
        if len(groups) < 2:
            raise CorpusError(
                f"{source.title} is a single {'file' if source.by_file else 'document'}, which cannot be split into "
                "training and evaluation; give more files, or a `separator`"
            )
        share = val_share if source.val_share is None else source.val_share
        held_out = min(len(groups) - 1, max(1, round(share * len(groups))))
        order = np.random.Generator(np.random.PCG64([seed, number])).permutation(len(groups))
        chosen = set(order[:held_out].tolist())
        for i, documents in enumerate(groups):
            parts["val" if i in chosen else "train"] += [(number, document) for document in documents]
        held = sum(len(groups[i]) for i in chosen)
        echo(f"{source.title}: {sum(map(len, groups)):,} documents, {held:,} held out")
    try:
        codec = (
            Tokenizer.train((text for _, text in parts["train"]), tokenizer)
            if isinstance(tokenizer, int)
            else Tokenizer.load(tokenizer)
        )
    except ValueError as error:
        raise CorpusError(str(error)) from error
    if codec.vocab_size > BIN_TYPES[bin_type]:
        raise CorpusError(
            f"the tokenizer has {codec.vocab_size:,} tokens, more than bin_type {bin_type} can hold "
            f"({BIN_TYPES[bin_type]:,}); set bin_type: uint32"
        )
    try:
        with whole_folder(folder) as fresh:
            codec.save(fresh / TOKENIZER)
            splits = {s: _write_split(fresh, s, parts[s], codec, bin_type, on_documents) for s in SPLITS}
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
    except OSError as error:
        raise CorpusError(f"cannot write {folder}: {error.strerror or error}") from error
    for split, numbers in splits.items():
        echo(f"{split}: {numbers['documents']:,} documents, {numbers['tokens']:,} tokens, {numbers['bytes']:,} bytes")
    return Corpus.open(folder)


def _recipe(
    sources: Sequence[CorpusSource], tokenizer: str | int, val_share: float, seed: int, bin_type: str
) -> dict[str, Any]:
    """Return what decides the content of a folder; local files count by content, not by place."""
    described = [
        asdict(source)
        | {
            "files": [[path.name, _digest(path)] for path in corpus_files(source.files)],
            "body": source.body and list(source.body),  # as JSON gives it back
        }
        for source in sources
    ]
    if not isinstance(tokenizer, int):
        path = Path(tokenizer) / TOKENIZER if Path(tokenizer).is_dir() else Path(tokenizer)
        tokenizer = _digest(path) if path.is_file() else tokenizer
    return {"sources": described, "tokenizer": tokenizer, "val_share": val_share, "seed": seed, "bin_type": bin_type}


def _groups(source: CorpusSource, seen: set[str], on_documents: Callable[[int, int | None], None]) -> list[list[str]]:
    """Return the documents that are not `seen` yet, those that must not be parted in one list."""
    groups: list[list[str]] = []
    for documents in _documents_by_group(source):
        new = [document for document in dict.fromkeys(documents) if document not in seen]
        seen.update(new)
        groups.append(new)
        on_documents(len(groups), None if source.by_file else source.samples)
    return [group for group in groups if group]


def _documents_by_group(source: CorpusSource) -> Iterator[list[str]]:
    if not source.by_file:
        yield from ([document] for document in read_documents(source))
        return
    if source.hub is not None:
        raise CorpusError(f"{source.title} comes from a hub, which has no files; leave out `by_file`")
    left = source.samples
    for path in corpus_files(source.files):
        if left == 0:
            return
        documents = list(read_documents(replace(source, files=(str(path),), samples=left)))
        left = None if left is None else left - len(documents)
        yield documents


def _write_split(
    folder: Path,
    split: Split,
    part: list[tuple[int, str]],
    codec: Tokenizer,
    bin_type: str,
    on_documents: Callable[[int, int | None], None],
) -> dict[str, int]:
    """Write the tokens, offsets and sizes of one part (source and text of each document) and return its totals."""
    origins, texts = zip(*part, strict=True)
    lengths = []
    with (folder / f"{split}.bin").open("wb") as file:
        for start in range(0, len(texts), BATCH):
            for ids in codec.encode_batch(texts[start : start + BATCH]):
                np.array([codec.eot_id, *ids], dtype=bin_type).tofile(file)
                lengths.append(len(ids) + 1)
            on_documents(len(lengths), len(texts))
    chars, sizes = [len(text) for text in texts], [len(text.encode()) for text in texts]
    documents = np.array([np.cumsum(lengths), chars, sizes, origins], dtype=np.int64)
    np.save(folder / f"{split}.documents.npy", documents, allow_pickle=False)
    return {
        "documents": len(texts),
        "tokens": sum(lengths) - len(texts),
        "characters": sum(chars),
        "bytes": sum(sizes),
    }


def _digest(path: Path) -> str:
    try:
        return sha256(path)
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
        self.folder, self.manifest = folder, manifest
        self.tokenizer = Tokenizer.load(folder / TOKENIZER)
        self.tokenizer.pad_id, self.tokenizer.eot_id = manifest["pad_id"], manifest["eot_id"]
        dtype = manifest["recipe"]["bin_type"]
        self._tokens = {split: np.memmap(folder / f"{split}.bin", dtype=dtype, mode="r") for split in SPLITS}
        self._documents = {split: np.load(folder / f"{split}.documents.npy", allow_pickle=False) for split in SPLITS}

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
