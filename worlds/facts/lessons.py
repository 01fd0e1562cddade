"""What can be learned of facts-v0: turn pages, pass what is asked, wait when nothing is.

Questions and answers are strung together from common words at random, so no fact can be learned: what an agent knows,
its memory has to say.
"""

import random
from collections.abc import Iterator
from typing import ClassVar

from worlds.mixed_lessons import MixedLessons, Mixes
from worlds.protocol import Example

_TEXT = (
    "a about account add address after all an and any app are as at available back be before by can card cart "
    "change check code contact cost country customer date day days delivery details did do does email fee find "
    "first for from full get gift go have help hours how i if in is it item items just last let like limit link "
    "list location long look make may method minutes money month more much must my name need new next no not "
    "number of off offer on one open option or order our out page paid part password pay payment people per phone "
    "place please policy price product purchase question reach receive refund return right same save see select "
    "send service set ship shop show sign size some soon start status stay still stock store support take team "
    "than that the their them then there these they this time to today top track try two type under until up use "
    "used via visit want warranty was way we website week what when where which while who will with within work "
    "would year yes you your"
)
_WORDS = _TEXT.split()


def _sentence(rng: random.Random, low: int, high: int, end: str) -> str:
    words = rng.choices(_WORDS, k=rng.randint(low, high))
    for place in range(len(words)):
        if rng.random() < 0.06:
            words[place] = rng.choice((str(rng.randint(0, 999)), words[place] + ",", words[place].upper()))
    text = " ".join(words)
    return (text[0].upper() + text[1:] if rng.random() < 0.7 else text) + end


def _question(rng: random.Random) -> str:
    return _sentence(rng, 3, 14, rng.choice(("?", "?", " ?", "")))


def _page(rng: random.Random, held_out: bool) -> Example:
    pages = rng.randint(1, 9)
    facts = [f"{_question(rng)} {_sentence(rng, 1, 25, '.')} ." for _ in range(rng.randint(1, 4))]
    text = f"desk {rng.randrange(20)} page {rng.randint(1, pages)} of {pages} : {' '.join(facts)}"
    return Example("page", "agent", text, "", "next")


def _asked(rng: random.Random, held_out: bool) -> Example:
    return Example("asked", "agent", f"asked {_question(rng)}", "", "pass")


def _done(rng: random.Random, held_out: bool) -> Example:
    return Example("done", "agent", "done", "", "wait")


class FactsLessons(MixedLessons):
    """All that an agent does that knows no facts."""

    mixes: ClassVar[Mixes] = {"facts-agent": {"page": (_page, 0.3), "asked": (_asked, 0.6), "done": (_done, 0.1)}}
    practice = frozenset({"page", "asked", "done"})

    def corpus(self, task: str) -> Iterator[str | Example]:
        """Yield examples of each kind, and answers."""
        for number in range(2000):
            rng = random.Random(number)  # noqa: S311 - not for secrets
            for make, _ in self.mixes[task].values():
                yield make(rng, False)
            yield f"answer {_sentence(rng, 2, 25, '.')}\n"
