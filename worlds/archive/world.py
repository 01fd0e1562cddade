"""`archive-v0`: documents in archives of which everybody may open only some, and questions that need several.

Owns which document lies where, how much may be read, and what is asked. It refuses to know how anybody remembers.
"""

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from worlds.archive.countries import Countries, parse_countries
from worlds.archive.grammar import UNKNOWN, claims_of, mentions, parse_note, read_page, read_question, tell
from worlds.archive.schema import RELATIONS
from worlds.archive.town import Document, Question, Town
from worlds.files import read_once
from worlds.ordered import OrderedWorld
from worlds.protocol import Info, WorldError, WorldOptions, tool

_OPEN = re.compile(r"open ([0-9]{1,4})")


class ArchiveOptions(WorldOptions):
    """Options of archive-v0."""

    file: Path | None = None
    """Countries in place of a town, relative to the YAML file: `countries.json` of github.com/mledoze/countries."""

    persons: int = Field(40, ge=8, le=400)
    """Persons of a town; there are half as many firms and places each, and a quarter as many regions. Of a file, as
    many countries, or all where it has fewer."""

    archives: int = Field(4, ge=1, le=256)
    """Archives among which documents are divided; archive a belongs to agent a modulo the number of agents."""

    questions: int = Field(10, ge=1, le=256)
    """Questions; they need one to `hops` documents in turn."""

    hops: int = Field(4, ge=1, le=4)
    """Relations that a question follows at most."""

    unanswerable: float = Field(0.1, ge=0, le=1)
    """Share of questions that have no answer."""

    reading: float = Field(1 / 3, gt=0, le=1)
    """Share of all documents that may be opened before the archives close."""

    forged: bool = True
    """Whether one document is forged, which is told when half of the reading is done."""

    wordings: Literal["seen", "held_out", "both"] = "seen"
    """Sentences of documents: those of lessons, those that no lesson has, or both."""

    names: Literal["held_out", "seen"] = "held_out"
    """Names: those that no lesson has, or those of lessons."""

    tells: Literal["number", "claims"] = "number"
    """What an agent reports of a document that it has noted: its number; or what it noted, too, for agents that have
    no registry in common and read each other's reports (`topology`)."""

    max_steps: int = Field(400, ge=1)
    """Steps after which the episode is truncated."""


class ArchiveWorld(OrderedWorld):
    """Read documents of your own archives, note what they say, then answer questions that need those of others, too.

    Documents are about persons, firms and places, with names that several share, short names, changes over time, and
    one that turns out to be forged. In a text, `[0 mara voss]` is a mention; notes and answers use its number. When
    all the reading that is allowed is done, or an agent is `ready`, it is asked its questions one by one.

    What an agent notes are `claims` for a registry; whoever has none has to remember otherwise. Agents may answer with
    a look-up, such as `[0] trade smith : works_for seat =`: who is named, what is known of them, and where to go from
    there. What follows its `=` is the answer.

    observation  `open : 3 mara voss smith 8 | 7 tarn place 8` (number, title, year); `doc 3 year 8 : [0 mara voss] is
                 a smith . she works for [1 brask mills] .`; `asked q2 : what is the seat of [0 mara voss] 's firm ?`;
                 `done`.
    actions      `open 3`, `note [0] trade smith ; [0] works_for [1] @6`, `answer tarn`, `answer unknown`, `ready` (no
                 more reading), `wait`.
    report       at reset `holds 3 mara voss smith 8 | ... ; asked q2 what is ... ?`; then `read 3`, `forged 3`; with
                 `tells: claims` also `read 3 : [mara voss] works_for [brask] @8 ; [mara voss] trade smith @8`.
    directive    `open 3`, `wait`, `ready`.
    reward       1 / all questions to the agent whose answer is right; solved when all were answered right.
    ends         terminated when no question is open any more.
    options      file (null makes up a town; else countries), persons (40), archives (4), questions (10), hops (4),
                 unanswerable (.1), reading (1/3), forged (true), wordings (seen), names (held_out), tells (number),
                 max_steps (400).
    """

    id: ClassVar[str] = "archive-v0"
    Options: ClassVar[type[WorldOptions]] = ArchiveOptions
    playbook: ClassVar[str | None] = "worlds.archive.playbook:ArchivePlaybook"
    lessons: ClassVar[str | None] = "worlds.archive.lessons:ArchiveLessons"
    claims: ClassVar[Mapping[str, Sequence[str]]] = {name: relation.flags for name, relation in RELATIONS.items()}
    options: ArchiveOptions

    def __init__(self, num_agents: int, options: WorldOptions) -> None:
        super().__init__(num_agents, options)
        file = self.options.file
        self._countries = () if file is None else read_once(parse_countries, file)

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """Found the town of `seed` and file its documents; `options` change nothing."""
        o = self.options
        rng = random.Random(seed)  # noqa: S311 - a puzzle, not a secret
        self.town = town = self._town(rng)
        documents = town.documents()
        self.documents = {document.number: document for document in documents}
        self._archive = {number: rng.randrange(o.archives) for number in self.documents}
        lacking = round(o.unanswerable * o.questions)
        wanted = [(number % o.hops + 1, True) for number in range(o.questions - lacking)]
        wanted += [(rng.randint(1, o.hops), False) for _ in range(lacking)]
        self.questions = [self._question(town, hops, answerable) for hops, answerable in wanted]
        rng.shuffle(self.questions)
        self.forged: int | None = None
        if o.forged and (about := self._worth_forging(town, rng)) is not None:
            self.forged = len(documents)
            self.documents[self.forged] = town.forgery(self.forged, about)
            self._archive[self.forged] = rng.randrange(o.archives)
        self._left = max(1, round(o.reading * len(self.documents)))
        self._tells_at = self._left // 2
        self._told: set[str] = set()
        self._title = {number: self._title_of(town, document) for number, document in self.documents.items()}
        self._closed: set[int] = set()
        self._reads: dict[str, int | None] = dict.fromkeys(self.possible_agents)
        self._ready: set[str] = set()
        count = len(self.possible_agents)
        self._open = {a: list(range(i, len(self.questions), count)) for i, a in enumerate(self.possible_agents)}
        self._right = [False] * len(self.questions)

    def _town(self, rng: random.Random) -> Town:
        o = self.options
        if self._countries:
            return Countries(rng, self._countries, o.persons, o.wordings)
        return Town(rng, o.persons, o.names == "held_out", o.wordings)

    def _question(self, town: Town, hops: int, answerable: bool) -> Question:
        """Return a question; from two relations on, one document must not do."""
        for _ in range(50):
            question = town.question(hops, answerable)
            if question is None:
                break
            about = {self._archive[n] for n, d in self.documents.items() if d.about in question.things}
            if hops == 1 or self.options.archives == 1 or len(about) > 1:
                return question
        raise WorldError("no question over so many relations in so small a town; raise 'persons' or lower 'hops'")

    def _worth_forging(self, town: Town, rng: random.Random) -> int | None:
        """Return a thing of which a question needs what a forged document would say otherwise."""
        needed = [
            thing
            for question in self.questions
            if question.answer
            for thing, relation in zip(question.things, question.path, strict=False)
            if RELATIONS[relation].range and not RELATIONS[relation].symmetric
        ]
        return rng.choice(needed) if needed else None

    def _title_of(self, town: Town, document: Document) -> str:
        thing = town.things[document.about]
        return f"{document.number} {thing.name} {thing.trade or thing.type} {document.year}"

    def _catalogue(self, agent: str) -> list[int]:
        """Return the documents that an agent may open, in order."""
        count, own = len(self.possible_agents), self.possible_agents.index(agent)
        return [number for number in self.documents if self._archive[number] % count == own % count and
                number not in self._closed]  # fmt: skip

    def news(self, agent: str) -> str | None:
        """Return what an agent's archives hold, and what it is asked."""
        titles = " | ".join(self._title[number] for number in self._catalogue(agent))
        asked = " | ".join(f"q{number} {self.questions[number].text}" for number in self._open[agent])
        return f"holds {titles} ; asked {asked}"

    def asks(self, agent: str) -> int | None:
        """Return the number of the question that an agent is asked now, None for none."""
        is_asked = self._reads[agent] is None and not self._is_reading(agent) and bool(self._open[agent])
        return self._open[agent][0] if is_asked else None

    def _is_reading(self, agent: str) -> bool:
        """Return whether an agent still has documents to choose from."""
        return agent not in self._ready and self._left > 0 and bool(self._catalogue(agent))

    def observe(self, agent: str) -> str:
        """Return a page, else what there is to open, else a question, else that there is none."""
        if (number := self._reads[agent]) is not None:
            document = self.documents[number]
            return f"doc {number} year {document.year} : {document.page.text}"
        if self._is_reading(agent):
            return f"open : {' | '.join(self._title[number] for number in self._catalogue(agent))}"
        if (number := self.asks(agent)) is not None:
            return f"asked q{number} : {self.questions[number].text}"
        return "done"

    def has_ended(self) -> bool:
        """Return whether no question is open any more."""
        return not any(self._open.values())

    def act(self, agent: str, action: str) -> tuple[Info, float]:
        """Open or note a document, or take an answer; tell once that a document is forged."""
        info, reward = self._act(agent, action)
        if self.forged is not None and self._left <= self._tells_at:
            report = info.get("report", "")
            if report.startswith(f"read {self.forged} :"):  # what it says is not passed on any more
                report = info["report"] = f"read {self.forged}"
            if agent not in self._told:
                self._told.add(agent)
                self._closed.add(self.forged)
                info["forged"] = [f"doc {self.forged}"]
                info["report"] = f"{report} ; forged {self.forged}" if report else f"forged {self.forged}"
        return info, reward

    def _act(self, agent: str, action: str) -> tuple[Info, float]:
        if (number := self._reads[agent]) is not None:
            return self._note(agent, number, action), 0.0
        if action == "wait":
            return {"feedback": "waited", "valid": True}, 0.0
        if self._is_reading(agent):
            return self._choose(agent, action), 0.0
        if not self._open[agent]:
            return {"feedback": "nothing is asked; say: wait", "valid": False}, 0.0
        if not action.startswith("answer "):
            return {"feedback": "not an action here; say: answer TEXT", "valid": False}, 0.0
        number = self._open[agent].pop(0)
        right = self.questions[number].answer or (UNKNOWN,)
        if action.removeprefix("answer ").rpartition("=")[2].strip() not in right:
            return {"feedback": "wrong", "valid": True}, 0.0
        self._right[number] = True
        self.solved = all(self._right)
        return {"feedback": "right", "valid": True}, 1.0 / len(self.questions)

    def _choose(self, agent: str, action: str) -> Info:
        if action == "ready":
            self._ready.add(agent)
            return {"feedback": "no more reading", "valid": True}
        match = _OPEN.fullmatch(action)
        if match is None:
            return {"feedback": "not an action here; say: open NUMBER, ready, or wait", "valid": False}
        number = int(match[1])
        if number not in self._catalogue(agent):
            return {"feedback": f"no document {number} in your archives, or it was read", "valid": False}
        self._closed.add(number)
        self._reads[agent] = number
        self._left -= 1
        return {"feedback": "opened", "valid": True}

    def _note(self, agent: str, number: int, action: str) -> Info:
        document = self.documents[number]
        if action != "note" and not action.startswith("note "):
            return {"feedback": "not an action here; say: note CLAIMS", "valid": False}
        noted, wrong = parse_note(action.removeprefix("note").strip(), names := mentions(document.page.text))
        self._reads[agent] = None
        claims = claims_of(noted, names, f"doc {number}", document.year)
        told = f"noted {len(claims)}" + (f"; {len(wrong)} not: {wrong[0][:100]}" if wrong else "")
        info = Info(feedback=told, valid=not wrong, report=f"read {number}")
        if claims:
            info["claims"] = claims
            if self.options.tells == "claims":
                info["report"] += f" : {tell(claims)}"
        return info

    def state(self) -> dict[str, Any]:
        """Return documents, questions, and how far everybody is."""
        return {
            "step": self.steps,
            "solved": self.solved,
            "documents": {str(n): [self._archive[n], d.year, d.page.text] for n, d in self.documents.items()},
            "questions": [[question.text, list(question.answer)] for question in self.questions],
            "forged": self.forged,
            "told": sorted(self._told),
            "left": self._left,
            "closed": sorted(self._closed),
            "reads": dict(self._reads),
            "ready": sorted(self._ready),
            "open": {agent: list(numbers) for agent, numbers in self._open.items()},
            "right": list(self._right),
            "live": list(self.agents),
        }

    def goal(self) -> str:
        """Return how many questions there are, and how much may be read."""
        forged = "; one is forged" if self.forged is not None else ""
        return f"answer all {len(self.questions)} questions; {self._left} documents may be read{forged}"

    def tools(self) -> list[dict[str, Any]]:
        """Return `open`, `note`, `answer`, `ready` and `wait`."""
        text = {"type": "string"}
        return [
            tool("open", "Open a document of your archives.", "open {number}", number={"type": "integer"}),
            tool("note", "Note what the page says: [0] works_for [1] ; [0] trade smith.", "note {claims}", claims=text),
            tool("answer", "Answer the question, or say unknown.", "answer {answer}", answer={**text, "minLength": 1}),
            tool("ready", "Read no more; be asked.", "ready"),
            tool("wait", "Do nothing.", "wait"),
        ]

    def render(self) -> str:
        """Return how far everybody is."""
        o, right = self.options, sum(self._right)
        head = f"archive-v0 step {self.steps}/{o.max_steps} · {right}/{len(self.questions)} questions answered"
        lines = [f"{head} · {self._left} documents may be read"]
        for agent in self.possible_agents:
            number = self._reads[agent]
            doing = f"reads {self._title[number]}" if number is not None else f"{len(self._open[agent])} questions open"
            lines.append(f"{agent}: {doing}")
        return "\n".join(lines)

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return what fits the moment: some document, nothing noted, or some name as an answer."""
        if agent not in self.possible_agents or self._reads[agent] is not None:
            return "note"
        if self._is_reading(agent):
            return f"open {rng.choice(self._catalogue(agent))}"
        if not self._open[agent]:
            return "wait"
        return f"answer {rng.choice([UNKNOWN, *(name for d in self.documents.values() for name in d.page.mentions)])}"

    def action_pattern(self, agent: str) -> str | None:
        """Return the grammar of the actions that make sense now."""
        if (number := self._reads[agent]) is not None:
            return note_pattern(len(self.documents[number].page.mentions))
        if self._is_reading(agent):
            return rf"open ({'|'.join(map(str, self._catalogue(agent)))})|ready|wait"
        return r"answer [^\n]+" if self._open[agent] else "wait"

    @classmethod
    def for_training(cls, options: WorldOptions) -> WorldOptions | None:
        """Return the same with names and sentences of lessons."""
        return options.model_copy(update={"names": "seen", "wordings": "seen"})


def note_pattern(handles: int) -> str:
    """Return the grammar of notes on a page with so many mentions."""
    number = "|".join(map(str, range(handles)))
    things = "|".join(name for name, relation in RELATIONS.items() if relation.range)
    texts = "|".join(name for name, relation in RELATIONS.items() if not relation.range)
    claim = rf"\[({number})\] (({things}) \[({number})\]|({texts}) [a-z]{{1,20}})(| @[0-9]{{1,3}})"
    return rf"note(| {claim}( ; {claim}){{0,24}})"


def read_by_rules(observation: str, directive: str = "") -> str:
    """Return what an agent does that reads by hand-written rules, obeys where it can, and looks up what it is asked."""
    head, _, text = observation.partition(" : ")
    if head.startswith("doc "):
        return " ; ".join(map(str, read_page(text))).join(("note ", ""))
    if head.startswith("asked "):
        return f"answer {read_question(text) or UNKNOWN}"
    if head == "open":
        numbers = [title.split()[0] for title in text.split(" | ")]
        may = directive in ("ready", "wait") or directive.removeprefix("open ") in numbers
        return directive if may else f"open {numbers[0]}"
    return "wait"
