"""What is left out of a corpus, rule by rule, with counts; in an order from cheap to dear.

- Length, repeated lines (the share of them as in Gopher, arXiv:2112.11446), language (py3langid, the extra `data`),
  exact duplicates, near-duplicates.
- Near-duplicates are found by MinHash in bands, as FineWeb does (arXiv:2406.17557): 112 hashes of runs of five words,
  in 14 bands of 8. Two texts that share a fraction s of their runs share a band with probability 1 - (1 - s^8)^14: .05
  at s = .5, .57 at .7, .99 at .85. A shared band is not looked into further.
- What was seen is kept in a file, so memory does not grow with the corpus. (datasketch would be a library for this; it
  needs SciPy and holds its bands in memory.)
"""

import hashlib
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

BANDS, ROWS, WORDS = 14, 8, 5
PRIME = (1 << 61) - 1
BLOCK = 4096
"""Runs of words that are hashed at a time."""

JUDGED = 1000
"""Characters of a text whose language is told; that takes 3 ms."""


@dataclass(frozen=True, slots=True)
class Cleaning:
    """Rules of what is left out.

    Attributes:
        length: characters that a document must have, from and to.
        repeated_lines: largest share of a document's lines that may stand in it before; empty lines are not counted.
        language: ISO 639-1 code of the only language that is kept, such as `en`.
        near_duplicates: leave out what resembles a document before it, from any source with this rule.
    """

    length: tuple[int, int] | None = None
    repeated_lines: float | None = None
    language: str | None = None
    near_duplicates: bool = False


class Cleaner:
    """Applies rules to documents, source by source; an exact duplicate is always left out, across all sources.

    Args:
        path: a new file for what was seen; it can be removed at the end.

    Attributes:
        counts: of the source that is read: `read`, then by rule how many were left out, then `kept`.
    """

    def __init__(self, path: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._seen = sqlite3.connect(path, isolation_level=None)
        for line in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "PRAGMA cache_size = -16384"):
            self._seen.execute(line)
        self._seen.execute("CREATE TABLE seen (key INTEGER PRIMARY KEY) WITHOUT ROWID")
        self._seen.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seen.close()

    def keeps(self, text: str, rules: Cleaning) -> bool:
        """Return whether a document is kept, and count it.

        Raises:
            ValueError: telling languages apart needs a package that is not installed.
        """
        self.counts["read"] += 1
        reason = next(self._reasons(text, rules), "kept")
        self.counts[reason] += 1
        return reason == "kept"

    def _reasons(self, text: str, rules: Cleaning) -> Iterator[str]:
        if rules.length is not None and not rules.length[0] <= len(text) <= rules.length[1]:
            yield "length"
        if rules.repeated_lines is not None and repeated_lines(text) > rules.repeated_lines:
            yield "repeated_lines"
        if rules.language is not None and language_of(text) != rules.language:
            yield "language"
        if not self._are_new([_number(text.encode())]):
            yield "duplicates"
        if rules.near_duplicates and not self._are_new(bands(text)):
            yield "near_duplicates"

    def _are_new(self, keys: list[int]) -> bool:
        """Remember keys of a document and return whether none of them was known; those of one left out are not kept."""
        marks = ", ".join("?" * len(keys))
        if self._seen.execute(f"SELECT 1 FROM seen WHERE key IN ({marks})", keys).fetchone():  # noqa: S608
            return False
        self._seen.executemany("INSERT OR IGNORE INTO seen VALUES (?)", ((key,) for key in keys))
        return True


def repeated_lines(text: str) -> float:
    """Return the share of a text's lines that stand in it before."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def language_of(text: str) -> str:
    """Return the language of a text, an ISO 639-1 code; a guess where there are but a few words.

    Raises:
        ValueError: py3langid is not installed.
    """
    try:
        from py3langid import classify
    except ImportError:
        raise ValueError("cleaning by `language` needs the package py3langid: pip install 'ulm-swarm[data]'") from None
    return str(classify(text[:JUDGED])[0])


def bands(text: str) -> list[int]:
    """Return a number for each band of a text's MinHash; letters' case and what is no letter or digit do not count."""
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    runs = range(max(1, len(words) - WORDS + 1))
    # 32 bits, so that products with factors of 31 bits fit.
    hashed_R = np.array([zlib.crc32(" ".join(words[at : at + WORDS]).encode()) for at in runs], dtype=np.uint64)
    smallest_H = np.full(BANDS * ROWS, PRIME, dtype=np.uint64)
    for start in range(0, len(hashed_R), BLOCK):
        block_RH = (hashed_R[start : start + BLOCK, None] * _FACTORS_H + _TERMS_H) % PRIME
        smallest_H = np.minimum(smallest_H, block_RH.min(0))
    rows = smallest_H.reshape(BANDS, ROWS)
    return [_number(bytes([band]) + row.tobytes()) for band, row in enumerate(rows)]


def _number(data: bytes) -> int:
    """Return a number of 64 bits for data, as SQLite takes it."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big", signed=True)


_GENERATOR = np.random.Generator(np.random.PCG64(0))
_FACTORS_H = _GENERATOR.integers(1, 1 << 31, BANDS * ROWS, dtype=np.uint64)
_TERMS_H = _GENERATOR.integers(0, 1 << 60, BANDS * ROWS, dtype=np.uint64)
