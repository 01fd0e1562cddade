"""What agents know for certain: facts that the world vouches for, of one agent or of the whole swarm.

Owns who may read what, and the null controls. Facts are written when a tick is committed, in agent order, and read from
the next tick on; a resumed run writes them again from its journal, so there is nothing else to keep on disk. The first
to say something stays right: a key that is known keeps its action. It refuses to know models and tokens.
"""

from __future__ import annotations

from collections.abc import Iterable

from swarm.config.experiment import EngramSection
from swarm.messages import FactsKnown
from swarm.prompt import STOP, agent_prompt

__all__ = ["SwarmFacts"]

_EVERYBODY = ""


class SwarmFacts:
    """Facts of one episode, or of a run.

    Args:
        settings: shared or private, and null controls.
    """

    def __init__(self, settings: EngramSection) -> None:
        self._settings = settings
        self._written: dict[str, dict[str, str]] = {}
        self._known: dict[str, FactsKnown] = {}

    def write(self, agent: str, facts: Iterable[tuple[str, str]]) -> None:
        """Take over what an agent has learned: observations, each with the action that is right there."""
        owner = _EVERYBODY if self._settings.shared else agent
        written = self._written.setdefault(owner, {})
        before = len(written)
        for observation, action in facts:
            written.setdefault(agent_prompt(observation), action + STOP)
        if len(written) > before:
            self._known.pop(owner, None)

    def known(self, agent: str) -> FactsKnown:
        """Return what an agent can recall, the same object for all who can recall the same."""
        owner = _EVERYBODY if self._settings.shared else agent
        if owner not in self._known:
            self._known[owner] = self._controlled(self._written.get(owner, {}))
        return self._known[owner]

    def _controlled(self, written: dict[str, str]) -> FactsKnown:
        facts = list(written.items())
        if self._settings.control == "capacity_1":
            facts = facts[-1:]
        elif self._settings.control == "shuffled":
            actions = [action for _, action in facts]
            facts = [(key, action) for (key, _), action in zip(facts, actions[1:] + actions[:1], strict=True)]
        return tuple(facts)
