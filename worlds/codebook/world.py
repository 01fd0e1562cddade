"""`codebook-v0`: notes that recur over the episodes of a run, and vaults that ask for them when they are not told.

Owns the pages, the questions and the texts of an episode. It refuses to know how anybody remembers.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice
from statistics import fmean
from typing import Any, ClassVar

from pydantic import Field, model_validator

from worlds.codebook.book import Codebook, zipf
from worlds.ordered import OrderedWorld
from worlds.protocol import Info, Turn, WorldOptions, tool
from worlds.vault.world import SENTENCES
from worlds.words import WORDS

FOUND = 0.2
"""Share of the vaults whose page holds the note that is asked for; those of classes never do."""

KINDS = ("recurring", "changed", "one-off", "class")
NOTE = re.compile(r"\bnote ([a-z]{1,12} [a-z]{1,12}) ([a-z]{1,12} [a-z]{1,12})\b")
"""Key and value."""

_OPEN = re.compile(r"open ([a-z]{1,12} [a-z]{1,12}) ([a-z]{1,12}(?: [a-z]{1,12})?)")
CLOSED = re.compile(r"(?P<result>right|wrong|given up): (?P<kind>[a-z-]+), pages read: (?P<pages>[01])")


class CodebookOptions(WorldOptions):
    """Options of codebook-v0."""

    codebook: int = Field(0, ge=0)
    """Which codebook: episodes with the same number share it, whatever their seeds."""

    episodes: int = Field(20, ge=1)
    """Episodes of a run; two in five recurring notes change, in its second and third quarter."""

    rooms: int = Field(1, ge=1, le=64)
    """Rooms, each with news and vaults of its own."""

    recurring: int = Field(40, ge=1, le=200)
    """Recurring notes, in classes of five."""

    news: int = Field(2, ge=1, le=16)
    """Pages of news in a room."""

    notes: int = Field(8, ge=2, le=16)
    """Notes on a page; half of those of the news recur, the others are told in this episode alone."""

    sentences: int = Field(16, ge=0, le=64)
    """Sentences on a page."""

    asked: int = Field(6, ge=0, le=64)
    """Vaults of a room that ask for recurring notes, at most: only for those that it has told by then."""

    one_offs: int = Field(3, ge=1, le=64)
    """Vaults of a room that ask for notes that this episode alone tells."""

    foreign: bool = False
    """Whether vaults may ask for recurring notes that only other rooms have told."""

    max_steps: int = Field(400, ge=1)
    """Steps after which the episode is truncated."""

    @model_validator(mode="after")
    def _notes_suffice(self) -> CodebookOptions:
        if self.one_offs > (fresh := (self.news * self.notes + 1) // 2):
            raise ValueError(f"the news of a room have {fresh} one-off notes; lower 'one_offs' or raise 'notes'")
        return self


@dataclass(slots=True)
class Vault:
    """A question, what may be read before it is answered, and what became of it: `right`, `wrong` or `given up`."""

    kind: str
    key: str
    value: str
    page: str
    read: bool = False
    result: str = ""

    @property
    def question(self) -> str:
        """What an agent sees of it."""
        return f"ask first {self.key}" if self.kind == "class" else f"ask {self.key}"


class CodebookWorld(OrderedWorld):
    """Read the news, remember them over the episodes, and open vaults that ask for what was told long ago.

    Room r belongs to agent r modulo the number of agents. An agent reads the news of its rooms page by page, once; then
    their vaults ask one by one. Notes recur by Zipf's law; an episode asks for those that its news do not tell. Some
    change once and are then right with the new value alone; one-off notes are told and asked in one episode. Who
    remembers opens a vault at once. Who does not may read the vault's page, which holds the note in one case of five.
    Keys whose first word is the same have values whose first word is the same: a vault may ask for the first word of a
    value that was never told.

    observation  `news 1 of 2 : dust lies on the floor . note moru kavi mine bora . ...`, then `ask moru kavi` or
                 `ask first moru dulo`; `page : ...` after `read`; `no vault`.
    actions      `next` (turn the page), `open moru kavi mine bora` (key and value), `open moru dulo mine`, `read` (the
                 page of the vault; a second time gives it up), `wait`.
    report       `ask moru kavi`, when a vault begins to ask; `opened moru kavi mine bora ; ask ...`.
    feedback     `right: recurring, pages read: 0` says of a vault what it asked for: `recurring`, `changed`, `one-off`
                 or `class`; likewise `wrong` and `given up`.
    directive    `note moru kavi mine bora`.
    reward       1 / vaults to the agent that opens one; solved when all are open.
    ends         terminated when all vaults are open or closed for good, which one wrong answer does.
    options      codebook (0), episodes (20), rooms (1), recurring (40), news (2), notes (8), sentences (16), asked (6),
                 one_offs (3), foreign (false), max_steps (400).
    """

    id: ClassVar[str] = "codebook-v0"
    Options: ClassVar[type[WorldOptions]] = CodebookOptions
    playbook: ClassVar[str | None] = "worlds.codebook.playbook:CodebookPlaybook"
    lessons: ClassVar[str | None] = "worlds.codebook.lessons:CodebookLessons"
    options: CodebookOptions

    def __init__(self, num_agents: int, options: WorldOptions) -> None:
        super().__init__(num_agents, options)
        o = self.options
        self.book = Codebook(o.codebook, o.episodes, o.recurring, o.news * o.notes // 2)

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """Write the pages and vaults of `seed` in episode `options["episode"]` of the codebook's run."""
        o, episode = self.options, int(options.get("episode", 0))
        rng = random.Random(seed)  # noqa: S311 - a puzzle, not a secret
        told = [self.book.told(episode, room) for room in range(o.rooms)]
        known = [self.book.first_told(room, episode) for room in range(o.rooms)]
        if o.foreign:
            anywhere = {note for own in known for note in own}
            known = [{note: min(own.get(note, episode) for own in known) for note in sorted(anywhere)}] * o.rooms
        due = self.book.rests(episode).difference(*told)
        first = episode * o.rooms * o.notes * (o.news + o.asked + 2 * o.one_offs + 1)
        fresh = ((self.book.fresh_key(number), " ".join(rng.sample(WORDS, 2))) for number in count(first))
        self._pages: dict[str, list[str]] = {agent: [] for agent in self.possible_agents}
        self._read = dict.fromkeys(self.possible_agents, 0)
        self._vaults: dict[str, list[Vault]] = {agent: [] for agent in self.possible_agents}
        for room in range(o.rooms):
            agent = self.possible_agents[room % len(self.possible_agents)]
            one_offs = list(islice(fresh, max(o.one_offs, o.news * o.notes - len(told[room]))))
            news = [self.book.note(note, episode) for note in told[room]] + one_offs
            rng.shuffle(news)
            for page in range(o.news):
                self._pages[agent].append(f"news {page + 1} of {o.news} : {self._page(rng, news[page :: o.news])}")
            asked = [("one-off", *note) for note in one_offs[: o.one_offs]]
            asked += self._asked(rng, episode, room, known[room], due)
            rng.shuffle(asked)
            for kind, key, value in asked:
                notes = list(islice(fresh, o.notes))
                if kind != "class" and rng.random() < FOUND:
                    notes[0] = (key, value)
                self._vaults[agent].append(Vault(kind, key, value, f"page : {self._page(rng, notes)}"))

    def _asked(
        self, rng: random.Random, episode: int, room: int, known: Mapping[int, int], due: Collection[int]
    ) -> list[tuple[str, str, str]]:
        """Return kind, key and value of what a room asks for beside one-off notes.

        Args:
            rng: decides what.
            episode: number of the episode.
            room: number of the room.
            known: recurring note -> the episode that first told it.
            due: recurring notes that this episode may ask for.
        """
        asked = []
        for note in zipf(rng, known.keys() & due, self.options.asked):
            kind = "changed" if self.book.has_changed(note, known[note], episode) else "recurring"
            asked.append((kind, *self.book.note(note, episode)))
        classes = Counter(map(self.book.class_of, known))
        if ready := {number for number, notes in classes.items() if notes > 1}:
            silent = ready.difference(map(self.book.class_of, self.book.told(episode, room)))
            asked.append(("class", *self.book.unseen(rng.choice(sorted(silent or ready)), rng)))
        return asked

    def _page(self, rng: random.Random, notes: Sequence[tuple[str, str]]) -> str:
        lines = [f"note {key} {value} ." for key, value in notes]
        lines += [f"{rng.choice(SENTENCES)} ." for _ in range(self.options.sentences)]
        rng.shuffle(lines)
        return " ".join(lines)

    def _page_of(self, agent: str) -> str | None:
        """Return the page that an agent reads."""
        return next(iter(self._pages[agent][self._read[agent] :]), None)

    def vault(self, agent: str) -> Vault | None:
        """Return the vault that asks an agent, now or once it has read its pages."""
        return next((vault for vault in self._vaults[agent] if not vault.result), None)

    def observe(self, agent: str) -> str:
        """Return a page, else a question, else that there is none."""
        page, vault = self._page_of(agent), self.vault(agent)
        return page or (vault.question if vault else "no vault")

    def has_ended(self) -> bool:
        """Return whether every vault is open or closed for good."""
        return not any(self.vault(agent) for agent in self.possible_agents)

    def act(self, agent: str, action: str) -> tuple[Info, float]:
        """Turn a page, ask for one, or try a vault."""
        if action == "wait":
            return {"feedback": "waited", "valid": True}, 0.0
        vault, answer = self.vault(agent), _OPEN.fullmatch(action)
        if self._page_of(agent):
            if action != "next":
                return {"feedback": "read on first; say: next", "valid": False}, 0.0
            self._read[agent] += 1
            return self._telling(agent, "read"), 0.0
        if vault is None or (action != "read" and answer is None):
            usage = "open KEY VALUE, or: read" if vault else "wait"
            return {"feedback": f"not an action here; say: {usage}", "valid": False}, 0.0
        if answer is None and not vault.read:
            vault.read = True
            self._pages[agent].append(vault.page)
            return {"feedback": "a page", "valid": True}, 0.0
        if answer and answer[1] != vault.key:
            return {"feedback": f"your vault asks for {vault.key}", "valid": False}, 0.0
        said = answer[2] if answer else ""
        is_right = vault.value == (said.split()[0] if answer and vault.kind == "class" else said)
        vault.result = "right" if is_right else "wrong" if answer else "given up"
        vaults = [one for own in self._vaults.values() for one in own]
        self.solved = all(one.result == "right" for one in vaults)
        opened = f"opened {vault.key} {said}" if is_right and vault.kind != "class" else ""
        told = f"{vault.result}: {vault.kind}, pages read: {vault.read:d}"
        return self._telling(agent, told, opened), is_right / len(vaults)

    def _telling(self, agent: str, feedback: str, opened: str = "") -> Info:
        """Return feedback, and what others are told: what was opened, and what is asked next."""
        told = opened
        if (vault := self.vault(agent)) and not self._page_of(agent):
            told = f"{opened} ; {vault.question}".removeprefix(" ; ")
        return Info(feedback=feedback, valid=True, report=told) if told else Info(feedback=feedback, valid=True)

    def state(self) -> dict[str, Any]:
        """Return pages, vaults, and how far everybody is."""
        return {
            "step": self.steps,
            "solved": self.solved,
            "pages": {agent: list(pages) for agent, pages in self._pages.items()},
            "read": dict(self._read),
            "vaults": {agent: [asdict(vault) for vault in vaults] for agent, vaults in self._vaults.items()},
            "live": list(self.agents),
        }

    def goal(self) -> str:
        """Return how many vaults there are."""
        return f"open all {sum(map(len, self._vaults.values()))} vaults"

    def tools(self) -> list[dict[str, Any]]:
        """Return `next`, `open`, `read` and `wait`."""
        words = {"type": "string", "pattern": "^[a-z]{1,12}( [a-z]{1,12}){0,1}$"}
        return [
            tool("next", "Turn the page.", "next"),
            tool("open", "Open the vault: its key, and the value.", "open {key} {value}", key=words, value=words),
            tool("read", "Read a page of the vault; where none is left, give the vault up.", "read"),
            tool("wait", "Do nothing.", "wait"),
        ]

    def render(self) -> str:
        """Return how far everybody is."""
        lines = [f"codebook-v0 step {self.steps}/{self.options.max_steps}"]
        for agent, vaults in self._vaults.items():
            found = Counter(vault.result or "shut" for vault in vaults)
            results = ", ".join(f"{times} {result}" for result, times in sorted(found.items()))
            lines.append(
                f"{agent}: {self._read[agent]}/{len(self._pages[agent])} pages read; vaults: {results or 'none'}"
            )
        return "\n".join(lines)

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return what fits the moment: the next page, or the key with a value of some page or of the directive."""
        if agent not in self.possible_agents or self._page_of(agent):
            return "next"
        vault = self.vault(agent)
        if vault is None:
            return "wait"
        told = [value for key, value in NOTE.findall(directive) if key == vault.key]
        value: str = rng.choice(told or [value for _, value in NOTE.findall(" ".join(self._pages[agent]))])
        return f"open {vault.key} {value}"

    def action_pattern(self, agent: str) -> str | None:
        """Return the grammar of the actions."""
        return "next|read|wait|open( [a-z]{1,12}){3,4}"

    @staticmethod
    def measures(turns: Sequence[Turn]) -> dict[str, float]:
        """Return which share of the vaults of each kind were opened, and how many pages were read before a vault."""
        closed = [match for turn in turns if (match := CLOSED.fullmatch(turn.feedback))]
        if not closed:
            return {}
        right = {kind: [match["result"] == "right" for match in closed if match["kind"] == kind] for kind in KINDS}
        pages = fmean(int(match["pages"]) for match in closed)
        return {f"{kind} opened": fmean(found) for kind, found in right.items() if found} | {"pages per vault": pages}
