"""Names of entities: how they are written down once, and which of them one with a typing error may mean.

- A name is normalised in one place, here, and what is compared is always the result (NFKC and casefold of Unicode).
- A word with one error (a letter more, less, other, or two swapped) has its first or its last half intact, perhaps
  moved by one. So two rows a word find every word that is one error away, whatever the script (the pigeonhole
  principle of approximate matching, Navarro 2001). Trigrams would miss short words with an error in the middle.
"""

import re
import unicodedata
from functools import lru_cache

from rapidfuzz.distance import OSA

LONG = 3
"""Letters from which on a word may have a typing error."""

_WORD = re.compile(r"\w+")


@lru_cache(maxsize=1 << 14)
def normalised(name: str) -> str:
    """Return what a name is compared by.

    Raises:
        ValueError: nothing is left of it.
    """
    if name.isascii():  # most names; NFKC leaves them as they are
        plain = name.lower()
    else:
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    found = " ".join(plain.split())
    if not found:
        raise ValueError("a name must not be empty")
    return found


@lru_cache(maxsize=1 << 14)
def words_of(norm: str) -> tuple[str, ...]:
    """Return the words and numbers of a normalised name, each once, in order; the whole where there are none."""
    return tuple(dict.fromkeys(_WORD.findall(norm))) or (norm,)


def halves(word: str) -> list[str]:
    """Return the keys under which a word is found: its first half and its last, marked."""
    middle = len(word) // 2
    return [f"<{word[:middle]}", f">{word[middle:]}"]


def halves_near(word: str) -> list[str]:
    """Return the keys of all words that are one error away from a word, and of others."""
    found: set[str] = set()
    for length in (len(word) - 1, len(word), len(word) + 1):
        if length > 0:
            first, last = length // 2, length - length // 2
            found |= {f"<{word[:first]}", f">{word[-last:] if last else ''}"}
    middle = len(word) // 2
    if middle:  # two letters swapped where the halves meet change both
        found.update(halves(word[: middle - 1] + word[middle] + word[middle - 1] + word[middle + 1 :]))
    return sorted(found)


def is_near(word: str, other: str) -> bool:
    """Return whether one word is the other but for at most one error; digits must agree."""
    if word == other:
        return True
    if OSA.distance(word, other, score_cutoff=1) > 1:
        return False
    return [c for c in word if c.isdigit()] == [c for c in other if c.isdigit()]


def shortens(short: str, name: str) -> bool:
    """Return whether one normalised name is a shorter form of another: some of its words, or their initials."""
    rest = iter(words_of(name))
    words = words_of(short)
    return short != name and all(any(w == word or (len(w) == 1 and word.startswith(w)) for word in rest) for w in words)


def is_misspelt(name: str, other: str) -> bool:
    """Return whether two normalised names differ by typing errors alone, at most one in each word."""
    words, others = words_of(name), words_of(other)
    return name != other and len(words) == len(others) and all(map(is_near, words, others))


def may_be_one(name: str, other: str) -> bool:
    """Return whether two normalised names may stand for the same: all words of one are in the other, in order.

    An initial stands for a word, and a long word may have a typing error.
    """
    short, long = sorted((words_of(name), words_of(other)), key=len)
    rest = iter(long)
    return all(any(_may_be_word(word, there) for there in rest) for word in short)


def _may_be_word(word: str, other: str) -> bool:
    short, long = sorted((word, other), key=len)
    return word == other or (len(short) == 1 and long.startswith(short)) or (len(short) > LONG and is_near(word, other))
