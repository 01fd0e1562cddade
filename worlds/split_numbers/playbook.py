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
from worlds.protocol import Briefing, Playbook, Situation
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
    given: Counter[str] = field(default_factory=Counter)  # directive -> times given to this half
    declined: set[int] = field(default_factory=set)  # own sub-targets that a model decided against

    def accepts(self, sub_target: int, tries: int) -> bool:
        """Return whether a sub-target that was given so often is worth offering."""
        if sub_target in self.values:
            return tries < MAX_REPEATS
        return tries < MAX_TRIES and sub_target not in self.declined

    def menu(self, target: int, other: "_Half", most: int | None) -> dict[int, str]:
        """Return the sub-targets to offer to this half, with their directives."""
        tries: Counter[int | None] = Counter()  # own sub-target -> times given, whichever value it completes
        for text, times in self.given.items():
            tries[_own(text)] += times
        ways = menu(target, other.values).items()
        return dict(islice(((s, text) for s, text in ways if self.accepts(s, tries[s])), most))


def _pairs(situation: Situation) -> list[tuple[int, _Half, _Half]]:
    """Return (target, half, the other half) for both halves as reports and directives have them; none before."""
    goal = _GOAL.search(situation.goal)
    halves: dict[str, _Half] = {}  # by tiles and parity
    home: dict[str, _Half] = {}
    for report in situation.reports:
        match = _REPORT.fullmatch(report.text.strip())
        if match is None:
            continue
        agent = report.agent
        if agent not in home:
            # Two halves may hold equal tiles; agents of one half still share the parity of their number.
            home[agent] = halves.setdefault(f"{match['tiles']}|{_parity(agent)}", _Half(match["tiles"]))
            home[agent].agents.append(agent)
        if match["value"] is not None and int(match["value"]) not in home[agent].values:
            home[agent].values.append(int(match["value"]))
    for _, agent, text in situation.directives:
        if agent in home:
            home[agent].given[text] += 1
    for agent, text in situation.declined:
        if agent in home and (own := _own(text)) is not None:
            home[agent].declined.add(own)
    if goal is None or len(halves) != 2:
        return []
    target, (one, other) = int(goal["target"]), halves.values()
    return [(target, one, other), (target, other, one)]


def menu(target: int, values: Sequence[int]) -> dict[int, str]:
    """Return sub-target -> the directive that asks for it, smallest sub-target first, the latest value winning.

    Args:
        target: of the puzzle.
        values: what the other half posted, in order.
    """
    ways = {s: form.format(s) for value in values for form, s in sub_targets(value, target) if s < LARGEST}
    return dict(sorted(ways.items()))


def briefing_text(tiles: str, options: Iterable[int | str]) -> str:
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
        result: dict[str, str] = {}
        for target, half, other in _pairs(situation):
            known: list[str] = []
            guesses: list[tuple[int, int, str]] = []
            for age, value in enumerate(reversed(other.values)):
                for form, s in sub_targets(value, target):
                    text = form.format(s)
                    if s in half.values:
                        known += [text] * (COPIES if half.given[text] < MAX_REPEATS else 0)
                    elif not half.given[text]:
                        guesses.append((s, age, text))
            agents = [a for a in half.agents if a in situation.agents]
            result.update(zip(agents, known + [text for _, _, text in sorted(guesses)], strict=False))
        return result

    def briefings(self, situation: Situation) -> list[Briefing]:
        """Return one briefing per half that has something to complete.

        What a model declined before is offered no more, unless its half posts it.
        """
        result: list[Briefing] = []
        for target, half, other in _pairs(situation):
            options = {str(s): text for s, text in half.menu(target, other, self.menu).items()}
            agents = tuple(a for a in half.agents if a in situation.agents)
            if options and agents:
                marks = self.answers == "marks"
                prompt = marking_text(half.tiles) if marks else briefing_text(half.tiles, options)
                pattern = "".join(f"{s}[+-]" for s in options) if marks else None
                result.append(Briefing(agents, prompt, options, pattern))
        return result

    def parse(self, text: str, briefing: Briefing) -> dict[str, str]:
        """Read which options a model picked; whatever is no option is skipped."""
        words = dict.fromkeys(text.split()) if briefing.pattern is None else _marked(text, "+")
        picked = (briefing.options[word] for word in words if word in briefing.options)
        return dict(zip(briefing.agents, picked, strict=False))

    def declined(self, text: str, briefing: Briefing, cut: bool) -> list[str]:
        """Return what an answer in the known form left out; of one that was cut or is long, up to its last pick.

        What comes after a pick for each agent, or after the cut, was not decided. Marks say it themselves.
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


def _marked(text: str, mark: str) -> list[str]:
    """Return the numbers that have a mark behind them."""
    return [match["value"] for match in _MARK.finditer(text) if match["mark"] == mark]


def _own(directive: str) -> int | None:
    """Return the sub-target that a directive asks for, None where it is none of this world's."""
    return int(match["own"]) if (match := DIRECTIVE.fullmatch(directive)) else None


def _parity(agent: str) -> str:
    return str(int(agent[1:]) % 2) if re.fullmatch(r"a[0-9]{1,9}", agent) else ""
