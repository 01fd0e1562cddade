"""How an agent's prompt is put together, in play and in training alike.

Owns the text layout. Every line is a fact the agent may know; the action is what follows the last newline.
"""

from collections.abc import Mapping, Sequence
from typing import Any

STOP = "\n"
"""Ends an action."""


def agent_prompt(
    observation: str,
    directive: str = "",
    heard: Sequence[str] = (),
    history: Sequence[tuple[str, str]] = (),
    kept: Sequence[str] = (),
) -> str:
    """Return the text an agent reads before it acts.

    Args:
        observation: the world's text.
        directive: the coordinator's text for this agent, if any.
        heard: the latest reports of its neighbours.
        history: its own last (action, feedback) pairs, oldest first.
        kept: what its memories have to say.
    """
    lines = (
        observation,
        *kept,
        *(f"heard {text}" for text in heard),
        *(f"{action} {feedback}" for action, feedback in history),
        *([directive] if directive else []),
    )
    return "\n".join(lines) + "\n"


def tool_lines(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a world's actions in a line each, for models that were not trained on them."""
    lines: list[str] = []
    for tool in tools:
        fields = [
            f"{{{name}}} is {field['description'].rstrip('.')}"
            for name, field in tool["parameters"]["properties"].items()
            if field.get("description")
        ]
        meaning = f" ({'; '.join(fields)})" if fields else ""
        lines.append(f"{tool['text']}{meaning}: {tool['description']}")
    return lines


def agent_system(tools: Sequence[Mapping[str, Any]]) -> str:
    """Return what opens the chat of an agent whose model was not trained on the world."""
    return "\n".join(
        (
            "You are one agent of a team that works on one goal in a text world. You read what you see, what others "
            "say and what your last actions did, and answer with one action and nothing else.",
            "Actions:",
            *tool_lines(tools),
        )
    )
