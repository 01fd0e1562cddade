"""How an agent's prompt is put together, in play and in training alike.

Owns the text layout. Every line is a fact the agent may know; the action is what follows the last newline.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["STOP", "agent_prompt"]

STOP = "\n"
"""Ends an action."""


def agent_prompt(
    observation: str,
    directive: str = "",
    heard: Sequence[str] = (),
    history: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the text an agent reads before it acts.

    Args:
        observation: the world's text.
        directive: the coordinator's text for this agent, if any.
        heard: the latest reports of its neighbours.
        history: its own last (action, feedback) pairs, oldest first.
    """
    lines = [observation]
    lines += [f"heard {text}" for text in heard]
    lines += [f"{action} {feedback}" for action, feedback in history]
    if directive:
        lines.append(directive)
    return "\n".join(lines) + "\n"
