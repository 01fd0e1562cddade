"""Exact memory: facts that are recalled word by word, without training.

- A fact is a key and a value. Where a text ends with the whole key, the memory says which token follows, and so on
  through the value: what it says at a position is a function of the tokens up to there, so decoding step by step,
  in chunks or all at once gives the same, and there is no cursor that could be lost.
- The whole key is compared, token by token. Where nothing matches, nothing is touched, to the bit.
- The longest match wins; among equals a key wins over the rest of a value that is being recalled.
- `recall` leaves alone what the model already says with enough certainty.
- Files are `ulm.memory.fact_store`'s business; no model and no tokenizer is known here but for a function that encodes.

Axes: B rows, T tokens, V vocabulary.
"""

import json
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ulm.files import write_whole
from ulm.memory.fact_store import Fact, FactStore
from ulm.memory.ngrams import NOTHING
from ulm.tokenizer import encode_after

MAX_TOKENS = 1024
"""Longest key, and longest value."""


class ConflictError(ValueError):
    """A key has another value already."""


class ExactIndex:
    """Which token follows which ends of texts: a text's last token says which lengths can matter, a table the rest."""

    def __init__(self) -> None:
        self._next: dict[bytes, dict[tuple[int, bool], int]] = {}
        """Per text end: which token follows, by how many tokens are of a value and whether the key is an alias."""
        self._lengths: Counter[int] = Counter()
        """How many ends have each length."""
        self._lengths_by_token: defaultdict[int, Counter[int]] = defaultdict(Counter)
        """The same of the ends with each last token."""

    @property
    def longest(self) -> int:
        """Tokens of a text's end that can matter."""
        return max(self._lengths, default=0)

    def add(self, key_ids: Sequence[int], value_ids: Sequence[int], *, alias: bool = False) -> None:
        """Let a value follow a key, or another way of writing a key, which gives way to keys."""
        line = (*key_ids, *value_ids)
        for told, token in enumerate(value_ids):
            end = line[: len(key_ids) + told]
            following = self._next.setdefault(_bytes(end), {})
            if not following:
                self._count(end, 1)
            following[told, alias] = token

    def remove(self, key_ids: Sequence[int], value_ids: Sequence[int], *, alias: bool = False) -> None:
        """Take back what `add` did; unknown ones are left."""
        line = (*key_ids, *value_ids)
        for told in range(len(value_ids)):
            end = line[: len(key_ids) + told]
            following = self._next.get(_bytes(end), {})
            if following.pop((told, alias), None) is not None and not following:
                del self._next[_bytes(end)]
                self._count(end, -1)

    def _count(self, end: Sequence[int], change: int) -> None:
        for lengths in (self._lengths, self._lengths_by_token[end[-1]]):
            lengths[len(end)] += change
            if not lengths[len(end)]:
                del lengths[len(end)]

    def after(self, ids: Sequence[int]) -> int:
        """Return which token follows a text; `NOTHING` where the memory says nothing."""
        lengths = self._lengths_by_token.get(ids[-1]) if ids else None
        if not lengths:
            return NOTHING
        line = _bytes(ids[-max(lengths) :])
        ends = [line[-4 * n :] for n in lengths if 4 * n <= len(line)]
        known = [end for end in ends if end in self._next]
        following = self._next[max(known, key=len)] if known else {(0, False): NOTHING}
        return following[min(following)]

    def following(self, ids_BT: NDArray[np.integer], last: int) -> NDArray[np.int64]:
        """Return what the memory says after each of the last positions, (B, last); `NOTHING` where it says nothing.

        Args:
            ids_BT: texts; `NOTHING` where there is none (padding), which matches no fact.
            last: how many positions are asked for.
        """
        T, reach = ids_BT.shape[1], self.longest
        ends = range(T - last + 1, T + 1)
        found = [self.after(ids[max(0, end - reach) : end]) for ids in ids_BT.tolist() for end in ends]
        return np.array(found, dtype=np.int64).reshape(-1, last)


def recall(logits_BTV: Tensor, next_BT: NDArray[np.int64], certainty: float = 0.999) -> Tensor:
    """Return logits under which what the memory says has at least a given probability.

    Positions where it says nothing, or the model says it with that certainty anyway, keep their logits to the bit.

    Args:
        logits_BTV: of the model.
        next_BT: from `ExactIndex.following`.
        certainty: probability, in (0, 1).
    """
    b, t = (torch.from_numpy(x).to(logits_BTV.device) for x in (next_BT >= 0).nonzero())
    if not len(b):
        return logits_BTV
    token_N = torch.from_numpy(next_BT[next_BT >= 0]).to(logits_BTV.device)[:, None]
    rows_NV = logits_BTV[b, t].float()
    others_N1 = rows_NV.scatter(1, token_N, -math.inf).logsumexp(1, keepdim=True)
    wanted_N1 = others_N1 + math.log(certainty / (1 - certainty))
    raised_N1 = torch.maximum(rows_NV.gather(1, token_N), wanted_N1).to(logits_BTV.dtype)
    changed = logits_BTV.clone()
    changed[b, t] = changed[b, t].scatter(1, token_N, raised_N1)
    return changed


@dataclass
class ExactMemory:
    """Facts that can be written, taken back and recalled.

    Args:
        encode: returns a text's tokens, without special ones.
        tokenizer_hash: identifies the tokenizer.
        path: SQLite file that keeps the facts; None keeps them for as long as the object lives.
        terminator: tokens recalled after every value, such as the end of text.
        conflicts: what happens to a fact whose key has another value: `refuse` raises, `replace` takes the new one,
            `keep` the old one.
        read_only: open the file for reading alone; `refresh` takes in what others wrote.

    Raises:
        ValueError: the file is damaged or belongs to something else.
        FileNotFoundError: `read_only`, and there is none.
    """

    encode: Callable[[str], list[int]]
    tokenizer_hash: str
    path: Path | None = None
    terminator: tuple[int, ...] = ()
    conflicts: Literal["refuse", "replace", "keep"] = "refuse"
    read_only: bool = False
    index: ExactIndex = field(default_factory=ExactIndex, init=False)
    _facts: dict[tuple[int, ...], Fact] = field(default_factory=dict, init=False)
    revision: int = field(default=0, init=False)
    """Number of the last change that this object knows."""

    def __post_init__(self) -> None:
        if self.conflicts not in ("refuse", "replace", "keep"):
            raise ValueError(f"conflicts is 'refuse', 'replace' or 'keep', got {self.conflicts!r}")
        self._store = FactStore(self.path, self.tokenizer_hash, read_only=self.read_only)
        self.refresh()

    def __len__(self) -> int:
        return len(self._facts)

    def __iter__(self) -> Iterator[Fact]:
        """Facts in the order in which they were written last."""
        return iter(sorted(self._facts.values(), key=lambda fact: fact.revision))

    def write(self, key: str, value: str, source: str = "") -> Fact:
        """Store a fact; on disk when the call returns.

        Args:
            key: what a text ends with when the value is wanted; also found after a space.
            value: what follows, its leading space included.
            source: who says so.

        Raises:
            ConflictError: the key has another value, and `conflicts` is `refuse`.
            ValueError: key or value is empty or longer than `MAX_TOKENS`.
        """
        return self.write_all([(key, value, source)])[0]

    def write_all(self, facts: Iterable[tuple[str, str, str]]) -> list[Fact]:
        """Store many (key, value, source) in one transaction: all or, where one is refused, none."""
        encoded = [self._encoded(*fact) for fact in facts]
        with self._store.writing():
            self.refresh()
            now: dict[tuple[int, ...], Fact] = {}
            for fact in encoded:
                there = now.get(fact.key_ids) or self._facts.get(fact.key_ids) or fact
                other = there.value_ids != fact.value_ids
                if other and self.conflicts == "refuse":
                    raise ConflictError(
                        f"the key {fact.key!r} has the value {there.value!r} from "
                        f"{there.source or 'an unnamed source'}, and {fact.source or 'an unnamed source'} says "
                        f"{fact.value!r}; forget the old one, or set conflicts to 'replace' or 'keep'"
                    )
                now[fact.key_ids] = fact if other and self.conflicts == "replace" else there
            now |= {
                fact.key_ids: fact for fact in self._store.put([fact for fact in now.values() if not fact.revision])
            }
        self.refresh()
        return [now[fact.key_ids] for fact in encoded]

    def forget(self, key: str, source: str = "") -> bool:
        """Take a fact back; return whether there was one."""
        found = self._store.forget(tuple(self.encode(key)), source)
        self.refresh()
        return found

    def get(self, key: str) -> Fact | None:
        """Return the fact with a key, None where there is none."""
        return self._facts.get(tuple(self.encode(key)))

    def refresh(self) -> int:
        """Take in what others wrote to the file; return how many changes there were."""
        changes = self._store.since(self.revision)
        for fact in changes:
            if (old := self._facts.pop(fact.key_ids, None)) is not None:
                for key_ids, alias in self._keys(old):
                    self.index.remove(key_ids, (*old.value_ids, *self.terminator), alias=alias)
            if not fact.forgotten:
                self._facts[fact.key_ids] = fact
                for key_ids, alias in self._keys(fact):
                    self.index.add(key_ids, (*fact.value_ids, *self.terminator), alias=alias)
            self.revision = fact.revision
        return len(changes)

    def export(self, path: Path) -> int:
        """Write all facts as JSON lines with key, value, source and revision; return how many."""
        lines = [
            json.dumps({"key": f.key, "value": f.value, "source": f.source, "revision": f.revision}, ensure_ascii=False)
            for f in self
        ]
        write_whole(path, "".join(f"{line}\n" for line in lines))
        return len(lines)

    def copy_to(self, path: Path) -> None:
        """Write all facts, with sources and revisions, to a new file; one that is there is replaced."""
        self._store.copy_to(path)

    def copy_from(self, path: Path) -> None:
        """Become a copy of a file that `copy_to` wrote.

        Raises:
            ValueError: there are facts already, or the file is damaged or belongs to another tokenizer.
        """
        if self.revision:
            raise ValueError("a memory that holds facts cannot become a copy of another; write them one by one")
        self._store.copy_from(path)
        self.refresh()

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()

    def _encoded(self, key: str, value: str, source: str) -> Fact:
        key_ids, value_ids = encode_after(self.encode, key, value)
        for name, text, ids in (("key", key, key_ids), ("value", value, value_ids)):
            if not ids:
                raise ValueError(f"a {name} must not be empty" + (f" (key {key!r})" if name == "value" else ""))
            if len(ids) > MAX_TOKENS:
                raise ValueError(f"a {name} has at most {MAX_TOKENS} tokens, {text[:40]!r}... has {len(ids)}")
        return Fact(key, value, tuple(key_ids), tuple(value_ids), source)

    def _keys(self, fact: Fact) -> list[tuple[tuple[int, ...], bool]]:
        """Return the tokens of a key and, as an alias, those that it has after a space, where they differ."""
        spaced = tuple(self.encode(" " + fact.key))
        return [(fact.key_ids, False)] + [(spaced, True)] * (spaced != fact.key_ids)


def _bytes(ids: Sequence[int]) -> bytes:
    return array("i", ids).tobytes()
