"""Our own engine behind the protocol of text generation: the one place where it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from swarm.backends.local import LATE, LocalModel
from swarm.backends.models import ChatFormat
from swarm.backends.protocol import MemoryReader, ReadAgain, TextRequest, TextResult
from swarm.messages import Update

if TYPE_CHECKING:
    from ulm.decode.engine import Engine, GenerationRequest, GenerationResult
    from ulm.delta import Delta
    from ulm.memory.state import LTMState


MOST_CHARACTERS = 1000
"""Of one inline answer."""


@dataclass(slots=True)
class _Asked:
    """What answers a text inline, the first that can; anybody's code, which is not asked again once it failed."""

    asks: Sequence[Callable[[str], str | None]]
    fault: str | None = None

    def __call__(self, text: str) -> str | None:
        """Return what follows a text."""
        if self.fault is not None:
            return None
        try:
            found = next((said for ask in self.asks if (said := ask(text)) is not None), None)
            if found is not None and len(found.encode()) > MOST_CHARACTERS:
                raise ValueError(f"an answer of more than {MOST_CHARACTERS} bytes")
        except Exception as error:
            self.fault = f"an inline answer failed: {type(error).__name__}: {error}"[:300]
            return None
        return found


def _about(prompt: str, look_up: Callable[[str, str], str | None] | None) -> Callable[[str], str | None] | None:
    """Return what answers a text from a memory: it may also use what the text is about."""
    return None if look_up is None else partial(look_up, prompt)


class UlmModel(LocalModel["GenerationRequest"]):
    """A µLM, or a pretrained Llama in our core; what a request gets depends on that request alone.

    Args:
        engine: the model, ready to decode.
        chat: its chat format; without one, requests with a system message are refused.
        max_length: tokens of prompt and answer; our attention slides, so it is a matter of taste.
        readers: what opens the memories of requests, by kind.
    """

    def __init__(
        self,
        engine: Engine,
        chat: ChatFormat | None = None,
        max_length: int = 1 << 20,
        readers: Mapping[str, MemoryReader] = MappingProxyType({}),
    ) -> None:
        super().__init__(engine.tokenizer, chat, max_length)
        self._engine, self._readers = engine, readers
        self._opened: dict[tuple[str, str], tuple[int, Mapping[str, Any]]] = {}
        self._reread: dict[int, int] = {}  # id of a memory that was written anew -> tokens that were read for it

    def generate(self, requests: Sequence[TextRequest], deadline_s: float | None = None) -> list[TextResult]:
        """Answer every request; past the deadline all of them are faults, for they are decoded together."""
        self._opened, self._reread = {}, {}  # memories that several of a batch read are opened once
        return super().generate(requests, deadline_s)

    def _call(self, request: TextRequest, ids: list[int]) -> GenerationRequest:
        from ulm.decode.engine import GenerationRequest

        form = request.structure
        if form is not None and form.regex is not None and request.stop:
            # The stop ends the answer, so it has to be possible there.
            stop = "".join(f"\\x{byte:02x}" for byte in request.stop[0].encode("ascii"))
            form = replace(form, regex=f"(?:{form.regex}){stop}")
        memories = self._memories(request)
        asked = [one for one in (request.inline, _about(request.prompt, memories.pop("inline", None))) if one]
        return GenerationRequest(
            tuple(ids),
            request.seed,
            request.max_new_tokens,
            request.temperature,
            stop=request.stop,
            constraint=self.constraint(form),
            opening=self.opening(request, ids),
            inline=_Asked(asked) if asked else None,
            **memories,
        )

    def _answers(self, calls: list[GenerationRequest], deadline_s: float | None) -> list[TextResult]:
        try:
            found = self._engine.generate(calls, deadline_s)
        except TimeoutError:
            return [TextResult.failed(LATE, len(call.prompt), call.max_new_tokens) for call in calls]
        return [self._result(call, result) for call, result in zip(calls, found, strict=True)]

    def _result(self, call: GenerationRequest, found: GenerationResult) -> TextResult:
        read = found.prompt_tokens + found.inlined_tokens + self._reread.get(id(call.memory), 0)
        if isinstance(call.inline, _Asked) and call.inline.fault is not None:
            return TextResult.failed(call.inline.fault, read, found.generated_tokens)
        updates = self._updates(found)
        return TextResult(found.text, read, found.generated_tokens, found.finish, None, updates, inlined=found.inlined)

    def _updates(self, result: GenerationResult) -> tuple[Update, ...]:
        written = ((kind, reader.update(result)) for kind, reader in self._readers.items())
        return tuple((kind, data) for kind, data in written if data is not None)

    def _memories(self, request: TextRequest) -> dict[str, Any]:
        """Return what the engine takes for the memories of a request."""
        found: dict[str, Any] = {}
        for handle in request.memories:
            name, revision = handle.version
            if (handle.kind, name) not in self._opened:
                try:
                    self._opened[handle.kind, name] = revision, self._readers[handle.kind].open(handle)
                except (ValueError, OSError) as error:
                    raise ValueError(f"memory {handle.kind} cannot be read: {error}") from error
            there, fields = self._opened[handle.kind, name]
            if there != revision:
                raise RuntimeError(f"versions {there} and {revision} of memory {handle.kind} {name} in one batch")
            if taken := sorted(found.keys() & fields.keys()):
                raise ValueError(f"{handle.kind} and another memory both are the engine's `{taken[0]}`; leave one out")
            found |= fields
        if isinstance(memory := found.get("memory"), ReadAgain):
            found["memory"] = self._written_anew(memory.texts, found.get("delta"))
        return found

    def _written_anew(self, texts: Sequence[str], delta: Delta | None) -> LTMState | None:
        """Return a long-term memory that is written from texts, one after the other."""
        from ulm.decode.engine import GenerationRequest

        memory, tokens = None, 0
        for text in texts:  # one token is generated, which is not read
            (result,) = self._engine.generate([GenerationRequest(text, 0, 1, 0.0, memory=memory, delta=delta)])
            memory, tokens = result.memory, tokens + result.prompt_tokens
        self._reread[id(memory)] = tokens
        return memory
