"""What agents of archive-v0 can learn: to note what a page says, to look up what is asked, to open what they are told.

Names are those of lessons alone; held-out examples have the others, and no example has a sentence that is held out.
In a share of the pages words are replaced by others, so that a page can be understood where a word is new.
"""

import random
import zlib
from collections.abc import Iterator
from typing import ClassVar

from worlds.archive.grammar import UNKNOWN, mentions, parse_note
from worlds.archive.schema import FILLERS, TOWNS, TRADES
from worlds.archive.town import FIRMS, NOW, OLD, Town, word
from worlds.mixed_lessons import MixedLessons, Mixes
from worlds.protocol import Example

PERSONS = 16
"""Of a lesson's town."""

NOISE = 0.4
"""Share of pages in which words are replaced, up to half of them."""


def _note(rng: random.Random, held_out: bool) -> Example:
    """Note what a page says."""
    town = Town(rng, PERSONS, held_out)
    thing = rng.choice([thing for thing in town.things if thing.type != "region"])
    year = rng.choice((NOW, NOW, NOW, OLD))
    page = town.page(thing, year)
    text = _noisy(page.text, rng) if not held_out and rng.random() < NOISE else page.text
    claims = " ; ".join(map(str, page.claims))
    return Example(
        "note", "agent", f"doc {rng.randrange(120)} year {year} : {text}", _told(rng), f"note {claims}".strip()
    )


def _told(rng: random.Random) -> str:
    """Return what an agent may be told while it reads or is asked, which then means nothing."""
    return rng.choice(("", "", "wait", f"open {rng.randrange(120)}", "ready"))


def _noisy(text: str, rng: random.Random) -> str:
    """Return a page some of whose words are others; mentions, trades and years stay."""
    words, inside, share = text.split(), False, rng.uniform(0.05, 0.5)
    kept = {*TRADES, ".", "since", "from", "year", "the", "he", "she", "it"}
    for place, one in enumerate(words):
        inside = inside or one.startswith("[")
        if not inside and one not in kept and not one.isdigit() and rng.random() < share:
            words[place] = rng.choice((word(rng, False), rng.choice(_COMMON)))
        inside = inside and not one.endswith("]")
    return " ".join(words)


_COMMON = sorted({one for filler in FILLERS for one in filler.split()} - {"the", "he", "she", "it", "year"})


def _ask(rng: random.Random, held_out: bool) -> Example:
    """Look up what is asked."""
    town = Town(rng, PERSONS, held_out)
    question = None
    while question is None:
        question = town.question(rng.randint(1, 4), rng.random() < 0.9, tries=100)
    text = f"asked q{rng.randrange(40)} : {question.text}"
    answer = f"answer {question.query}"
    return Example("ask", "agent", text, _told(rng), answer + _looked_up(text, answer))


def _looked_up(observation: str, text: str) -> str:
    """Return what stands for the answer of a registry: some name or trade, or that nobody knows.

    Of every kind that a registry gives: after an answer that it has never seen, a model goes on writing.
    """
    rng = random.Random(zlib.crc32(f"{observation}\n{text}".encode()))  # noqa: S311 - not for secrets
    name = word(rng, False)
    said = (name, f"{name} {word(rng, False)}", f"{name} {rng.choice(FIRMS)}", rng.choice(TRADES), UNKNOWN)
    return f" {rng.choice(said)}"


def _titles(rng: random.Random, held_out: bool, count: int) -> list[str]:
    """Return titles of documents that are there to be opened."""
    numbers = sorted(rng.sample(range(120), count))
    kinds = ("firm", "place", *TRADES)
    named = [" ".join(word(rng, held_out) for _ in range(rng.choice((1, 2, 2)))) for _ in numbers]
    rows = zip(numbers, named, strict=True)
    return [f"{number} {name} {rng.choice(kinds)} {rng.choice((NOW, NOW, OLD))}" for number, name in rows]


def _open(rng: random.Random, held_out: bool) -> Example:
    """Open what one is told to open, else the first; wait, or end the reading, where one is told so.

    Few titles come more often than many: of many alone a model learns nothing of what it is told, and its embeddings of
    `wait` and `ready`, which then mean the same, become one.
    """
    titles = _titles(rng, held_out, int(33 ** rng.random()))
    first, other = titles[0].split()[0], rng.choice(titles).split()[0]
    told = rng.choice(("", *(f"open {other}",) * 3, *("wait", "ready") * 2))
    return Example("open", "agent", f"open : {' | '.join(titles)}", told, told or f"open {first}")


def _done(rng: random.Random, held_out: bool) -> Example:
    """Wait when all is done."""
    return Example("done", "agent", "done", rng.choice(("", "wait", "ready")), "wait")


class ArchiveLessons(MixedLessons):
    """All that an agent does; what is in a registry it looks up."""

    mixes: ClassVar[Mixes] = {
        "archive-agent": {"note": (_note, 0.55), "ask": (_ask, 0.15), "open": (_open, 0.28), "done": (_done, 0.02)}
    }
    practice = frozenset({"done"})
    pieces = r" ?\[\d{1,2}\]?| ?[;:.|=]| [a-z]+_[a-z]+"

    def inline(self, observation: str, text: str) -> str | None:
        """Return some answer to a look-up."""
        is_asked = observation.startswith("asked ") and text.startswith("answer ") and text.endswith(" =")
        return _looked_up(observation.split("\n")[0], text) if is_asked else None

    def corpus(self, task: str) -> Iterator[str | Example]:
        """Yield examples, and names of both kinds, so that none is cut up more than others."""
        yield from super().corpus(task)
        rng = random.Random(1)  # noqa: S311 - not for secrets
        yield from (" ".join(word(rng, held_out) for _ in range(200)) for held_out in (True, False) for _ in range(20))
        yield from (f"{wording} {' '.join(r.nouns)}" for r in TOWNS.values() for wording in r.wordings)

    def judge(self, example: Example, answer: str) -> bool:
        """Return whether an answer does what is right, whatever the order of its claims."""
        return self.score(example, answer) == 1.0

    def score(self, example: Example, answer: str) -> float:
        """Return how much is right: of a note F1 of its claims, of other answers all or nothing."""
        if example.kind != "note":
            return float(answer.strip() == example.answer)
        known = mentions(example.observation)
        said, true = (
            {str(claim) for claim in parse_note(text.strip().removeprefix("note").strip(), known)[0]}
            for text in (answer, example.answer)
        )
        both = len(said & true)
        return 2 * both / (len(said) + len(true)) if said or true else 1.0
