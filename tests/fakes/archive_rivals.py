"""Rivals of a registry in archive-v0: agents that read by the same rules and remember otherwise.

- `strings`: one exact memory for all. A name is a key as it is written, so nobody is told apart from a namesake or
  known by a short name. It answers agents and coordinator as a registry does.
- `messages`: agents hear what others have noted (`tells: claims`) and keep what fits their window.
- `alone`: agents with registries of their own.

The last two direct themselves, by the coordinator's rules and by what they know. All forget what is forged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from fakes.archive_reader import ArchiveReaders

from swarm.agents.registry import look_up, reading
from swarm.messages import ActReply, ActRequest, DirectReply, DirectRequest, Handle
from ulm.memory.registry import UNKNOWN, answered, mentions_of
from ulm.memory.registry.view import RegistryView
from worlds.archive.grammar import claims_of, mentions, parse_note, read_told
from worlds.archive.playbook import _ASKED, ArchivePlaybook
from worlds.archive.schema import RELATIONS
from worlds.protocol import Claim

Rival = Literal["strings", "messages", "alone"]

_DOC = re.compile(r"doc (?P<number>[0-9]+) year (?P<year>[0-9]+) : (?P<text>.*)")
_HEARD = re.compile(r"heard read (?P<number>[0-9]+) : (?P<told>.*)")
_FORGED = re.compile(r"\bforged ([0-9]+)")

WAITS = 6
"""Ticks that an agent which directs itself waits for others, who may know otherwise what is lacking."""


class Strings:
    """Claims by names as they are written; of one name and relation the newest counts. Has what a look-up needs.

    Args:
        window: tokens of what is kept, the latest; None keeps everything.
    """

    def __init__(self, window: int | None = None) -> None:
        self.window = window
        self._claims: list[Claim] = []
        self._gone: set[str] = set()
        self._names: list[str] = []
        self._said: dict[tuple[str, str], tuple[int, int, int | str]] = {}

    def add(self, claims: Sequence[Claim]) -> None:
        """Take in what is said, but for what is forged or known."""
        known = set(self._claims)
        new = [one for one in claims if one.source not in self._gone and one not in known]
        if new:
            self._claims += new
            self._index()

    def forget(self, source: str) -> None:
        """Forget a source, whatever comes of it later."""
        if source not in self._gone:
            self._gone.add(source)
            self._claims = [one for one in self._claims if one.source != source]
            self._index()

    def _index(self) -> None:
        if self.window is not None:
            left = self.window
            for place in reversed(range(len(self._claims))):
                one = self._claims[place]
                left -= len(f"[{one.subject}] {one.relation} [{one.object}] @{one.valid_from} ; ") // 4
                if left < 0:
                    del self._claims[: place + 1]
                    break
        self._names = list(
            dict.fromkeys(n for c in self._claims for n in (c.subject, *[c.object][: len(c.object_type)]))
        )
        numbers = {name: number for number, name in enumerate(self._names)}
        self._said = {}
        for order, one in enumerate(self._claims):
            ends = [(one.subject, numbers[one.object] if one.object_type else one.object)]
            if RELATIONS[one.relation].symmetric:
                ends.append((one.object, numbers[one.subject]))
            for name, value in ends:
                key, said = (name, one.relation), (one.valid_from, order, value)
                if key not in self._said or self._said[key][:2] < said[:2]:
                    self._said[key] = said

    def named(self, name: str) -> list[int]:
        return [self._names.index(name)] if name in self._names else []

    def like(self, name: str) -> list[int]:
        return []

    def names(self, number: int) -> tuple[str, ...]:
        return (self._names[number],)

    def lookup(self, number: int, relation: str) -> list[int | str]:
        said = self._said.get((self._names[number], relation))
        return [] if said is None else [said[2]]

    def __call__(self, text: str, prompt: str = "") -> str:
        """Return what a look-up is answered."""
        found = answered(cast(RegistryView, self), text, mentions_of(prompt))
        return UNKNOWN if found is None else found.strip()


class RivalReaders(ArchiveReaders):
    """Readers that remember otherwise.

    Args:
        config: the experiment.
        rival: how.
        window: tokens that an agent keeps of messages.
        reads_on: whether an agent that directs itself and has questions open opens whatever comes next rather than
            nothing.
    """

    def __init__(self, config: Any, rival: Rival, window: int | None = None, *, reads_on: bool = False) -> None:
        super().__init__(config)
        self.rival, self.window, self.reads_on = rival, window, reads_on
        self._known: dict[tuple[int, str], Strings] = {}
        self._noted: dict[int, list[Claim]] = {}
        self._registries: dict[tuple[int, str], Handle] = {}
        self._book = ArchivePlaybook()

    def _strings(self, episode: int, agent: str) -> Strings:
        return self._known.setdefault((episode, "" if self.rival == "strings" else agent), Strings(self.window))

    def answer(self, request: ActRequest) -> ActReply:
        """Take in what is heard, act, and remember what was noted: others know of it from the next tick on."""
        episode, _, agent = request.key
        observation, *rest = request.prompt.split("\n")
        if self.rival == "alone":
            self._registries[episode, agent] = request.memories[0]
        for line in rest if self.rival == "messages" else ():
            if heard := _HEARD.match(line):
                self._strings(episode, agent).add(read_told(heard["told"], f"doc {heard['number']}"))
        reply = super().answer(request)
        if (page := _DOC.match(observation)) and self.rival != "alone":
            names = mentions(page["text"])
            claims, _ = parse_note(reply.text.removeprefix("note").strip(), names)
            said = claims_of(claims, names, f"doc {page['number']}", int(page["year"]))
            if self.rival == "messages":
                self._strings(episode, agent).add(said)
            else:
                self._noted.setdefault(episode, []).extend(said)
        return reply

    def looked_up(self, request: ActRequest, text: str) -> str | None:
        if self.rival == "alone":
            return super().looked_up(request, text)
        return f" {self._strings(request.key[0], request.key[2])(text, request.prompt)}"

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Forget what is forged; then direct by what is known."""
        for request in requests:
            episode = request.key[0]
            agents = ("",) if self.rival == "strings" else request.agents
            self._strings(episode, "").add(self._noted.pop(episode, []))
            for number in {number for report in request.reports for number in _FORGED.findall(report.text)}:
                for agent in agents:
                    self._strings(episode, agent).forget(f"doc {number}")
        if self.rival == "strings":
            return super().direct([replace(one, lookup=self._strings(one.key[0], "")) for one in requests])
        return [self._directed(request) for request in requests]

    def _directed(self, request: DirectRequest) -> DirectReply:
        """Return what agents tell themselves, charged as if a coordinator had told them."""
        told: dict[str, str] = {}
        for agent in request.agents:
            mine = replace(request, lookup=lambda text, agent=agent: self._knows(request.key[0], agent, text))
            if self.rival == "alone":
                own = tuple(report for report in request.reports if report.agent == agent)
                before = tuple(one for one in request.directives if one[1] == agent)
                mine = replace(mine, agents=(agent,), reports=own, directives=before)
            said = self._book.rules(mine).get(agent, "")
            lately = [text for _, who, text in request.directives if who == agent][-WAITS:]
            if said == "wait" and lately == ["wait"] * WAITS:
                said = "ready"
            if said and not (self.reads_on and said in ("ready", "wait") and self._lacks(mine, agent)):
                told[agent] = said
        read, written = (sum(self.count_tokens(texts)) for texts in (request.news, [*told.values()]))
        return DirectReply(request.key, told, read, written)

    def _lacks(self, mine: DirectRequest, agent: str) -> bool:
        """Return whether an agent cannot answer all that it is asked."""
        own = (r.text for r in mine.reports if r.agent == agent and r.text.startswith("holds "))
        asked = [match["text"].strip() for text in own for match in _ASKED.finditer(text.partition(" ; asked ")[2])]
        return any(True for text in asked for _ in self._book._at(text, mine))

    def _knows(self, episode: int, agent: str, text: str) -> str | None:
        if self.rival == "messages":
            return self._strings(episode, agent)(text)
        handle = self._registries.get((episode, agent))
        if handle is None or self.settings is None:
            return UNKNOWN
        return (look_up(reading(handle, self.settings), self.settings.control, "", text) or UNKNOWN).strip()
