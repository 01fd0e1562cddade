"""How to steer archive-v0: who opens which document next, by what the registry lacks for the questions.

Reads goal, reports and look-ups. A question is followed as far as is known; the documents about whom it leads to are
opened next, the newest first.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from worlds.archive.grammar import UNKNOWN, read_question
from worlds.protocol import Briefing, Playbook, Situation

_TITLE = re.compile(r"(?P<number>[0-9]{1,4}) (?P<name>[^|;]{1,60}) (?P<kind>[a-z]{1,20}) (?P<year>[0-9]{1,3})")
_ASKED = re.compile(r"q[0-9]{1,4} (?P<text>[^|]+)")
_READ, _FORGED = re.compile(r"\bread ([0-9]{1,4})"), re.compile(r"\bforged ([0-9]{1,4})")
_START = re.compile(r"\[0 (?P<name>[^\[\]]+)\](?: the (?P<trade>[a-z]{1,20}))?")
_ANSWER = re.compile(r"\b(?P<agent>a[0-9]{1,6})\W{1,3}(?P<told>open [0-9]{1,4}|ready|wait)\b")

PATIENCE = 3
"""Directives after which an agent that was told to open a document, and has not told of it, is told anew."""

ORDERS = 2
"""Times that a document is asked for: an agent that has not opened it then does not understand, and others go on."""


class ArchivePlaybook(Playbook):
    """Rules, briefings and parsing for archive-v0."""

    directive = r"open [0-9]{1,4}|ready|wait"
    about = "A directive such as open 3 tells an agent which document of its archives to read; ready ends its reading."

    def rules(self, situation: Situation) -> dict[str, str]:
        """Tell each agent which of its documents is lacking; to wait where others' are; that it is ready where none is.

        As long as a document is forged and nobody has said which, they read on.

        Without a memory to look into, nobody is told anything.
        """
        if situation.lookup is None:
            return {}
        titles: dict[str, tuple[str, str, str, int]] = {}  # number -> whose, name, trade or type, year
        questions, read, forged = list[str](), set[str](), set[str]()
        for report in situation.reports:
            holds, _, asked = report.text.partition(" ; asked ")
            if holds.startswith("holds "):
                for match in _TITLE.finditer(holds):
                    titles[match["number"]] = (report.agent, match["name"], match["kind"], int(match["year"]))
                questions += [match["text"].strip() for match in _ASKED.finditer(asked)]
            else:
                read |= set(_READ.findall(report.text))
                forged |= set(_FORGED.findall(report.text))
        busy = self._busy(situation, read)
        asked_for = Counter(text.removeprefix("open ") for _, _, text in situation.directives)
        closed = read | forged | {number for number in asked_for if asked_for[number] >= ORDERS} - {*busy.values()}
        told: dict[str, str] = {}
        lacking = False
        for text in questions:
            for name, kind in self._at(text, situation):
                about = [n for n, (_, n_name, n_kind, _) in titles.items() if _is(name, kind, n_name, n_kind)]
                unread = sorted((n for n in about if n not in closed), key=lambda n: (-titles[n][3], int(n)))
                if not unread:
                    continue
                lacking = True
                number, agent = unread[0], titles[unread[0]][0]
                if number not in busy.values() and agent in situation.agents and agent not in busy:
                    told.setdefault(agent, f"open {number}")
                break
        if not lacking and "forged" in situation.goal and not forged:  # what is known may not be so: read on
            for agent in situation.agents:
                unread = sorted((n for n, (whose, *_) in titles.items() if whose == agent and n not in closed), key=int)
                if unread and agent not in busy:
                    told[agent] = f"open {unread[0]}"
        rest = "wait" if lacking or busy or told else "ready"
        return {agent: told.get(agent, rest) for agent in situation.agents}

    @staticmethod
    def _busy(situation: Situation, read: set[str]) -> dict[str, str]:
        """Return agent -> document that it was told to open lately and has not told of."""
        told: dict[str, list[str]] = {}
        for _, agent, text in situation.directives:
            told.setdefault(agent, []).append(text.removeprefix("open "))
        lately = {agent: [text for text in texts[-PATIENCE:] if text.isdigit()] for agent, texts in told.items()}
        return {agent: numbers[-1] for agent, numbers in lately.items() if numbers and numbers[-1] not in read}

    @staticmethod
    def _at(text: str, situation: Situation) -> Iterator[tuple[str, str]]:
        """Yield whose documents a question lacks: name, and trade where it is known; none for one that is answered."""
        query, start = read_question(text), _START.search(text)
        if query is None or start is None or situation.lookup is None:
            return
        who, _, path = query.removesuffix(" =").partition(" : ")
        who, known = who.replace("[0]", f"[{start['name']}]"), (start["name"], start["trade"] or "")
        relations = path.split()
        if situation.lookup(f"{who} : {path} =") not in (None, UNKNOWN):
            return
        for reach in range(1, len(relations) + 1):
            found = situation.lookup(f"{who} : {' '.join(relations[:reach])} =")
            if found in (None, UNKNOWN):
                yield known
                return
            trade = situation.lookup(f"{who} : {' '.join([*relations[:reach], 'trade'])} =")
            known = (str(found), "" if trade in (None, UNKNOWN) else str(trade))

    def briefings(self, situation: Situation) -> list[Briefing]:
        """Offer a model what the rules would say, in one line; none when there is nothing to tell."""
        told = self.rules(situation)
        lines = [f"{agent} {directive}" for agent, directive in told.items()]
        return [Briefing(tuple(told), f"reading {' | '.join(lines)}\n")] if told else []

    def parse(self, text: str, briefing: Briefing) -> dict[str, str]:
        """Return `AGENT: DIRECTIVE` pairs for the agents of the briefing; total on any text."""
        found = {match["agent"]: match["told"] for match in _ANSWER.finditer(text)}
        return {agent: found[agent] for agent in briefing.agents if agent in found}


def _is(name: str, kind: str, title: str, title_kind: str) -> bool:
    """Return whether a title may be that of somebody of this name and perhaps trade."""
    same = name == title or name in _short(title, title_kind)
    return same and kind in ("", title_kind)


def _short(title: str, kind: str) -> Sequence[str]:
    """Return the short names that documents may use for a title."""
    first, _, last = title.partition(" ")
    return (first, f"{first[:1]}. {last}", last) if last else ()
