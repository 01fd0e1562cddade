"""How to steer split-numbers-v0: what its reports say, the hand-written rules, and the text for a µLM coordinator.

Owns the domain knowledge of this one world's coordination. It reads report text only. For both kinds of coordinator
exact arithmetic finds the sub-targets that would complete what the other half posted. The rules take those that the
directed half has posted itself, then the smallest, without a look at the tiles; the µLM reads the tiles that reports
name beside a menu, and has to have learned what they can make.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from worlds.numbers.solver import sub_targets
from worlds.protocol import Briefing, Playbook, Report, Situation
from worlds.split_numbers.world import DIRECTIVE

_REPORT = re.compile(r"half (?P<tiles>[0-9]{1,7}(?: [0-9]{1,7})*)(?: made (?P<value>[0-9]{1,7}))?")
_MARK = re.compile(r"(?P<value>[0-9]{1,7})(?P<mark>[+-])")
_GOAL = re.compile(r"target (?P<target>[0-9]{1,7})")
MENU = 12  # sub-targets in one briefing, the smallest: large ones can hardly ever be made
LARGEST = 1000  # sub-targets from here on are more than one token, and hardly ever made either
NOTHING = "-"  # what a µLM answers when nothing on the menu can be made
MAX_TRIES = 2  # how often one sub-target is given: an agent may miss what it can make
MAX_REPEATS = 4  # how often one is that the half has posted itself, and so can make
COPIES = 2  # agents to which the rules give the same known sub-target in one tick


@dataclass(slots=True)
class _Half:
    tiles: str
    agents: list[str] = field(default_factory=list)
    values: list[int] = field(default_factory=list)  # in order of posting
    given: dict[str, int] = field(default_factory=dict)  # directive -> times given to this half
    declined: set[int] = field(default_factory=set)  # own sub-targets that a model decided against

    def wants(self, sub_target: int, tries: int) -> bool:
        """Return whether a sub-target that was given so often is worth offering."""
        if sub_target in self.values:
            return tries < MAX_REPEATS
        return tries < MAX_TRIES and sub_target not in self.declined


@dataclass(slots=True)
class _Board:
    """What reports and directives say up to some tick."""

    target: int
    halves: dict[str, _Half] = field(default_factory=dict)  # by tiles and parity
    home: dict[str, str] = field(default_factory=dict)  # agent -> its half

    def add(self, report: Report) -> None:
        match = _REPORT.fullmatch(report.text.strip())
        if match is None:
            return
        # Two halves may hold equal tiles; agents of one half still share the parity of their number.
        side = self.home.setdefault(report.agent, f"{match['tiles']}|{_parity(report.agent)}")
        half = self.halves.setdefault(side, _Half(side.partition("|")[0]))
        if report.agent not in half.agents:
            half.agents.append(report.agent)
        if match["value"] is not None and int(match["value"]) not in half.values:
            half.values.append(int(match["value"]))

    def note(self, agent: str, directive: str) -> None:
        if agent in self.home:
            given = self.halves[self.home[agent]].given
            given[directive] = given.get(directive, 0) + 1

    def pairs(self) -> list[tuple[_Half, _Half]]:
        """Return each half with the other one; none while there are not two."""
        if len(self.halves) != 2:
            return []
        one, other = self.halves.values()
        return [(one, other), (other, one)]

    def menu(self, half: _Half, other: _Half, most: int | None) -> dict[int, str]:
        """Return the sub-targets to offer to a half, with their directives."""
        tries: Counter[int] = Counter()  # own sub-target -> times given, whichever value it completes
        for text, times in half.given.items():
            if (own := _own(text)) is not None:
                tries[own] += times
        wanted = ((s, text) for s, text in menu(self.target, other.values).items() if half.wants(s, tries[s]))
        return dict(islice(wanted, most))


def menu(target: int, values: Sequence[int]) -> dict[int, str]:
    """Return sub-target -> the directive that asks for it, smallest sub-target first, the latest value winning.

    Args:
        target: of the puzzle.
        values: what the other half posted, in order.
    """
    ways = {s: form.format(s) for value in values for form, s in sub_targets(value, target) if s < LARGEST}
    return dict(sorted(ways.items()))


def briefing_text(tiles: str, options: Iterable[int]) -> str:
    """Return what the µLM coordinator reads about one half; it answers with those options that the half can make."""
    return f"half {tiles} make {' '.join(map(str, options))}\n"


def marking_text(tiles: str) -> str:
    """Return what a coordinator reads that goes on with the menu itself, a mark behind each option: `12+45-112-`.

    Nothing but the tiles: a model that reads digit by digit pays for each word of it in every call.
    """
    return f"{tiles}:"


class SplitNumbersPlaybook(Playbook):
    """Rules, briefings and parsing for split-numbers-v0."""

    menu: int | None = MENU
    directive = r"(?:|[0-9]{1,7}[-+*/])\[[0-9]{1,7}\](?:|[-/][0-9]{1,7})"
    about = (
        "A directive such as 24-[6] asks an agent to make the number in brackets, 6, from its own tiles: 24 was made "
        "by the other half, and the whole expression gives the target."
    )

    def rules(self, situation: Situation) -> dict[str, str]:
        """Direct each half to values that complete what the other half posted.

        A sub-target that the directed half itself posted before comes first (it is known to be reachable) and goes to
        two agents; the others get small sub-targets of fresh values, whose misses post new values as well.
        """
        board = _board(situation)
        if board is None:
            return {}
        result: dict[str, str] = {}
        for half, other in board.pairs():
            known: list[str] = []
            guesses: list[tuple[int, int, str]] = []
            for age, value in enumerate(reversed(other.values)):
                for form, s in sub_targets(value, board.target):
                    text = form.format(s)
                    if s in half.values:
                        if half.given.get(text, 0) < MAX_REPEATS:
                            known += [text] * COPIES
                    elif half.given.get(text, 0) == 0:
                        guesses.append((s, age, text))
            guesses.sort()
            agents = [a for a in half.agents if a in situation.agents]
            wanted = known + [text for _, _, text in guesses]
            result.update(zip(agents, wanted, strict=False))
        return result

    def briefings(self, situation: Situation) -> list[Briefing]:
        """Return one briefing per half that has something to complete.

        What a model declined before is offered no more, unless its half posts it.
        """
        board = _board(situation)
        if board is None:
            return []
        result: list[Briefing] = []
        for half, other in board.pairs():
            offered = board.menu(half, other, self.menu)
            agents = tuple(a for a in half.agents if a in situation.agents)
            if offered and agents:
                options = {str(s): text for s, text in offered.items()}
                if self.answers == "marks":
                    pattern = "".join(f"{s}[+-]" for s in options)
                    result.append(Briefing(agents, marking_text(half.tiles), options, pattern))
                else:
                    result.append(Briefing(agents, briefing_text(half.tiles, offered), options))
        return result

    def parse(self, text: str, briefing: Briefing) -> dict[str, str]:
        """Read which options a model picked; whatever is no option is skipped."""
        if briefing.pattern is not None:
            marked = [word for word in _marked(text, "+") if word in briefing.options]
            return dict(zip(briefing.agents, (briefing.options[word] for word in marked), strict=False))
        picked = dict.fromkeys(word for word in text.split() if word in briefing.options)
        return dict(zip(briefing.agents, (briefing.options[word] for word in picked), strict=False))

    def declined(self, text: str, briefing: Briefing, cut: bool) -> list[str]:
        """Return what an answer in the known form left out; of one that was cut or is long, up to its last pick.

        What comes after a pick for each agent, or after the cut, it may have wanted. Marks say it themselves.
        """
        if briefing.pattern is not None:
            return [briefing.options[word] for word in _marked(text, "-") if word in briefing.options]
        words = text.split()
        if not words or any(word not in briefing.options and word != NOTHING for word in words):
            return []
        picked = [word for word in words if word in briefing.options]
        menu = list(briefing.options)
        if cut or len(picked) > len(briefing.agents):
            kept = picked[: len(briefing.agents)]
            menu = menu[: menu.index(kept[-1])] if kept else []
        return [briefing.options[word] for word in menu if word not in picked]


def _board(situation: Situation) -> _Board | None:
    """Return what a situation says, None where it has no target."""
    goal = _GOAL.search(situation.goal)
    if goal is None:
        return None
    board = _Board(int(goal["target"]))
    for report in situation.reports:
        board.add(report)
    for _, agent, text in situation.directives:
        board.note(agent, text)
    for agent, text in situation.declined:
        side, own = board.home.get(agent), _own(text)
        if side is not None and own is not None:
            board.halves[side].declined.add(own)
    return board


def _marked(text: str, mark: str) -> list[str]:
    """Return the numbers that have a mark behind them."""
    return [match["value"] for match in _MARK.finditer(text) if match["mark"] == mark]


def _own(directive: str) -> int | None:
    """Return the sub-target that a directive asks for, None where it is none of this world's."""
    match = DIRECTIVE.fullmatch(directive)
    return int(match["own"]) if match else None


def _parity(agent: str) -> str:
    return str(int(agent[1:]) % 2) if re.fullmatch(r"a[0-9]{1,9}", agent) else ""
