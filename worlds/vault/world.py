"""`vault-v0`: rooms full of notes that are read once, and vaults that ask for one of them much later.

Owns the notes, the dependency between rooms and the texts. It refuses to know how anybody remembers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator

from worlds.ordered import OrderedWorld
from worlds.protocol import Info, WorldOptions, tool
from worlds.words import WORDS

SENTENCES = (
    "the lamp is cold",
    "dust lies on the floor",
    "a clock ticks in the wall",
    "the door is made of oak",
    "rain falls on the roof",
    "a chair stands by the fire",
    "the rug is torn and grey",
    "two cups are on the table",
    "a picture hangs on a nail",
    "the window looks to the north",
    "there is ash in the stove",
    "a cat sleeps on the stairs",
    "the ink in the well is dry",
    "one shelf holds old maps",
    "a bell rings far away",
    "the curtain moves a little",
)
"""What fills the pages between notes; every one is as likely as the others."""

_ANSWER = re.compile(r"open ([a-z]{1,12}) ([a-z]{1,12})")
_TOLD = re.compile(r"key ([a-z]{1,12})")


class VaultOptions(WorldOptions):
    """Options of vault-v0."""

    rooms: int = Field(4, ge=1, le=64)
    """Rooms, each with one vault."""

    pages: int = Field(4, ge=1, le=64)
    """Pages in a room."""

    notes: int = Field(3, ge=1, le=8)
    """Notes on a page."""

    sentences: int = Field(6, ge=0, le=32)
    """Sentences on a page."""

    depth: int = Field(1, ge=1, le=64)
    """Length of the chains in which vaults depend on each other: with 1 none does, with `rooms` all stand in one
    chain."""

    attempts: int = Field(3, ge=1)
    """Wrong answers that a vault bears; the last one closes it for good."""

    max_steps: int = Field(400, ge=1)
    """Steps after which the episode is truncated."""

    @model_validator(mode="after")
    def _words_suffice(self) -> VaultOptions:
        if self.depth > self.rooms:
            raise ValueError(f"'depth' is {self.depth}, but there are only {self.rooms} rooms")
        if (needed := self.rooms * self.pages * self.notes) > len(WORDS):
            raise ValueError(f"{needed} notes need as many different keys, there are {len(WORDS)}; lower 'pages'")
        return self


class VaultWorld(OrderedWorld):
    """Read pages of notes, remember them, and open vaults that ask for one note each.

    Every room has pages of text with notes `note KEY VALUE` in it. An agent reads the pages of its rooms one by one,
    once; room r belongs to agent r modulo the number of agents. Then the vaults ask: the answer is the value that the
    notes of the room give for a key. The key of a chain's first vault is known from the start, that of every other one
    is the value that opened the vault before it. Who opened that one knows it; others have to be told. With depth 1 all
    vaults can be opened at once, with depth = rooms only one after the other.

    observation  `room 2 page 3 of 4 : dust lies on the floor . note kavi tolu . ...` while pages are left;
                 `room 2 ask kavi` when this agent knows the key; `room 2 locked` when it does not; `no room`.
    actions      `next` (the next page), `open kavi tolu` (key and value; works if both are right), `wait`.
    report       `rooms 2 6` at reset; `room 2 opened tolu` when a vault opens, `room 2 closed` when it closes for good.
    directive    `key tolu`, for the agent whose room is locked.
    reward       1 / rooms to the agent that opens a vault; solved when all are open.
    ends         terminated when all vaults are open or none can be opened any more.
    options      rooms (4), pages (4), notes (3), sentences (6), depth (1), attempts (3), max_steps (400).
    """

    id: ClassVar[str] = "vault-v0"
    Options: ClassVar[type[WorldOptions]] = VaultOptions
    playbook: ClassVar[str | None] = "worlds.vault.playbook:VaultPlaybook"
    lessons: ClassVar[str | None] = "worlds.vault.lessons:VaultLessons"
    options: VaultOptions

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """Write the notes of `seed`; `options` change nothing."""
        o = self.options
        rng = random.Random(seed)  # noqa: S311 - a puzzle, not a secret
        words = rng.sample(WORDS, len(WORDS))
        count = o.pages * o.notes
        keys = [words[room * count : (room + 1) * count] for room in range(o.rooms)]
        notes = [[(key, rng.choice(WORDS)) for key in own] for own in keys]
        asked = [rng.randrange(count) for _ in range(o.rooms)]
        for room in range(o.rooms - 1):
            if self._depends(room + 1):  # its key is the value of this room's note
                notes[room][asked[room]] = (notes[room][asked[room]][0], notes[room + 1][asked[room + 1]][0])
        self.notes = notes
        self._asked = [notes[room][asked[room]] for room in range(o.rooms)]
        self.text = [[self._page(notes[room], page, rng) for page in range(o.pages)] for room in range(o.rooms)]
        self._read = [0] * o.rooms
        self._opened_by: list[str | None] = [None] * o.rooms
        self._wrong = [0] * o.rooms

    def news(self, agent: str) -> str | None:
        """Return which rooms are the agent's."""
        rooms = self.rooms_of(agent)
        return f"rooms {' '.join(map(str, rooms))}" if rooms else None

    def _page(self, notes: list[tuple[str, str]], page: int, rng: random.Random) -> str:
        o = self.options
        lines = [f"note {key} {value} ." for key, value in notes[page * o.notes : (page + 1) * o.notes]]
        lines += [f"{rng.choice(SENTENCES)} ." for _ in range(o.sentences)]
        rng.shuffle(lines)
        return " ".join(lines)

    def rooms_of(self, agent: str) -> list[int]:
        """Return the rooms of an agent, in the order in which it goes through them."""
        return list(range(self.possible_agents.index(agent), self.options.rooms, len(self.possible_agents)))

    def _depends(self, room: int) -> bool:
        return room % self.options.depth != 0

    def _is_due(self, room: int) -> bool:
        """Return whether the key of a vault is there to be known."""
        return not self._depends(room) or self._opened_by[room - 1] is not None

    def _is_closed(self, room: int) -> bool:
        return self._wrong[room] >= self.options.attempts

    def _is_shut(self, room: int) -> bool:
        """Return whether a vault is neither open nor closed for good."""
        return self._opened_by[room] is None and not self._is_closed(room)

    def _current(self, agent: str) -> int | None:
        """Return the room an agent is busy with: pages first, then vaults that it can answer, then locked ones."""
        rooms = self.rooms_of(agent)
        unread = [room for room in rooms if self._read[room] < self.options.pages]
        shut = [room for room in rooms if self._is_shut(room)]
        known = [room for room in shut if self._knows_key(agent, room)]
        return next(iter([*unread, *known, *shut]), None)

    def _knows_key(self, agent: str, room: int) -> bool:
        return not self._depends(room) or self._opened_by[room - 1] == agent

    def observe(self, agent: str) -> str:
        """Return the next page, what the vault asks for, or that it is locked."""
        room = self._current(agent)
        if room is None:
            return "no room"
        if (page := self._read[room]) < self.options.pages:
            return f"room {room} page {page + 1} of {self.options.pages} : {self.text[room][page]}"
        return f"room {room} ask {self._asked[room][0]}" if self._knows_key(agent, room) else f"room {room} locked"

    def has_ended(self) -> bool:
        """Return whether all vaults are open, or none can be opened any more."""
        return self.solved or not any(self._may_open(room) for room in range(self.options.rooms))

    def _may_open(self, room: int) -> bool:
        """Return whether a vault is shut and neither it nor one that it depends on is closed for good."""
        return self._is_shut(room) and (self._is_due(room) or self._may_open(room - 1))

    def act(self, agent: str, action: str) -> tuple[Info, float]:
        """Turn a page or try a vault."""
        room = self._current(agent)
        if action == "wait":
            return {"feedback": "waited", "valid": True}, 0.0
        if room is not None and self._read[room] < self.options.pages:
            if action != "next":
                return {"feedback": "read on first; say: next", "valid": False}, 0.0
            self._read[room] += 1
            return {"feedback": "read", "valid": True}, 0.0
        answer = _ANSWER.fullmatch(action)
        if room is None or answer is None:
            feedback = f"not an action here; say: {'wait' if room is None else 'open KEY VALUE'}"
            return {"feedback": feedback, "valid": False}, 0.0
        # Several of its vaults may be locked: the key says which one is meant.
        rooms = [r for r in self.rooms_of(agent) if self._is_shut(r) and self._is_due(r)]
        target = next((r for r in rooms if self._asked[r][0] == answer[1]), None)
        if target is None:
            return {"feedback": f"no vault of yours asks for {answer[1]}", "valid": False}, 0.0
        if answer[2] != self._asked[target][1]:
            self._wrong[target] += 1
            if left := self.options.attempts - self._wrong[target]:
                return {"feedback": f"wrong, {left} left", "valid": True}, 0.0
            return {"feedback": "wrong, closed for good", "valid": True, "report": f"room {target} closed"}, 0.0
        self._opened_by[target] = agent
        self.solved = all(self._opened_by)
        report = f"room {target} opened {answer[2]}"
        return {"feedback": "opened", "valid": True, "report": report}, 1.0 / self.options.rooms

    def state(self) -> dict[str, Any]:
        """Return notes, pages read, who opened what, and wrong answers."""
        return {
            "step": self.steps,
            "solved": self.solved,
            "asked": [list(pair) for pair in self._asked],
            "text": [list(pages) for pages in self.text],
            "read": list(self._read),
            "opened_by": list(self._opened_by),
            "wrong": list(self._wrong),
            "live": list(self.agents),
        }

    def goal(self) -> str:
        """Return how many vaults there are and which depend on which."""
        o = self.options
        chains = [range(first, min(first + o.depth, o.rooms)) for first in range(0, o.rooms, o.depth)]
        return "open all vaults; chains: " + " | ".join(" ".join(map(str, chain)) for chain in chains)

    def tools(self) -> list[dict[str, Any]]:
        """Return `next`, `open` and `wait`."""
        word = {"type": "string", "pattern": "^[a-z]{1,12}$"}
        return [
            tool("next", "Go on to the next page of this room.", "next"),
            tool("open", "Try a vault: its key, its value.", "open {key} {value}", key=word, value=word),
            tool("wait", "Do nothing.", "wait"),
        ]

    def render(self) -> str:
        """Return how far everybody is."""
        o = self.options
        done = sum(opened is not None for opened in self._opened_by)
        lines = [f"vault-v0 step {self.steps}/{o.max_steps} · {done}/{o.rooms} vaults open · depth {o.depth}"]
        for room in range(o.rooms):
            opened, wrong = self._opened_by[room], self._wrong[room]
            status = f"opened by {opened}" if opened else "closed" if self._is_closed(room) else f"{wrong} wrong"
            lines.append(f"room {room}: read {self._read[room]}/{o.pages}, {status}")
        return "\n".join(lines)

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return what fits the moment: the next page, or a key that it knows with a value it has read."""
        room = self._current(agent) if agent in self.possible_agents else None
        if room is None:
            return "wait"
        if self._read[room] < self.options.pages:
            return "next"
        told = _TOLD.fullmatch(directive.strip())
        key = self._asked[room][0] if self._knows_key(agent, room) else told and told[1]
        if key is None:
            return "wait"
        return f"open {key} {rng.choice([value for r in self.rooms_of(agent) for _, value in self.notes[r]])}"

    def action_pattern(self, agent: str) -> str | None:
        """Return the grammar of the actions."""
        return "next|wait|open [a-z]{1,12} [a-z]{1,12}"
