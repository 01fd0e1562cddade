"""Agents of archive-v0 that read by hand-written rules: what a µLM that makes no error would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fakes.scripted_run import ScriptedPool

from swarm.agents.registry import RegistrySection, look_up, reading
from swarm.coordinator.kinds import make_coordinator
from swarm.messages import ActReply, ActRequest, DirectReply, DirectRequest
from worlds.archive.world import read_by_rules


class ArchiveReaders(ScriptedPool):
    """Answers the calls of agents and coordinator; a token is four characters.

    Args:
        config: the experiment.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.settings = next((one for one in config.agents.memory if isinstance(one, RegistrySection)), None)
        self._coordinator = make_coordinator(
            config.coordinator, config.world.id, None, self.count_tokens, (), lambda count: 60.0
        )

    def answer(self, request: ActRequest) -> ActReply:
        """Read, note, look up."""
        observation, *rest = request.prompt.rstrip("\n").split("\n")
        text = read_by_rules(observation, rest[-1] if rest else "")
        inlined: tuple[tuple[int, int], ...] = ()
        if text.endswith("=") and (found := self.looked_up(request, text)) is not None:
            inlined = ((len(text), len(text) + len(found)),)
            text += found
        return ActReply(request.key, text, len(request.prompt) // 4, len(text) // 4 + 1, inlined=inlined)

    def looked_up(self, request: ActRequest, text: str) -> str | None:
        """Return what an agent's memory appends to a look-up, None without one."""
        if self.settings is None:
            return None
        return look_up(reading(request.memories[0], self.settings), self.settings.control, request.prompt, text) or ""

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Ask the real coordinator."""
        return self._coordinator.direct(requests)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) // 4 + 1 for text in texts]

    count_prompts = count_tokens
