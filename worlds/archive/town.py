"""A town as archive-v0 knows it: who and what there is, what is so since when, and documents that tell of it.

- Persons share first names and surnames, some the whole name; firms are called by half of theirs, some like a place.
- What is so may change; documents of different years say different things. One document is forged.
- A mention is written `[handle name]`: a name has one handle on its page, whoever it stands for. `the smith` behind it
  tells namesakes apart. Pronouns have no handle; they stand for whom the sentence before was about.
"""

import random
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from worlds.archive.schema import FILLERS, LEADING, RELATIONS, TRADES

NOW, OLD, FORGED = 8, 3, 9
"""Years of documents: most, old ones, and the forged one, which seems to be the newest."""

_SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]
_ENDS = ("n", "r", "s", "l", "th", "nd", "")
FIRMS = ("brothers", "works", "mills", "trading")
"""What firms are called beside a name."""

Fact = tuple[int, int | str]
"""(since which year, the other thing or a text)."""


@dataclass(slots=True)
class Thing:
    """Somebody or something.

    Attributes:
        number: its place in the town.
        type: person, firm, place or region.
        name: in full. short: names that documents use, too.
        pronoun: he, she or it.
        facts: relation -> what is so since when, oldest first.
    """

    number: int
    type: str
    name: str
    short: tuple[str, ...] = ()
    pronoun: str = "it"
    facts: dict[str, list[Fact]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All its names, the full one first."""
        return (self.name, *self.short)

    @property
    def trade(self) -> str:
        """What a person is by trade, "" for others."""
        return str(self.facts["trade"][0][1]) if "trade" in self.facts else ""

    def now(self, relation: str) -> int | str | None:
        """Return what is so today."""
        return self.facts[relation][-1][1] if relation in self.facts else None


@dataclass(frozen=True, slots=True)
class HandleClaim:
    """What a page says of a mention: handles, and since when where it says so."""

    subject: int
    relation: str
    object: int | str
    year: int | None = None

    def __str__(self) -> str:
        """Return it as agents write it."""
        other = f"[{self.object}]" if isinstance(self.object, int) else self.object
        return f"[{self.subject}] {self.relation} {other}" + (f" @{self.year}" if self.year is not None else "")


@dataclass(frozen=True, slots=True)
class Page:
    """A text with its gold.

    Attributes:
        text: what is read.
        mentions: handle -> name, as it stands there.
        things: handle -> which thing that is.
        claims: what it says, in order.
    """

    text: str
    mentions: tuple[str, ...]
    things: tuple[int, ...]
    claims: tuple[HandleClaim, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A page in an archive: whom it is about, and of which year it is or pretends to be.

    `lies` are what a forged one says that is not so: relation -> the other thing.
    """

    number: int
    about: int
    year: int
    page: Page
    lies: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a town.

    Attributes:
        text: `what is the seat of [0 mara voss] the smith 's employer ?`
        path: relations from the one that is named to the answer.
        start: who that is.
        things: those that the path leads over, the first one among them.
        answer: names that are right; () where there is no answer.
    """

    text: str
    path: tuple[str, ...]
    start: int
    things: tuple[int, ...]
    answer: tuple[str, ...]

    @property
    def query(self) -> str:
        """Return the look-up that answers it, as agents write it."""
        trade = self.text.partition("] the ")[2].split()[:1] if "] the " in self.text else []
        return " ".join(["[0]", *(["trade", *trade] if trade else []), ":", *self.path, "="])


def is_kept(word: str) -> bool:
    """Return whether a word is part of names in evaluation alone, so that no lesson has it."""
    return zlib.crc32(word.encode()) % 5 == 0


def word(rng: random.Random, held_out: bool) -> str:
    """Return a word that is part of names, in evaluation or in lessons."""
    while True:
        parts = [*rng.choices(_SYLLABLES, k=rng.choice((1, 2, 2))), rng.choice(_SYLLABLES), rng.choice(_ENDS)]
        if is_kept(found := "".join(parts)) == held_out:
            return found


def _new_word(rng: random.Random, held_out: bool, taken: set[str]) -> str:
    while (found := word(rng, held_out)) in taken:
        pass
    taken.add(found)
    return found


class Town:
    """All that is true, and who says what.

    Args:
        rng: decides everything.
        persons: how many there are.
        held_out: whether names are those kept for evaluation.
        wordings: `seen`, `held_out`, or `both` sentences.
    """

    def __init__(self, rng: random.Random, persons: int, held_out: bool, wordings: str = "seen") -> None:
        self.rng, self.wordings = rng, wordings
        self.things: list[Thing] = []
        taken: set[str] = set()
        regions = [self._add("region", _new_word(rng, held_out, taken)) for _ in range(max(3, persons // 4))]
        places = [self._add("place", _new_word(rng, held_out, taken)) for _ in range(max(3, persons // 2))]
        firms: list[Thing] = []
        for _ in range(max(3, persons // 2)):
            short = rng.choice(places).name if rng.random() < 0.15 else _new_word(rng, held_out, taken)
            name = f"{short} {rng.choice(FIRMS)}"
            if all(name != firm.name for firm in firms):
                firms.append(self._add("firm", name, (short,)))
        people = self._people(persons, held_out, taken)
        for place in places:
            place.facts["region"] = [(1, rng.choice(regions).number)]
            self._changing(place, "mayor", people, 0.85)
        for firm in firms:
            self._changing(firm, "seat", places, 1.0)
            self._changing(firm, "head", people, 0.85)
        for person in people:
            self._changing(person, "lives_in", places, 1.0)
            person.facts["born_in"] = [(1, rng.choice(places).number)]
            self._changing(person, "works_for", firms, 0.9)
            others = [other for other in people if other.name != person.name]
            if rng.random() < 0.7:
                person.facts["teacher"] = [(1, rng.choice(others).number)]
            single = [other for other in others if "married_to" not in other.facts]
            if single and "married_to" not in person.facts and rng.random() < 0.4:
                other = rng.choice(single)
                person.facts["married_to"], other.facts["married_to"] = [(1, other.number)], [(1, person.number)]

    def _add(self, type_: str, name: str, short: tuple[str, ...] = (), pronoun: str = "it") -> Thing:
        self.things.append(Thing(len(self.things), type_, name, short, pronoun))
        return self.things[-1]

    def _people(self, count: int, held_out: bool, taken: set[str]) -> list[Thing]:
        """Return persons, a third of whom share a first name or surname, a tenth the whole name."""
        rng, people = self.rng, list[Thing]()
        firsts = [(_new_word(rng, held_out, taken), rng.choice(("he", "she"))) for _ in range(max(4, count * 3 // 5))]
        lasts = [_new_word(rng, held_out, taken) for _ in range(max(4, count * 3 // 5))]
        while len(people) < count:
            (first, pronoun), last = rng.choice(firsts), rng.choice(lasts)
            namesakes = 2 if rng.random() < 0.06 and len(people) + 1 < count else 1
            name = f"{first} {last}"
            if any(person.name == name for person in people):
                continue
            for trade in rng.sample(TRADES, namesakes):
                person = self._add("person", name, (last, f"{first[0]}. {last}"), pronoun)
                person.facts["trade"] = [(1, trade)]
                people.append(person)
        return people

    def _changing(self, thing: Thing, relation: str, others: Sequence[Thing], share: float) -> None:
        """Give a thing a value of a relation, which may be another one since some year."""
        rng = self.rng
        if rng.random() >= share:
            return
        first, second = rng.sample([other.number for other in others if other is not thing], 2)
        thing.facts[relation] = [(1, first)]
        if rng.random() < 0.3:
            thing.facts[relation].append((rng.randint(OLD + 1, NOW - 1), second))

    def is_namesake(self, thing: Thing) -> bool:
        """Return whether another of its type has the same full name."""
        return any(o.name == thing.name and o.type == thing.type and o is not thing for o in self.things)

    def names_of(self, number: int) -> tuple[str, ...]:
        """Return the names that no other thing of its type has: the full one, and others."""
        thing = self.things[number]
        others = [other for other in self.things if other is not thing and other.type == thing.type]
        return tuple(name for name in thing.names if all(name not in other.names for other in others))

    def documents(self, old: float = 0.2) -> list[Document]:
        """Return a document of today about everything that has facts, and old ones about a share of these things."""
        found: list[Document] = []
        for thing in self.things:
            if thing.facts:
                years = [NOW] + [OLD] * (self.rng.random() < old)
                found += [Document(0, thing.number, year, self.page(thing, year)) for year in years]
        self.rng.shuffle(found)
        return [Document(number, d.about, d.year, d.page) for number, d in enumerate(found)]

    def forgery(self, number: int, about: int) -> Document:
        """Return a document that says false things of a thing, and what is true of nobody else."""
        thing = self.things[about]
        lie = Thing(about, thing.type, thing.name, thing.short, thing.pronoun)
        for relation, facts in thing.facts.items():
            flags = RELATIONS[relation]
            if flags.range and not flags.symmetric:
                values = {value for _, value in facts} | {about}
                others = [o.number for o in self.things if o.type == flags.range and o.number not in values]
                lie.facts[relation] = [(FORGED, self.rng.choice(others))]
            elif not flags.range:
                lie.facts[relation] = facts
        lies = {name: value for name, ((_, value), *_) in lie.facts.items() if isinstance(value, int)}
        return Document(number, about, FORGED, self.page(lie, FORGED), lies)

    def follow(self, question: Question, forged: Document | None = None) -> int | str | None:
        """Return where the path of a question leads, None for nowhere; what a forged document says goes before."""
        at: int | str | None = question.start
        for relation in question.path:
            if not isinstance(at, int):
                return None
            lied = forged is not None and forged.about == at and relation in forged.lies
            at = forged.lies[relation] if lied and forged else self.things[at].now(relation)
        return at

    def page(self, thing: Thing, year: int) -> Page:
        """Return what a document of a year says about a thing, and in passing about others."""
        rng = self.rng
        said: list[tuple[Thing, str, int | str, int | None]] = []
        for relation, facts in thing.facts.items():
            past = [fact for fact in facts if fact[0] <= year]
            if relation != "trade" and len(past) > 1:  # history: what was, and since when it is otherwise
                said += [(thing, relation, value, since) for since, value in past]
            elif relation != "trade":
                said.append((thing, relation, past[-1][1], None))
        if year == NOW:
            said += self._in_passing(thing)
        rng.shuffle(said)
        values = [value for _, _, value, _ in said if isinstance(value, int)]
        writer = _Writer(self, thing.number, {*(subject.number for subject, *_ in said), *values})
        if "trade" in thing.facts:
            writer.say(thing, "trade", thing.trade, None)
        for one in said:
            writer.say(*one)
            if rng.random() < 0.2:
                writer.parts.append(rng.choice(FILLERS))
        return writer.done()

    def _in_passing(self, thing: Thing) -> list[tuple[Thing, str, int | str, int | None]]:
        """Return some facts of others that lead to a thing."""
        found: list[tuple[Thing, str, int | str, int | None]] = []
        strangers = [other for other in self.things if other.name != thing.name]
        for other, relation in ((one, relation) for one in strangers for relation in one.facts):
            facts, is_mutual = other.facts[relation], RELATIONS[relation].symmetric
            if facts[-1][1] == thing.number and not is_mutual and self.rng.random() < 0.15:
                found.append((other, relation, thing.number, facts[-1][0] if len(facts) > 1 else None))
        return found[:3]

    @property
    def starts(self) -> list[Thing]:
        """What a question may name."""
        return [thing for thing in self.things if thing.facts]

    def question(self, hops: int, answerable: bool = True, tries: int = 1000) -> Question | None:
        """Return a question over so many relations whose last one has no value where it shall not be answerable."""
        rng = self.rng
        for _ in range(tries):
            at = start = rng.choice(self.starts)
            things, path = [start.number], list[str]()
            while len(path) < hops:
                is_last = len(path) == hops - 1
                ways = [
                    name
                    for name, relation in RELATIONS.items()
                    if relation.domain == at.type and (is_last or relation.range in LEADING)
                    if name != "trade" or path  # a name may come with it
                ]
                path.append(rng.choice(ways))
                value = at.now(path[-1])
                if not isinstance(value, int) or value in things:
                    break
                at = self.things[value]
                things.append(value)
            if len(path) < hops or (value is None) == answerable or value in things[:-1]:
                continue
            if not answerable:
                return Question(self.asked(start, path), tuple(path), start.number, tuple(things), ())
            names = self.names_of(value) if isinstance(value, int) else (str(value),)
            if names and not (isinstance(value, int) and self.is_namesake(self.things[value])):
                over = tuple(things[:hops])
                return Question(self.asked(start, path), tuple(path), start.number, over, names)
        return None

    def asked(self, start: Thing, path: Sequence[str]) -> str:
        """Return the words of a question: first those behind a name, `X 's employer`, then `the seat of` all that."""
        rng = self.rng
        phrase = f"[0 {start.name}]"
        if start.trade and (self.is_namesake(start) or rng.random() < 0.25):
            phrase += f" the {start.trade}"
        behind = rng.randint(0, min(2, len(path)))
        for place, relation in enumerate(path):
            noun = rng.choice((RELATIONS[relation].noun, *RELATIONS[relation].nouns))
            phrase = f"{phrase} 's {noun}" if place < behind else f"the {noun} of {phrase}"
        return rng.choice(("what is {} ?", "tell me {} .", "who or what is {} ?", "please name {} .")).format(phrase)


class _Writer:
    """Writes a page sentence by sentence and keeps its gold.

    Args:
        town: what is told of.
        main: whom the page is about.
        around: those whom the page speaks of; a short name that two of them have is not used.
    """

    def __init__(self, town: Town, main: int, around: set[int]) -> None:
        self.town, self.main, self.parts = town, main, list[str]()
        self._short = Counter(name for number in {main, *around} for name in town.things[number].names)
        self._names: dict[str, int] = {}
        self._things: list[int] = []
        self._claims: list[HandleClaim] = []
        self._before: Thing | None = None  # whom the sentence before was about
        self._handle: dict[int, int] = {}

    def _mention(self, thing: Thing, is_main: bool) -> str:
        """Return how a page speaks of somebody; who is spoken of in passing is told apart from namesakes."""
        rng = self.town.rng
        names = [thing.name]
        clear = [name for name in thing.short if self._short[name] == 1]
        if clear and thing.number in self._handle and rng.random() < 0.3:
            names = clear
        elif clear and not is_main and rng.random() < 0.15 and clear[-1] in self.town.names_of(thing.number):
            names = clear[-1:]
        name = rng.choice(names)
        is_new = thing.number not in self._handle
        if name not in self._names:
            self._names[name] = len(self._things)
            self._things.append(thing.number)
        handle = self._handle[thing.number] = self._names[name]
        text = f"[{handle} {name}]"
        needs = not is_main and is_new and (self.town.is_namesake(thing) or name != thing.name)
        if thing.trade and (needs or (not is_main and is_new and rng.random() < 0.25)):
            self._claims.append(HandleClaim(handle, "trade", thing.trade))
            text += f" the {thing.trade}"
        return text

    def say(self, subject: Thing, relation: str, value: int | str, year: int | None) -> None:
        """Write one fact."""
        town, rng, words = self.town, self.town.rng, RELATIONS[relation]
        is_main = subject.number == self.main
        other = town.things[value] if isinstance(value, int) else None
        clash = {name: town.things[number] for name, number in zip(self._names, self._things, strict=True)}
        told_apart = other is not None and other.name == subject.name  # by type: monaco is the capital of monaco
        if not told_apart and any(t.name in clash and clash[t.name].number != t.number for t in (subject, other) if t):
            return  # two of the same name on one page could not be told apart
        first = len(self._claims)
        pool = {"seen": words.wordings, "held_out": words.held_out, "both": words.wordings + words.held_out}
        wording = rng.choice(pool[town.wordings])
        if is_main and self._before is subject and wording.startswith("{s}") and rng.random() < 0.6:
            spoken, handle = subject.pronoun, self._handle[subject.number]
        else:
            spoken = self._mention(subject, is_main)
            handle = self._handle[subject.number]
        told = str(value) if other is None else self._mention(other, value == self.main)
        claim = HandleClaim(handle, relation, value if other is None else self._handle[other.number], year)
        self._claims.insert(first, claim)
        text = wording.format(s=spoken, o=told)
        self.parts.append(text if year is None else f"{rng.choice(('since', 'from'))} year {year} {text}")
        self._before = subject

    def done(self) -> Page:
        """Return the page; handles are numbered as they stand there, so that they tell nothing of who does what."""
        text = " . ".join(self.parts) + " ."
        order = list(dict.fromkeys(int(number) for number in re.findall(r"\[([0-9]+) ", text)))
        now = {before: after for after, before in enumerate(order)}
        names = list(self._names)
        claims = [
            HandleClaim(
                now[one.subject], one.relation, now[one.object] if isinstance(one.object, int) else one.object, one.year
            )
            for one in self._claims
        ]
        text = re.sub(r"\[([0-9]+) ", lambda match: f"[{now[int(match[1])]} ", text)
        return Page(text, tuple(names[n] for n in order), tuple(self._things[n] for n in order), tuple(claims))
