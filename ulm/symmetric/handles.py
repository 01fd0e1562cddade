"""Mentions of a sentence as numbers: `[0] went to the [1]`, so that a parser never spells a name, nor learns one.

What is a mention is learned from labelled sentences: every word that labels name, and every word that no labelled
sentence has. Labels write `[mice/mouse]` for a word and the name that it stands for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_LABELLED = re.compile(r"\[(?P<word>[^\[\]/]+)(?:/(?P<name>[^\[\]]+))?\]")
_WORD = re.compile(r"\w+|[^\w\s]")


def words_of(sentence: str) -> list[str]:
    """Return words and marks of a sentence, in lower case."""
    return _WORD.findall(sentence.lower())


class Reading(NamedTuple):
    """A sentence as a parser reads it.

    Attributes:
        prompt: the sentence, and the one before, with numbers for mentions.
        names: by number, those of the sentence first.
        words: the words that they stand for.
        own: how many of them the sentence itself has.
    """

    prompt: str
    names: tuple[str, ...]
    words: tuple[str, ...]
    own: int

    def name_of(self, mention: str) -> str:
        """Return the name of a mention `[0]`; what is none names itself."""
        number = mention[1:-1]
        return self.names[int(number)] if number.isdigit() and int(number) < len(self.names) else mention

    def labelled(self, label: str) -> str:
        """Return a label over words with numbers in their place.

        Raises:
            ValueError: the label names a word that is not there.
        """
        return _LABELLED.sub(lambda match: f"[{self.words.index(match['word'])}]", label)


class Handles:
    """Finds mentions.

    Args:
        labelled: sentences with their labels.

    Attributes:
        names: name of each word that a label names.
        others: words that are no mentions.
    """

    def __init__(self, labelled: Iterable[tuple[str, str]]) -> None:
        self.names: dict[str, str] = {}
        seen: set[str] = set()
        for sentence, label in labelled:
            self.names |= {match["word"]: match["name"] or match["word"] for match in _LABELLED.finditer(label)}
            seen.update(words_of(sentence))
        self.others = frozenset(seen - set(self.names))

    def read(self, sentence: str, before: str = "") -> Reading:
        """Return a sentence for a parser, with the sentence before it, which may say who `they` are."""
        words: list[str] = []
        now = self._numbered(sentence, words)
        own = len(words)
        prompt = f"{now} | {self._numbered(before, words)} :"
        return Reading(prompt, tuple(self.names.get(word, word) for word in words), tuple(words), own)

    def _numbered(self, sentence: str, words: list[str]) -> str:
        found = []
        for word in words_of(sentence):
            is_mention = word not in self.others and word[0].isalnum()
            found.append(f"[{len(words)}]" if is_mention else word)
            words += [word] if is_mention else []
        return " ".join(found)
