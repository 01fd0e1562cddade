"""What an episode has used and what it may still start.

Owns the accounting of tokens, model calls and world actions, and the rule for starting calls: a call starts only
while something is left after every call in flight is counted at its largest possible cost, so an episode overshoots
by at most one call. Knows no models and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.config.experiment import BudgetConfig
from swarm.record.records import SpentEntry, Tick, acted


@dataclass(frozen=True, slots=True)
class Spent:
    """Use of one episode so far. Tokens are prompt, generated, messages and the coordinator's own."""

    tokens: int = 0
    calls: int = 0
    actions: int = 0

    @classmethod
    def of(cls, record: Tick) -> Spent:
        """Return what a tick record charges: agents, coordinator, and what a person said."""
        calls = [*record["agents"], *([] if record["coordinator"] is None else [record["coordinator"]])]
        return cls(
            sum(call["prompt_tokens"] + call["generated_tokens"] for call in calls)
            + sum(said["tokens"] for said in record.get("steered", ())),
            len(record["agents"]) + (0 if record["coordinator"] is None else record["coordinator"]["calls"]),
            sum(acted(entry) for entry in record["agents"]),
        )

    def __add__(self, other: Spent) -> Spent:
        """Return what both accounts hold."""
        return Spent(self.tokens + other.tokens, self.calls + other.calls, self.actions + other.actions)

    def entry(self) -> SpentEntry:
        """Return the journal's form."""
        return {"tokens": self.tokens, "calls": self.calls, "actions": self.actions}

    def exhausted(self, budget: BudgetConfig, ticks: int) -> str | None:
        """Return the name of a limit that is reached, or None."""
        limits = (
            ("tokens", self.tokens, budget.tokens),
            ("calls", self.calls, budget.calls),
            ("actions", self.actions, budget.actions),
            ("ticks", ticks, budget.ticks),
        )
        return next((name for name, used, limit in limits if limit is not None and used >= limit), None)

    def admit(self, budget: BudgetConfig, largest_costs: list[int]) -> int:
        """Return how many of the calls, in order, may start now.

        Args:
            budget: the limits.
            largest_costs: tokens each call uses at most.
        """
        tokens = self.tokens
        for count, cost in enumerate(largest_costs):
            if (
                (budget.tokens is not None and tokens >= budget.tokens)
                or (budget.calls is not None and self.calls + count >= budget.calls)
                or (budget.actions is not None and self.actions + count >= budget.actions)
            ):
                return count
            tokens += cost
        return len(largest_costs)
