"""How to steer split-numbers-v0: what its reports say, the hand-written rules, and the text for a µLM coordinator.

Owns the domain knowledge of this one world's coordination. It reads report text only. For both kinds of coordinator
exact arithmetic finds the sub-targets that would complete what the other half posted. The rules take those that the
directed half has posted itself, then the smallest, without a look at the tiles; the µLM reads the tiles that reports
name beside a menu, and has to have learned what they can make.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from swarm.coordinator.protocol import Briefing
from swarm.messages import DirectRequest
from worlds.solver import sub_targets
from worlds.split_numbers import DIRECTIVE

__all__ = ["LARGEST", "MENU", "NOTHING", "SplitNumbersPlaybook", "briefing_text", "menu"]

_REPORT = re.compile(r"half (?P<tiles>[0-9]{1,7}(?: [0-9]{1,7})*)(?: made (?P<value>[0-9]{1,7}))?")
_GOAL = re.compile(r"target (?P<target>[0-9]{1,7})")
MENU = 12  # sub-targets in one briefing, the smallest: large ones can hardly ever be made
LARGEST = 1000  # sub-targets from here on are more than one token, and hardly ever made either
NOTHING = "-"  # what a µLM answers when nothing on the menu can be made
MAX_TRIES = 2  # how often one sub-target is offered to the µLM: an agent may miss what it can make
MAX_REPEATS = 4  # how often one is that the half has posted itself, and so can make
COPIES = 2  # agents to which the rules give the same known sub-target in one tick


@dataclass(slots=True)
class _Half:
    agents: list[str] = field(default_factory=list)
    values: list[int] = field(default_factory=list)  # in order of posting
    given: dict[str, int] = field(default_factory=dict)  # directive -> times given to this half


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


class SplitNumbersPlaybook:
    """Rules, briefings and parsing for split-numbers-v0."""

    world_id = "split-numbers-v0"
    menu: int | None = MENU
    directive = r"(?:[0-9]{1,7}[-+*/])?\[[0-9]{1,7}\](?:[-/][0-9]{1,7})?"
    about = (
        "A directive such as 24-[6] asks an agent to make the number in brackets, 6, from its own tiles: 24 was made "
        "by the other half, and the whole expression gives the target."
    )

    def _read(self, request: DirectRequest) -> tuple[int, dict[str, _Half]] | None:
        """Fold the reports into two halves, keyed by the tiles' text and the parity it was reported with."""
        goal = _GOAL.search(request.goal)
        if goal is None:
            return None
        halves: dict[str, _Half] = {}
        home: dict[str, str] = {}
        for report in request.reports:
            match = _REPORT.fullmatch(report.text.strip())
            if match is None:
                continue
            # Two halves may hold equal tiles; agents of one half still share the parity of their number.
            side = home.setdefault(report.agent, f"{match['tiles']}|{_parity(report.agent)}")
            half = halves.setdefault(side, _Half())
            if report.agent not in half.agents:
                half.agents.append(report.agent)
            if match["value"] is not None and int(match["value"]) not in half.values:
                half.values.append(int(match["value"]))
        for _, agent, text in request.directives:
            if agent in home:
                given = halves[home[agent]].given
                given[text] = given.get(text, 0) + 1
        return int(goal["target"]), halves

    def rules(self, request: DirectRequest) -> dict[str, str]:
        """Direct each half to values that complete what the other half posted.

        A sub-target that the directed half itself posted before comes first (it is known to be reachable) and goes to
        two agents; the others get small sub-targets of fresh values, whose misses post new values as well.
        """
        read = self._read(request)
        if read is None or len(read[1]) != 2:
            return {}
        target, halves = read
        result: dict[str, str] = {}
        for side, half in halves.items():
            (other,) = (h for name, h in halves.items() if name != side)
            known: list[str] = []
            guesses: list[tuple[int, int, str]] = []
            for age, value in enumerate(reversed(other.values)):
                for form, s in sub_targets(value, target):
                    text = form.format(s)
                    if s in half.values:
                        if half.given.get(text, 0) < MAX_REPEATS:
                            known += [text] * COPIES
                    elif half.given.get(text, 0) == 0:
                        guesses.append((s, age, text))
            guesses.sort()
            agents = [a for a in half.agents if a in request.agents]
            wanted = known + [text for _, _, text in guesses]
            result.update(zip(agents, wanted, strict=False))
        return result

    def briefings(self, request: DirectRequest) -> list[Briefing]:
        """Return one briefing per half that has something to complete."""
        read = self._read(request)
        if read is None or len(read[1]) != 2:
            return []
        target, halves = read
        result: list[Briefing] = []
        for side, half in halves.items():
            (other,) = (h for name, h in halves.items() if name != side)
            tries: Counter[int] = Counter()  # own sub-target -> times given to this half, whichever value it completes
            for text, times in half.given.items():
                if match := DIRECTIVE.fullmatch(text):
                    tries[int(match["own"])] += times
            untried = (
                (s, text)
                for s, text in menu(target, other.values).items()
                if tries[s] < (MAX_REPEATS if s in half.values else MAX_TRIES)
            )
            offered = dict(islice(untried, self.menu))
            agents = tuple(a for a in half.agents if a in request.agents)
            if offered and agents:
                prompt = briefing_text(side.split("|")[0], offered)
                result.append(Briefing(agents, prompt, {str(s): text for s, text in offered.items()}))
        return result

    def parse(self, text: str, briefing: Briefing) -> dict[str, str]:
        """Read which options a model picked; whatever is no option is skipped."""
        picked = dict.fromkeys(word for word in text.split() if word in briefing.options)
        return dict(zip(briefing.agents, (briefing.options[word] for word in picked), strict=False))


def _parity(agent: str) -> str:
    return str(int(agent[1:]) % 2) if re.fullmatch(r"a[0-9]{1,9}", agent) else ""
