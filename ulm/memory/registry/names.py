"""Names of entities: how they are written down once, and which of them one with a typing error may mean.

- A name is normalised in one place, here, and what is compared is always the result (NFKC and casefold of Unicode).
- A word with one error (a letter more, less, other, or two swapped) has its first or its last half intact, perhaps
  moved by one. So two rows a word find every word that is one error away, whatever the script (the pigeonhole
  principle of approximate matching, Navarro 2001). Trigrams would miss short words with an error in the middle.
"""

import re
import unicodedata

from rapidfuzz.distance import OSA

_WORD = re.compile(r"\w+")
_MARK = {"first": 0, "last": 1}


def normalised(name: str) -> str:
    """Return what a name is compared by.

    Raises:
        ValueError: nothing is left of it.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    found = " ".join(plain.split())
    if not found:
        raise ValueError("a name must not be empty")
    return found


def words_of(norm: str) -> tuple[str, ...]:
    """Return the words and numbers of a normalised name, each once, in order; the whole where there are none."""
    return tuple(dict.fromkeys(_WORD.findall(norm))) or (norm,)


def halves(word: str) -> list[tuple[int, str]]:
    """Return the keys under which a word is found: its first half and its last."""
    middle = len(word) // 2
    return [(_MARK["first"], word[:middle]), (_MARK["last"], word[middle:])]


def halves_near(word: str) -> list[tuple[int, str]]:
    """Return the keys of all words that are one error away from a word, and of others."""
    found: set[tuple[int, str]] = set()
    for length in (len(word) - 1, len(word), len(word) + 1):
        if length > 0:
            first, last = length // 2, length - length // 2
            found |= {(_MARK["first"], word[:first]), (_MARK["last"], word[-last:] if last else "")}
    middle = len(word) // 2
    if middle:  # two letters swapped where the halves meet change both
        found.update(halves(word[: middle - 1] + word[middle] + word[middle - 1] + word[middle + 1 :]))
    return sorted(found)


def is_near(word: str, other: str) -> bool:
    """Return whether one word is the other but for at most one error; digits must agree."""
    if word == other:
        return True
    if [c for c in word if c.isdigit()] != [c for c in other if c.isdigit()]:
        return False
    return bool(OSA.distance(word, other, score_cutoff=1) <= 1)
