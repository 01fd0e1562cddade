"""How to steer codebook-v0: what opened one vault goes to the agents whose vaults ask for the same.

It reads report texts and keeps nothing between calls, so what agents learned in earlier episodes is theirs alone.
"""

import re

from worlds.protocol import Briefing, Playbook, Situation

_OPENED = re.compile(r"opened (?P<key>[a-z]{1,12} [a-z]{1,12}) (?P<value>[a-z]{1,12} [a-z]{1,12})(?: ; .*)?")
_ASKS = re.compile(r"(?:.* ; )?ask (?P<key>[a-z]{1,12} [a-z]{1,12})")
_ANSWER = re.compile(r"\b(?P<agent>a[0-9]{1,6})\W{1,3}(?P<note>[a-z]{1,12}(?: [a-z]{1,12}){3})\b")


class CodebookPlaybook(Playbook):
    """Rules, briefings and parsing for codebook-v0."""

    directive = r"note( [a-z]{1,12}){4}"
    about = "A directive such as note moru kavi mine bora tells an agent the value mine bora of the key moru kavi."

    def rules(self, situation: Situation) -> dict[str, str]:
        """Tell every agent that is asked for a key the value with which another one has opened a vault of this key."""
        opened: dict[str, tuple[str, str]] = {}  # key -> by whom, with which value
        asked: dict[str, str] = {}
        for report in situation.reports:
            if match := _OPENED.fullmatch(report.text):
                opened[match["key"]] = (report.agent, match["value"])
            asks = _ASKS.fullmatch(report.text)
            asked[report.agent] = asks["key"] if asks else ""
        return {
            agent: f"note {key} {opened[key][1]}"
            for agent in situation.agents
            if (key := asked.get(agent, "")) in opened and opened[key][0] != agent
        }

    def briefings(self, situation: Situation) -> list[Briefing]:
        """Offer a model what the rules would say, in one line; none when there is nothing to tell."""
        told = self.rules(situation)
        lines = [f"{agent} {directive.removeprefix('note ')}" for agent, directive in told.items()]
        return [Briefing(tuple(told), f"notes {' '.join(lines)}\n")] if told else []

    def parse(self, text: str, briefing: Briefing) -> dict[str, str]:
        """Return `AGENT: KEY VALUE` for the agents of the briefing; total on any text."""
        found = {match["agent"]: f"note {match['note']}" for match in _ANSWER.finditer(text)}
        return {agent: found[agent] for agent in briefing.agents if agent in found}
